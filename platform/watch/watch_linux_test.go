package watch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// watched runs Run for a test.
type watched struct {
	changed chan struct{}
	failed  chan error
}

func begin(t *testing.T, paths ...string) *watched {
	t.Helper()
	w := &watched{changed: make(chan struct{}, 100), failed: make(chan error, 100)}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		Run(ctx, func() []string { return paths }, func() { w.changed <- struct{}{} }, func(err error) { w.failed <- err })
	}()
	t.Cleanup(func() { cancel(); <-ended })
	w.told(t, "that it has begun")
	return w
}

func (w *watched) told(t *testing.T, what string) {
	t.Helper()
	select {
	case <-w.changed:
	case <-time.After(10 * time.Second):
		t.Fatalf("not told: %s", what)
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// TestWaysOfChanging: each of them is told, one after the other.
func TestWaysOfChanging(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	file, more := filepath.Join(dir, "c.yaml"), filepath.Join(dir, "c.d")
	write(t, file, "1")
	w := begin(t, file, more)
	linked := filepath.Join(elsewhere, "now", "c.yaml")
	for _, c := range []struct {
		name string
		do   func() error
	}{
		{"written in place", func() error { return os.WriteFile(file, []byte("2"), 0o644) }},
		{"another in its place", func() error {
			return errors.Join(os.WriteFile(file+".new", []byte("3"), 0o644), os.Rename(file+".new", file))
		}},
		{"vim: the old one becomes the backup", func() error {
			return errors.Join(os.Rename(file, file+"~"), os.WriteFile(file, []byte("4"), 0o644), os.Remove(file+"~"))
		}},
		{"and again, as another inode is there now", func() error { return os.WriteFile(file, []byte("5"), 0o644) }},
		{"its mode", func() error { return os.Chmod(file, 0o600) }},
		{"gone", func() error { return os.Remove(file) }},
		{"back", func() error { return os.WriteFile(file, []byte("6"), 0o644) }},
		{"the directory beside it is made", func() error { return os.Mkdir(more, 0o755) }},
		{"a file in there", func() error { return os.WriteFile(filepath.Join(more, "a.yaml"), nil, 0o644) }},
		{"a link in its place", func() error {
			return errors.Join(os.MkdirAll(filepath.Join(elsewhere, "v1"), 0o755), os.MkdirAll(filepath.Join(elsewhere, "v2"), 0o755),
				os.WriteFile(filepath.Join(elsewhere, "v1", "c.yaml"), nil, 0o644), os.WriteFile(filepath.Join(elsewhere, "v2", "c.yaml"), nil, 0o644),
				os.Symlink("v1", filepath.Join(elsewhere, "now")), os.Symlink(linked, file+".link"), os.Rename(file+".link", file))
		}},
		{"what the link leads to", func() error { return os.WriteFile(filepath.Join(elsewhere, "v1", "c.yaml"), []byte("7"), 0o644) }},
		{"a link on the way is swapped", func() error {
			return errors.Join(os.Symlink("v2", filepath.Join(elsewhere, "tmp")), os.Rename(filepath.Join(elsewhere, "tmp"), filepath.Join(elsewhere, "now")))
		}},
		{"what it leads to now", func() error { return os.WriteFile(filepath.Join(elsewhere, "v2", "c.yaml"), []byte("8"), 0o644) }},
	} {
		must(t, c.do())
		w.told(t, c.name)
		for len(w.failed) > 0 {
			if err := <-w.failed; err != nil {
				t.Errorf("%s: %v", c.name, err)
			}
		}
	}
	// Nothing more happens: what does not concern the file any more is not told.
	must(t, os.WriteFile(filepath.Join(elsewhere, "v1", "c.yaml"), []byte("9"), 0o644))
	select {
	case <-w.changed:
		t.Error("told of a directory that nothing leads to any more")
	case <-time.After(2 * Quiet):
	}
}

// TestManyEdits: 200 of them are told a few times.
func TestManyEdits(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	write(t, file, "")
	w := begin(t, file)
	for i := range 200 {
		write(t, file, fmt.Sprint(i))
	}
	w.told(t, "200 edits")
	if n := len(w.changed); n > 2 {
		t.Errorf("told %d more times", n)
	}
}

func TestPlaces(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	must(t, os.MkdirAll(dir+"/a/b", 0o755), os.Symlink("a", dir+"/l"), os.Symlink("loop", dir+"/loop"), os.WriteFile(dir+"/a/b/f", nil, 0o644))
	for path, want := range map[string]string{
		"/a/b/f": "/a/b", "/l/b/f": " /a/b", "/a/b": "/a /a/b", "/none/b/f": "", "/a/none": "/a", "/l/../a/b/f": "/a/b",
	} {
		var got []string
		for _, d := range places(dir + path) {
			got = append(got, strings.TrimPrefix(d, dir))
		}
		if strings.Join(got, " ") != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
	if got := places(dir + "/loop/x"); !slices.Contains(got, dir) {
		t.Errorf("a loop: %q", got)
	}
}

// TestExhausted: where the system has no watch left, that is said, and changed is called all the same. In a user namespace of
// its own, whose limit is nobody else's.
func TestExhausted(t *testing.T) {
	if os.Getenv("BATCHWARDEN_TEST_EXHAUSTED") == "" {
		exhausted(t)
		return
	}
	must(t, os.WriteFile("/proc/sys/user/max_inotify_instances", []byte("0"), 0))
	failed := make(chan error, 10)
	changed := make(chan struct{}, 10)
	go Run(t.Context(), func() []string { return []string{"/etc/hostname"} }, func() { changed <- struct{}{} }, func(err error) { failed <- err })
	if err := <-failed; err == nil || !strings.Contains(err.Error(), "too many open files") {
		t.Fatalf("got %v", err)
	}
	<-changed
}

func exhausted(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
			t.Fatal("needs root; run: sudo make test")
		}
		t.Skip("needs root; run: sudo make test")
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestExhausted$", "-test.v")
	cmd.Env = append(os.Environ(), "BATCHWARDEN_TEST_EXHAUSTED=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWUSER, Pdeathsig: syscall.SIGKILL,
		UidMappings: []syscall.SysProcIDMap{{Size: 1}}, GidMappings: []syscall.SysProcIDMap{{Size: 1}},
	}
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "--- PASS: TestExhausted") {
		t.Fatalf("%v\n%s", err, out)
	}
}
