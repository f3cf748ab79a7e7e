package keeper

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"batchwarden/platform/launch"
)

// daemonizes leaves one process that has another session, another process group and no parent, and says its number
// when its parent has ended and the launcher has it.
const daemonizes = `export L=$PPID; (setsid sh -c 'setsid sh -c "until grep -qsw PPid:.\$L /proc/\$\$/status; do sleep 0.01; done; echo \$\$; exec sleep 600" & exit 0' &) ; while [ ! -s /proc/$$/fd/1 ]; do sleep 0.01; done; `

// again runs the test in a process of its own, which has the login uid of somebody and cannot give jobs another one.
func again(t *testing.T) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-c", "echo 4999 >/proc/self/loginuid; exec /usr/bin/setpriv --bounding-set -audit_control --inh-caps -audit_control "+
		program+" -test.v -test.run '^"+t.Name()+"$'")
	cmd.Env = append(os.Environ(), roleEnv+"=again")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// TestOrphans: without cgroups, a process that left its session and lost its parents is found, by the audit session of
// its job, at the end of that job and not of another.
func TestOrphans(t *testing.T) {
	b := newUnboxed(t)
	if !strings.HasPrefix(b.containment(), "session, subreaper: no cgroup v2 to use: ") {
		t.Errorf("containment is %q", b.containment())
	}
	if auditSession(b.started("other", "exec sleep 600").PID) == 0 {
		t.Skip("this kernel has no audit sessions; TestOrphansWithoutAudit shows what then is")
	}
	first := b.started("first", daemonizes+"sleep 600")
	orphan := number(t, b.output("first", launch.Stdout))
	if p, ok := processOf(orphan); !ok || p.session == first.PID || p.parent != os.Getpid() {
		t.Errorf("the orphan is %+v", p)
	}
	second := b.run(spec("second", "/bin/sh", "-c", daemonizes))
	if second.Survivors != 1 || alive(number(t, b.output("second", launch.Stdout))) || !alive(orphan) {
		t.Errorf("second: %+v; the first one's orphan lives: %v", second, alive(orphan))
	}
	b.signal("first", "KILL")
	if end := b.wait("first"); alive(orphan) {
		t.Errorf("the orphan still lives: %+v", end)
	}
	b.signal("other", "KILL")
	b.wait("other")
}

// TestOrphansWithoutAudit: where the kernel gives jobs no audit session, an orphan is ended when the last job of its user
// has ended: until then nobody can tell whose it is.
func TestOrphansWithoutAudit(t *testing.T) {
	needRoot(t)
	if os.Getenv(roleEnv) != "again" {
		again(t)
		return
	}
	b := newUnboxed(t)
	other := b.started("other", "exec sleep 600")
	if auditSession(other.PID) != auditSession(os.Getpid()) {
		t.Fatal("the job has an audit session of its own: this shows nothing")
	}
	job := b.run(spec("first", "/bin/sh", "-c", daemonizes))
	orphan := number(t, b.output("first", launch.Stdout))
	if job.Survivors != 0 || !alive(orphan) || !alive(other.PID) {
		t.Errorf("with another job of its user: %+v, the orphan lives: %v", job, alive(orphan))
	}
	if err := unix.Kill(other.PID, unix.SIGKILL); err != nil {
		t.Error(err)
	}
	if end := b.wait("other"); end.Survivors != 1 || alive(orphan) {
		t.Errorf("the last one: %+v, the orphan lives: %v", end, alive(orphan))
	}
	last := b.run(spec("alone", "/bin/sh", "-c", daemonizes))
	if last.Survivors != 1 || alive(number(t, b.output("alone", launch.Stdout))) {
		t.Errorf("alone: %+v", last)
	}
}

// TestOrphansAreReaped: those that came to us and ended by themselves do not stay as zombies.
func TestOrphansAreReaped(t *testing.T) {
	needRoot(t)
	b := newUnboxed(t)
	b.started("job", "(setsid sh -c 'setsid sh -c \"echo \\$\\$; exec true\" & exit 0' &) ; while [ ! -s /proc/$$/fd/1 ]; do sleep 0.01; done; sleep 600")
	orphan := number(t, b.output("job", launch.Stdout))
	k := &keeper{boxes: &boxes{}, live: map[uint64]*job{}}
	until(t, "the orphan is a zombie of ours", func() bool {
		p, ok := processOf(orphan)
		return ok && p.dead() && p.parent == os.Getpid()
	})
	k.reapOrphans()
	if _, ok := processOf(orphan); !ok || k.orphans[orphan].IsZero() {
		t.Error("it was not left to whoever may wait for it")
	}
	k.orphans[orphan] = time.Now().Add(-orphanPatience)
	k.reapOrphans()
	if p, ok := processOf(orphan); ok {
		t.Errorf("it still is there: %+v", p)
	}
	b.signal("job", "KILL")
	b.wait("job")
}

func newUnboxed(t *testing.T) *bed {
	t.Helper()
	needRoot(t)
	c := configure(t)
	c.CgroupRoot = "/proc/no-cgroups-here"
	return start(t, c)
}

func (b *bed) containment() string {
	b.t.Helper()
	until(b.t, "the launcher has said how jobs are contained", func() bool { return b.launcher.Status().Containment != "" })
	return b.launcher.Status().Containment
}

// started starts a job of a shell's and waits until it has said something, or is the command where it says nothing.
func (b *bed) started(id, text string) launch.Job {
	b.t.Helper()
	conn, _ := b.requester(agentUID)
	job, _, err := b.launcher.Start(b.ctx(), conn, spec(id, "/bin/sh", "-c", text))
	if err != nil || job.State != launch.StateRunning {
		b.t.Fatalf("%+v, %v", job, err)
	}
	if strings.Contains(text, "echo") {
		until(b.t, id+" has said something", func() bool { return strings.HasSuffix(b.output(id, launch.Stdout), "\n") })
	}
	return job
}

func (b *bed) signal(id, name string) {
	b.t.Helper()
	if _, err := b.launcher.Signal(b.ctx(), "lsam", id, name, 0); err != nil {
		b.t.Errorf("%s: %v", id, err)
	}
}

func until(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !is(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not so: %s", what)
		}
	}
}

// TestNothingIsLeft: jobs that fork, leave their session and daemonize leave no process behind.
func TestNothingIsLeft(t *testing.T) {
	needRoot(t)
	for name, c := range map[string]struct {
		root string
		jobs int
	}{"cgroup": {os.Getenv(cgroupEnv), 1000}, "session": {"/proc/no-cgroups-here", 60}} {
		t.Run(name, func(t *testing.T) {
			if testing.Short() {
				c.jobs /= 5
			}
			config := configure(t)
			config.CgroupRoot = c.root
			b := start(t, config)
			conn, _ := b.requester(agentUID)
			const text = "sleep 600 & setsid sleep 600 & (setsid sh -c 'sleep 600 & setsid sleep 600 & exit 0' &) ; exit 0"
			free := make(chan struct{}, 12)
			for i := range c.jobs {
				free <- struct{}{}
				go func() {
					defer func() { <-free }()
					s := spec(fmt.Sprint("fork-", i), "/bin/sh", "-c", text)
					s.Stdio = launch.StdioNull
					job, _, err := b.launcher.Start(b.ctx(), conn, s)
					if err == nil {
						job, err = b.launcher.Job(b.ctx(), "lsam", job.ID, 20*time.Second)
					}
					if err != nil || job.State != launch.StateExited || job.Survivors < 1 {
						t.Errorf("%d: %+v, %v", i, job, err)
					}
				}()
			}
			for range cap(free) {
				free <- struct{}{}
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

// ofUser lists the living processes of a user.
func ofUser(uid uint32) (list []process) {
	for _, p := range processes() {
		if is, ok := uidOf(p.pid); ok && is == uid && !p.dead() {
			list = append(list, p)
		}
	}
	return list
}
