package keeper

import (
	"encoding/binary"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"batchwarden/platform/launch"
)

// stall mounts a file system whose server takes every question for a name and never answers, as one of NFS that is gone.
// It returns where, and what ends it: then all who wait get an error. Nobody else sees the mount, which is in the
// namespace of these tests, and it ends with their process at the latest.
func stall(t *testing.T) (path string, asked <-chan struct{}, end func()) {
	t.Helper()
	path = dir(t, world+"/stalled", 0, 0o755)
	fd, err := unix.Open("/dev/fuse", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
			t.Fatalf("needs /dev/fuse: %v", err)
		}
		t.Skipf("needs /dev/fuse: %v", err)
	}
	if err := unix.Mount("stalled", path, "fuse", 0, fmt.Sprintf("fd=%d,rootmode=40755,user_id=0,group_id=0,allow_other", fd)); err != nil {
		_ = unix.Close(fd)
		t.Fatal(err)
	}
	// Not blocking, so that nobody is in the kernel with it: its last close, which aborts everything, is our Close. And not
	// earlier: what is not mounted cannot be waited for.
	server := os.NewFile(uintptr(fd), "fuse")
	var serving sync.WaitGroup
	end = sync.OnceFunc(func() {
		_ = server.Close() // nothing is buffered
		serving.Wait()
		if err := unix.Unmount(path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(end)
	questions := make(chan struct{}, 100)
	serving.Go(func() { // until it is closed
		const lookup, initial, header = 1, 26, 40
		request := make([]byte, 1<<17)
		for {
			n, err := server.Read(request)
			if err != nil || n < header {
				return
			}
			switch binary.NativeEndian.Uint32(request[4:]) {
			case lookup:
				questions <- struct{}{}
			case initial:
				answer := make([]byte, 16+64)
				binary.NativeEndian.PutUint32(answer, uint32(len(answer)))
				copy(answer[8:16], request[8:16])             // which one it answers
				binary.NativeEndian.PutUint32(answer[16:], 7) // the protocol's version
				binary.NativeEndian.PutUint32(answer[20:], 31)
				binary.NativeEndian.PutUint32(answer[28:], 1<<18) // several names may be asked for at a time
				binary.NativeEndian.PutUint32(answer[36:], 1<<16) // octets of one write
				if _, err := server.Write(answer); err != nil {
					return
				}
			}
		}
	})
	return path, questions, end
}

// TestStalledDirectory: a job whose directory does not answer waits alone. Others start meanwhile, and the garbage
// collector, which has to stop every thread, is not held up.
func TestStalledDirectory(t *testing.T) {
	b := newBed(t)
	path, asked, end := stall(t)
	conn, _ := b.requester(agentUID)
	type answer struct {
		job launch.Job
		err error
	}
	start := func(id string, timeout time.Duration) chan answer {
		s := spec(id, "/bin/true")
		s.Dir, s.Timeout = path+"/"+id, timeout
		got := make(chan answer, 1)
		go func() {
			job, _, err := b.launcher.Start(b.ctx(), conn, s)
			got <- answer{job, err}
		}()
		select {
		case <-asked:
		case a := <-got:
			t.Fatalf("it does not wait: %+v", a)
		}
		return got
	}
	waiting := start("waits", 0)
	timed := start("timed", 300*time.Millisecond)

	var took []time.Duration
	for i := range 30 {
		begun := time.Now()
		job, _, err := b.launcher.Start(b.ctx(), conn, spec(fmt.Sprint("other-", i), "/bin/true"))
		if err != nil {
			t.Fatal(err)
		}
		b.succeeded(b.wait(job.ID))
		took = append(took, time.Since(begun))
		begun = time.Now()
		runtime.GC()
		if gc := time.Since(begun); gc > time.Second {
			t.Errorf("a garbage collection took %v", gc)
		}
	}
	slices.Sort(took)
	t.Logf("30 launches beside the stalled ones: median %v, slowest %v", took[15], took[29])
	if took[15] > time.Second {
		t.Errorf("launches take %v", took[15])
	}
	// One that cannot be killed either is given up, and the answer comes.
	if a := <-timed; a.err != nil || a.job.State != launch.StateFailed || a.job.Code != launch.CodeTimeout {
		t.Errorf("at its timeout: %+v, %v", a.job, a.err)
	}
	select {
	case a := <-waiting:
		t.Errorf("it did not wait: %+v", a)
	default:
	}
	end()
	if a := <-waiting; a.err != nil || a.job.State != launch.StateFailed || a.job.Code != launch.CodeChdir {
		t.Errorf("when the server was gone: %+v, %v", a.job, a.err)
	}
	begun := time.Now()
	for len(ofUser(jobUID)) > 0 && time.Since(begun) < 5*time.Second {
		time.Sleep(5 * time.Millisecond)
	}
	for _, p := range ofUser(jobUID) {
		t.Errorf("%d goes on: %s", p.pid, evidence(p.pid))
	}
}

// TestStalledAtTheEndOfTheLauncher: a job that had not begun when its launcher ended never begins, whenever its
// directory answers, and is not shown as one that runs.
func TestStalledAtTheEndOfTheLauncher(t *testing.T) {
	b := newBed(t)
	path, asked, end := stall(t)
	conn, _ := b.requester(agentUID)
	s := spec("stalled", "/bin/sh", "-c", "echo it began")
	s.Dir = path + "/x"
	go func() { _, _, _ = b.launcher.Start(b.ctx(), conn, s) }() // it ends with the launcher
	<-asked
	b.stopDaemon()
	b.stopKeeper()
	b.runKeeper()
	b.runDaemon()
	end()
	if job := b.wait("stalled"); job.State != launch.StateLost || job.ExitCode != nil {
		t.Errorf("got %+v", job)
	}
	want(t, "its output", b.output("stalled", launch.Stdout), "")
	until(t, "its process has ended", func() bool { return len(ofUser(jobUID)) == 0 })
}

// evidence is what a process does.
func evidence(pid int) (said string) {
	for _, name := range []string{"cmdline", "stat", "wchan", "cgroup"} {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name)) // what is gone says nothing
		said += fmt.Sprintf("%s %q ", name, text)
	}
	return said
}
