package keeper

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"batchwarden/platform/launch"
)

// next waits for the process that is begun when a job is over.
func (b *bed) next() (box string, pid int) {
	b.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); pid == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			b.t.Fatal("no process was begun for the next job")
		}
		box, pid = b.waiting()
	}
	return box, pid
}

// TestAhead: when a job is over the process of the next one waits, in a cgroup of its own. It has nothing of the last job.
func TestAhead(t *testing.T) {
	b := newBed(t)
	b.says("first", "/bin/true")
	box, pid := b.next()
	dir := "/proc/" + strconv.Itoa(pid)
	files, err := os.ReadDir(dir + "/fd")
	for _, f := range files {
		if to := link(t, dir+"/fd/"+f.Name()); len(f.Name()) == 1 && f.Name() < "3" && to != os.DevNull+"\n" || strings.HasPrefix(to, b.config.StateDir) {
			t.Errorf("its descriptor %s is of %s", f.Name(), to)
		}
	}
	if err != nil {
		t.Error(err)
	}
	if env, err := os.ReadFile(dir + "/environ"); err != nil || len(env) != 0 {
		t.Errorf("its environment: %q, %v", env, err)
	}
	if uid, ok := uidOf(pid); !ok || uid != 0 {
		t.Errorf("it runs as %d", uid)
	}
	second := b.run(spec("second", "/bin/sh", "-c", "echo $$; exec cat"))
	b.succeeded(second)
	if second.PID != pid || strconv.FormatUint(second.Serial, 10) != box {
		t.Errorf("process %d waited in %s, the job is %+v", pid, box, second)
	}
	if out := b.output("second", launch.Stdout); out != strconv.Itoa(pid)+"\n" {
		t.Errorf("the job says %q, want %d", out, pid)
	}
	if _, third := b.next(); third == pid {
		t.Error("the next one is the last one")
	}
}

// TestAheadOfMany: jobs that begin at the same time have one process each.
func TestAheadOfMany(t *testing.T) {
	b := newBed(t)
	conn, _ := b.requester(agentUID)
	b.says("first", "/bin/true")
	b.next()
	var ids []string
	for i := range 20 {
		ids = append(ids, strconv.Itoa(i))
	}
	errs := make(chan error)
	for _, id := range ids {
		go func() {
			_, _, err := b.launcher.Start(b.ctx(), conn, spec(id, "/bin/sh", "-c", "echo $$"))
			errs <- err
		}()
	}
	for range ids {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	var pids []int
	var serials []uint64
	for _, id := range ids {
		job := b.wait(id)
		b.succeeded(job)
		if out := b.output(id, launch.Stdout); out != strconv.Itoa(job.PID)+"\n" {
			t.Errorf("job %s says %q: %+v", id, out, job)
		}
		pids, serials = append(pids, job.PID), append(serials, job.Serial)
	}
	slices.Sort(pids)
	slices.Sort(serials)
	if n, m := len(slices.Compact(pids)), len(slices.Compact(serials)); n != len(ids) || m != len(ids) {
		t.Errorf("%d jobs have %d processes and %d numbers", len(ids), n, m)
	}
}

// TestAheadOfNone: a process that no job comes for is gone after a while.
func TestAheadOfNone(t *testing.T) {
	b := newBed(t)
	b.says("first", "/bin/true")
	box, pid := b.next()
	began := time.Now()
	for alive(pid) || len(b.boxes()) != 0 {
		if time.Since(began) > aheadFor+5*time.Second {
			t.Fatalf("process %d still waits, in %s", pid, box)
		}
		time.Sleep(10 * time.Millisecond)
	}
	if waited := time.Since(began); waited < aheadFor-time.Second {
		t.Errorf("it was gone after %v", waited)
	}
	b.says("second", "/bin/true")
}

// TestAheadKilled: a process that somebody killed while it waited costs no job.
func TestAheadKilled(t *testing.T) {
	b := newBed(t)
	b.says("first", "/bin/true")
	box, pid := b.next()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for alive(pid) {
		time.Sleep(time.Millisecond)
	}
	b.says("second", "/bin/true")
	if slices.Contains(b.boxed(), box) {
		t.Errorf("its cgroup %s is left", box)
	}
}

// TestAheadInVain: of a job that cannot be furnished nothing is left, whether or not its process was begun ahead.
func TestAheadInVain(t *testing.T) {
	b := newBed(t)
	captured := filepath.Join(b.config.StateDir, outputDir)
	if err := os.WriteFile(captured, nil, 0o600); err != nil { // where a directory should be
		t.Fatal(err)
	}
	for _, id := range []string{"begun", "ahead"} {
		if job := b.run(spec(id, "/bin/true")); job.State != launch.StateFailed || !strings.HasPrefix(job.Reason, "output: ") {
			t.Errorf("%s: %+v", id, job)
		}
		_, pid := b.next()
		if left := b.boxed(); len(left) != 0 || len(b.boxes()) != 1 {
			t.Errorf("%s: cgroups are left: %v, and that of process %d", id, left, pid)
		}
	}
}

// TestAheadOfALauncher: it ends with the launcher. What one that was killed leaves of it is in nobody's way: its number,
// which nobody wrote down, is not used again as long as its cgroup is there.
func TestAheadOfALauncher(t *testing.T) {
	b := newBed(t)
	b.says("first", "/bin/true")
	box, pid := b.next()
	b.stopDaemon()
	b.stopKeeper()
	if alive(pid) || len(b.boxes()) != 0 {
		t.Errorf("process %d, boxes %v", pid, b.boxes())
	}
	dir := filepath.Join(b.config.CgroupRoot, rootName(b.config.StateDir), box)
	sleep := exec.Command("/bin/sleep", "60")
	err := errors.Join(os.MkdirAll(dir, 0o755), sleep.Start())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _, _ = sleep.Process.Kill(), sleep.Wait() }()
	if err := os.WriteFile(dir+"/cgroup.procs", []byte(strconv.Itoa(sleep.Process.Pid)), 0); err != nil {
		t.Fatal(err)
	}
	b.runKeeper()
	b.runDaemon()
	second := b.run(spec("second", "/bin/true"))
	b.succeeded(second)
	if last, _ := strconv.ParseUint(box, 10, 64); second.Serial <= last {
		t.Errorf("number %d was used, %d had a cgroup", second.Serial, last)
	}
}
