package peer

import (
	"context"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// aged waits until the sum of the file may be remembered, and says which state of it that is.
func aged(t *testing.T, name string) (held process, id identity) {
	t.Helper()
	held = open(t, name)
	id, err := identityOf(held.dir, "exe", 0)
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Until(time.Unix(0, id.changed).Add(settled + 10*time.Millisecond))) // what the code compares with is the clock
	return held, id
}

// open is a process as far as it executes that file.
func open(t *testing.T, name string) process {
	t.Helper()
	dir := t.TempDir()
	if err := os.Symlink(name, filepath.Join(dir, "exe")); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	held := process{dir: fd, pidfd: -1}
	t.Cleanup(held.close)
	return held
}

func newSums() *sums { return &sums{reads: turns{most: maxReads}} }

// TestSums: a file is read once, however many ask, and again when it changed.
func TestSums(t *testing.T) {
	file := program(t, 0o755, os.Getuid())
	held, id := aged(t, file)
	want := sumOf(t, file)
	s := newSums()
	ask := func(id identity, want string) {
		t.Helper()
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				if got, err := s.of(t.Context(), held, id, 7); err != nil || got != want {
					t.Errorf("got %s, %v, want %s", got, err, want)
				}
			})
		}
		wg.Wait()
	}
	ask(id, want)
	ask(id, want)
	if s.done != 1 || len(s.known) != 1 || len(s.running) != 0 || len(s.reads.users) != 0 {
		t.Errorf("%d reads, %d known, %d running, %d users", s.done, len(s.known), len(s.running), len(s.reads.users))
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt([]byte("different"), 100)
	if err := errors.Join(err, f.Close(), os.Chtimes(file, time.Unix(1, 0), time.Unix(1, 0))); err != nil {
		t.Fatal(err)
	}
	now, err := identityOf(held.dir, "exe", 0)
	if err != nil || now == id {
		t.Fatalf("the change does not show: %+v, %v", now, err)
	}
	ask(now, sumOf(t, file))
	if len(s.known) != 1 {
		t.Error("the sum of a file that has just changed is remembered")
	}
	// A state of the file that is not there any more has no sum.
	old := id
	old.inode++
	if got, err := s.of(t.Context(), held, old, 7); err == nil || !strings.Contains(err.Error(), "changed") {
		t.Errorf("another file: got %s, %v", got, err)
	}
}

// TestManySums: what is remembered is bounded.
func TestManySums(t *testing.T) {
	dir := t.TempDir()
	s := newSums()
	s.known, s.running = map[identity]string{}, map[identity]*summing{}
	for n := range maxSums {
		s.known[identity{inode: uint64(n)}] = "x"
	}
	file := filepath.Join(dir, "f")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	held, id := aged(t, file)
	if _, err := s.of(t.Context(), held, id, 7); err != nil {
		t.Fatal(err)
	}
	if len(s.known) != maxSums || s.known[id] == "" {
		t.Errorf("%d are remembered, the last one %q", len(s.known), s.known[id])
	}
}

// TestHugeProgram: a program that is too large has no sum, and while the largest that has one is summed up others are
// attested.
func TestHugeProgram(t *testing.T) {
	a, err := NewAttestor()
	if err != nil {
		t.Fatal(err)
	}
	huge, large := program(t, 0o755, os.Getuid()), program(t, 0o755, os.Getuid())
	if err := errors.Join(os.Truncate(huge, MaxExe+1), os.Truncate(large, MaxExe)); err != nil {
		t.Fatal(err)
	}
	c := call(t, exec.Command(huge))
	at, err := a.Attest(context.Background(), c.conn, c.path, everything)
	if err != nil || at.Exe != huge || at.SHA256 != "" || !strings.Contains(at.NoSHA256, "at most") || a.sums.done != 0 {
		t.Errorf("huge: got %+v, %v", at, err)
	}

	release, err := a.sums.reads.take(t.Context(), uint32(os.Getuid())) // the large file is not read before this ends
	if err != nil {
		t.Fatal(err)
	}
	slow, small := call(t, exec.Command(large)), call(t, exec.Command("/proc/self/exe"))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ended := make(chan error, 1)
	go func() {
		_, err := a.Attest(ctx, slow.conn, slow.path, everything)
		ended <- err
	}()
	reading := func() (all []*summing) {
		a.sums.mu.Lock()
		defer a.sums.mu.Unlock()
		return slices.Collect(maps.Values(a.sums.running))
	}
	for len(reading()) == 0 {
		time.Sleep(100 * time.Microsecond)
	}
	if at, err := a.Attest(t.Context(), small.conn, small.path, Want{Program: true}); err != nil || at.Exe == "" {
		t.Errorf("beside: %+v, %v", at, err)
	}
	// Another user's file waits for nobody either.
	other := open(t, "/proc/self/exe")
	id, err := identityOf(other.dir, "exe", 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.sums.of(t.Context(), other, id, otherUID); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	// Nobody waits for the sum any more, and it is made.
	left := reading()
	release()
	if len(left) != 1 {
		t.Fatalf("%d files are being read, want the large one", len(left))
	}
	if <-left[0].over; left[0].err != nil || left[0].sum != sumOf(t, large) {
		t.Errorf("large: got %s, %v", left[0].sum, left[0].err)
	}
}

// TestTurns: as many as may, the next when one leaves, and no more than can wait; nobody waits for another user.
func TestTurns(t *testing.T) {
	u := &turns{most: 2}
	var releases []func()
	for range 2 {
		release, err := u.take(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		releases = append(releases, release)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := u.take(ctx, 1); !errors.Is(err, errSlow) {
		t.Errorf("a third: %v", err)
	}
	other, err := u.take(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	other()
	var wg sync.WaitGroup
	for range maxQueue - 2 {
		wg.Go(func() {
			release, err := u.take(t.Context(), 1)
			if err != nil {
				t.Error(err)
				return
			}
			release()
		})
	}
	count := func() int {
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.users[1].count
	}
	for count() < maxQueue {
		time.Sleep(100 * time.Microsecond)
	}
	if _, err := u.take(t.Context(), 1); !errors.Is(err, errBusy) {
		t.Errorf("one too many: %v", err)
	}
	for _, release := range releases {
		release()
	}
	wg.Wait()
	if len(u.users) != 0 {
		t.Errorf("%d users are remembered", len(u.users))
	}
}

func BenchmarkAttest(b *testing.B) {
	for name, w := range map[string]Want{"ids": {}, "program": {Program: true}, "sum": everything} {
		b.Run(name, func(b *testing.B) {
			a, err := NewAttestor()
			if err != nil {
				b.Fatal(err)
			}
			c := call(b, exec.Command("/proc/self/exe"))
			if _, err := a.Attest(b.Context(), c.conn, c.path, w); err != nil {
				b.Fatal(err)
			}
			for b.Loop() {
				if _, err := a.Attest(b.Context(), c.conn, c.path, w); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
