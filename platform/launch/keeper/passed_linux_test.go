package keeper

import (
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"batchwarden/platform/launch"
)

// passing is a job of payroll's whose stdio comes with the request.
func passing(id string, argv ...string) launch.Spec {
	s := spec(id, argv...)
	s.Stdio = launch.StdioPassed
	return s
}

func null(t *testing.T) *os.File {
	t.Helper()
	f, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// TestPassed: the descriptors are the job's stdin, stdout and stderr, with their flags as they were, and nobody else's
// once it has started.
func TestPassed(t *testing.T) {
	b := newBed(t)
	conn, _ := b.requester(agentUID)
	in, give := pipe(t)
	out, stdout := pipe(t)
	errs, stderr := pipe(t)
	for _, f := range []*os.File{in, stdout, stderr} {
		f.Fd() // which makes it block, as programs expect of their stdio
	}
	before := descriptorCount(t)
	job, again, err := b.launcher.Start(b.ctx(), conn, passing("passed", "/bin/sh", "-c", "tr a-z A-Z; echo error >&2; id -u; ls /proc/self/fd | wc -l"), in, stdout, stderr)
	if err != nil || again || job.Captured {
		t.Fatalf("%+v, %v, %v", job, again, err)
	}
	for _, f := range []*os.File{in, stdout, stderr} {
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := give.WriteString("hello\n"); err != nil {
		t.Fatal(err)
	}
	if err := give.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(out)
	// 0, 1, 2 and the directory itself.
	if want := "HELLO\n" + strconv.Itoa(jobUID) + "\n4\n"; err != nil || string(got) != want {
		t.Errorf("stdout: %q, %v, want %q", got, err, want)
	}
	if got, err := io.ReadAll(errs); err != nil || string(got) != "error\n" {
		t.Errorf("stderr: %q, %v", got, err)
	}
	if job := b.wait("passed"); job.ExitCode == nil || *job.ExitCode != 0 {
		t.Errorf("%+v", job)
	}
	const ahead = 2 // of the process that was begun for the next job
	for deadline := time.Now().Add(5 * time.Second); descriptorCount(t) > before-4+ahead; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d descriptors are open, %d were before", descriptorCount(t), before)
		}
	}
	if _, err := b.launcher.Output(b.ctx(), "lsam", "passed", launch.Stdout); err == nil {
		t.Error("output that was not captured could be opened")
	}
}

// TestPassedAgain: a repeat finds the job, and its descriptors are let go of.
func TestPassedAgain(t *testing.T) {
	b := newBed(t)
	conn, _ := b.requester(agentUID)
	n := null(t)
	s := passing("repeat", "/bin/sleep", "300")
	if _, _, err := b.launcher.Start(b.ctx(), conn, s, n, n, n); err != nil {
		t.Fatal(err)
	}
	r, w := pipe(t)
	job, again, err := b.launcher.Start(b.ctx(), conn, s, n, w, w)
	if err != nil || !again || job.State != launch.StateRunning {
		t.Fatalf("%+v, %v, %v", job, again, err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	endsSoon(t, r)
	if _, err := b.launcher.Signal(b.ctx(), "lsam", "repeat", "KILL", 0); err != nil {
		t.Fatal(err)
	}
	b.wait("repeat")
}

// endsSoon fails unless nobody has the writing end open.
func endsSoon(t *testing.T, r *os.File) {
	t.Helper()
	if err := r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("%d, %v, want the end", n, err)
	}
}

// TestPassedBadly: what a daemon that is not ours could send is a failed job at worst, and nothing is left open.
func TestPassedBadly(t *testing.T) {
	b := newBed(t)
	conn, _ := b.requester(agentUID)
	n := null(t)
	dir, err := os.Open("/")
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	fd, err := unix.Open("/dev/null", unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	path := os.NewFile(uintptr(fd), "path")
	defer path.Close()
	for name, files := range map[string][]*os.File{
		"a directory":    {n, n, dir},
		"without access": {path, n, n},
		"two":            {n, n},
		"four":           {n, n, n, n},
		"none":           nil,
	} {
		id := "bad-" + strconv.Itoa(len(name))
		if files == nil {
			// The frame has too few descriptors, which ends the session.
			_, _, err := b.launcher.Start(b.ctx(), conn, passing(id, "/bin/true"))
			refusal(t, err, launch.CodeUnavailable)
			b.stopDaemon()
			b.runDaemon()
			continue
		}
		if _, _, err := b.launcher.Start(b.ctx(), conn, passing(id, "/bin/true"), files...); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if job := b.wait(id); job.State != launch.StateFailed || job.Code != launch.CodeFailed || !strings.HasPrefix(job.Reason, "stdio: ") {
			t.Errorf("%s: %+v", name, job)
		}
	}
	// Not a socket at all, and one that never says anything.
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	silent, other := os.NewFile(uintptr(pair[0]), "silent"), os.NewFile(uintptr(pair[1]), "other")
	defer silent.Close()
	defer other.Close()
	b.stopDaemon()
	f := b.session()
	for i, parcel := range []*os.File{n, silent} {
		s := passing("odd-"+strconv.Itoa(i), "/bin/true")
		send(t, f, launch.Request{Number: uint64(i + 1), Call: launch.CallStart, Spec: &s}, conn, parcel)
		var a launch.Answer
		if receive(t, f, &a); a.Job == nil || a.Job.State != launch.StateFailed || !strings.HasPrefix(a.Job.Reason, "stdio: ") {
			t.Errorf("%+v", a)
		}
	}
}
