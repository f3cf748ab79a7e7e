package keeper

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"batchwarden/platform/launch"
)

func same(journal string) string { return journal }

// lookAt is a job as it is now.
func (b *bed) lookAt(id string) launch.Job {
	b.t.Helper()
	job, err := b.launcher.Job(b.ctx(), "lsam", id, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	return job
}

// TestTakenUp: what the next launcher knows and does of a job, with and without cgroups. The process of these tests is
// the parent of the jobs of both launchers; TestSurvival of package daemon has one that is not.
func TestTakenUp(t *testing.T) {
	needRoot(t)
	for name, root := range map[string]string{"cgroup": os.Getenv(cgroupEnv), "session": "/proc/no-cgroups-here"} {
		t.Run(name, func(t *testing.T) {
			c := configure(t)
			c.CgroupRoot = root
			b := start(t, c)
			running := b.started("script", "echo $$; while :; do sleep 0.05; done")
			path := script(t, "/mnt/home/payroll/"+name, "#!/bin/sh\nsleep 600 & echo $$; while :; do sleep 0.05; done\n", jobUID, 0o755)
			conn, _ := b.requester(agentUID)
			if _, _, err := b.launcher.Start(b.ctx(), conn, spec("by-path", path)); err != nil {
				t.Fatal(err)
			}
			for range 2 { // twice: what the first one took up the second one finds, too
				b.restart(same)
				if now := b.lookAt("script"); now.State != launch.StateRunning || now.PID != running.PID || !now.Started.Equal(running.Started) || now.StartedBoot != running.StartedBoot {
					t.Errorf("got %+v, want %+v", now, running)
				}
				if now := b.lookAt("by-path"); now.State != launch.StateRunning || !now.ByPath {
					t.Errorf("got %+v", now)
				}
			}
			if err := unix.Kill(b.lookAt("by-path").PID, unix.SIGHUP); err != nil {
				t.Error(err)
			}
			if end := b.wait("by-path"); end.Signal != "HUP" || end.Survivors == 0 || !end.ByPath {
				t.Errorf("got %+v, want survivors", end)
			}
			b.started("stubborn", "trap '' TERM; echo on; while :; do sleep 0.05; done")
			if _, err := b.launcher.Signal(b.ctx(), "lsam", "stubborn", launch.Cancel, time.Second); err != nil {
				t.Error(err)
			}
			b.restart(same)
			if end := b.wait("stubborn"); end.State != launch.StateFailed || end.Code != launch.CodeCanceled || end.Signal != "KILL" {
				t.Errorf("canceled before the restart: %+v", end)
			}
			b.signal("script", "TERM")
			end := b.wait("script")
			if end.State != launch.StateExited || end.Signal != "TERM" || end.EndedBoot <= end.StartedBoot {
				t.Errorf("got %+v", end)
			}
			if left := ofUser(jobUID); len(left) != 0 {
				t.Errorf("left behind: %+v", left)
			}
			if got := b.boxed(); len(got) != 0 {
				t.Errorf("cgroups are left: %v", got)
			}
		})
	}
}

// TestNotTakenUp: a process that has the number of a job's first one is not that, when it is younger than the number's
// entry in the journal, or in no cgroup of the job. It is left alone; of the job nothing is left.
func TestNotTakenUp(t *testing.T) {
	needRoot(t)
	entry := func(name, number string) func(string) string {
		return func(journal string) string { return replaceAfter(journal, `"kind":"run"`, name, number) }
	}
	for name, root := range map[string]string{"cgroup": os.Getenv(cgroupEnv), "session": "/proc/no-cgroups-here"} {
		t.Run(name, func(t *testing.T) {
			c := configure(t)
			c.CgroupRoot = root
			b := start(t, c)
			const text = "sleep 600 & echo $$; exec sleep 600"
			stranger := exec.Command("/bin/sleep", "600")
			stranger.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Credential: &syscall.Credential{Uid: jobUID, Gid: jobUID}}

			elsewhere := b.started("elsewhere", text)
			time.Sleep(2 * clockTick) // the kernel tells births in ticks
			if err := stranger.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _, _ = stranger.Process.Kill(), stranger.Wait() })
			b.restart(func(journal string) string {
				return entry(`"at":`, fmt.Sprint(int64(elsewhere.StartedBoot)))(entry(`"pid":`, fmt.Sprint(stranger.Process.Pid))(journal))
			})
			if end := b.wait("elsewhere"); end.State != launch.StateLost {
				t.Errorf("got %+v", end)
			}
			if !alive(stranger.Process.Pid) {
				t.Error("somebody else's process was ended")
			}
			unled := func(job launch.Job) {
				if name == "session" { // nothing leads to its processes any more
					if err := unix.Kill(-job.PID, unix.SIGKILL); err != nil {
						t.Error(err)
					}
				}
			}
			unled(elsewhere)
			until(t, "the job's processes are gone", func() bool { return len(ofUser(jobUID)) == 1 })

			nobody := b.started("nobody", text)
			b.restart(entry(`"pid":`, "4194305")) // more than there can be
			if end := b.wait("nobody"); end.State != launch.StateLost || name == "cgroup" && end.Survivors != 2 {
				t.Errorf("got %+v", end)
			}
			unled(nobody)
			until(t, "the job's processes are gone", func() bool { return len(ofUser(jobUID)) == 1 })
		})
	}
}

// replaceAfter puts another number behind the last name after the last mark.
func replaceAfter(text, mark, name, number string) string {
	at := strings.LastIndex(text, mark)
	from := at + strings.Index(text[at:], name) + len(name)
	if at < 0 || from < at+len(name) {
		return text
	}
	to := from + strings.IndexAny(text[from:], ",}")
	return text[:from] + number + text[to:]
}

// TestOutputTakenUp: what a job writes after its launcher ended is where the rest is, and is held to its limit.
func TestOutputTakenUp(t *testing.T) {
	b := newBed(t)
	conn, _ := b.requester(agentUID)
	s := spec("chatty", "/bin/sh", "-c", "trap 'head -c 3000000 /dev/zero | tr \"\\0\" x; echo last; exit 0' TERM; echo first; while :; do sleep 0.05; done")
	s.CaptureMax = 64 << 10
	if _, _, err := b.launcher.Start(b.ctx(), conn, s); err != nil {
		t.Fatal(err)
	}
	until(t, "it has begun", func() bool { return b.output("chatty", launch.Stdout) == "first\n" })
	b.restart(same)
	b.signal("chatty", "TERM")
	if end := b.wait("chatty"); !end.Captured {
		t.Errorf("got %+v", end)
	}
	text := b.output("chatty", launch.Stdout)
	if len(text) != 3000011 || !strings.HasPrefix(text, "first\nxxx") || !strings.HasSuffix(text, "xxxlast\n") {
		t.Errorf("%d octets, begins %.12q", len(text), text)
	}
	var st unix.Stat_t
	if err := unix.Stat(filepath.Join(outputPath(b.config.StateDir, b.lookAt("chatty").Serial), launch.Stdout), &st); err != nil || st.Blocks*512 > 80<<10 {
		t.Errorf("it takes %d octets on the disk, %v", st.Blocks*512, err)
	}
}

// TestTimesTakenUp: a timeout counts from the job's start, and a KILL that was announced comes.
func TestTimesTakenUp(t *testing.T) {
	b := newBed(t)
	conn, _ := b.requester(agentUID)
	const stubborn = "trap '' TERM; echo $$; while :; do sleep 0.05; done"
	timed := spec("timed", "/bin/sh", "-c", stubborn)
	timed.Timeout, timed.Grace = 1500*time.Millisecond, 500*time.Millisecond
	if _, _, err := b.launcher.Start(b.ctx(), conn, timed); err != nil {
		t.Fatal(err)
	}
	b.started("asked", stubborn)
	asked := time.Now()
	if _, err := b.launcher.Signal(b.ctx(), "lsam", "asked", "TERM", 2*time.Second); err != nil {
		t.Fatal(err)
	}
	b.restart(same)
	end := b.wait("timed")
	if took := end.EndedBoot - end.StartedBoot; end.State != launch.StateFailed || end.Code != launch.CodeTimeout || end.Signal != "KILL" || took < 2*time.Second || took > 8*time.Second {
		t.Errorf("got %+v after %v", end, took)
	}
	end = b.wait("asked")
	if took := end.Ended.Sub(asked); end.State != launch.StateExited || end.Signal != "KILL" || took < 2*time.Second || took > 8*time.Second {
		t.Errorf("got %+v after %v", end, took)
	}
}

// TestClocks: a job's times are told by both clocks.
func TestClocks(t *testing.T) {
	b := newBed(t)
	wall, boot := time.Now(), sinceBoot()
	job := b.run(spec("clocks", "/bin/sleep", "0.3"))
	passed := sinceBoot()
	if job.StartedBoot < boot || job.EndedBoot > passed || job.EndedBoot-job.StartedBoot < 300*time.Millisecond {
		t.Errorf("by the boot clock from %v to %v, want it between %v and %v", job.StartedBoot, job.EndedBoot, boot, passed)
	}
	if job.Started.Before(wall) || job.Ended.After(time.Now()) {
		t.Errorf("from %v to %v, want it between %v and now", job.Started, job.Ended, wall)
	}
	if failed := b.run(spec("failed", "/no/such/command")); failed.EndedBoot <= failed.StartedBoot || failed.StartedBoot == 0 {
		t.Errorf("a failed one: %+v", failed)
	}
}

// TestCoreDumped: a job may leave a core file, and the record says so.
func TestCoreDumped(t *testing.T) {
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil || !strings.HasPrefix(string(pattern), "core") {
		t.Skipf("core files go to %q, %v", pattern, err)
	}
	b := newBed(t)
	t.Cleanup(func() {
		files, _ := filepath.Glob("/mnt/home/payroll/core*") // the pattern has no fault
		for _, f := range files {
			_ = os.Remove(f)
		}
	})
	if job := b.run(spec("dumps", "/bin/sh", "-c", "ulimit -c unlimited; kill -SEGV $$")); job.Signal != "SEGV" || !job.CoreDumped {
		t.Errorf("got %+v", job)
	}
	if job := b.run(spec("does-not", "/bin/sh", "-c", "ulimit -c 0; kill -SEGV $$")); job.Signal != "SEGV" || job.CoreDumped {
		t.Errorf("got %+v", job)
	}
}

// TestUsage: what a job used is told.
func TestUsage(t *testing.T) {
	b := newBed(t)
	const text = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; head -c 50000000 /dev/zero | tail -c 40000000 >/dev/null"
	if job := b.run(spec("busy", "/bin/sh", "-c", text)); job.CPUSeconds < 0.02 || job.CPUSeconds > 60 || job.MaxRSS < 35<<20 || job.MaxRSS > 1<<30 {
		t.Errorf("%v s, %d octets", job.CPUSeconds, job.MaxRSS)
	}
}
