package localsock

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func safeDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestListen(t *testing.T) {
	old := unix.Umask(0) // the mode must not depend on it
	defer unix.Umask(old)
	path := filepath.Join(safeDir(t), "s")
	l, err := Listen(path, 0o640)
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o640|os.ModeSocket {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if _, err := Listen(path, 0o640); !errors.Is(err, ErrInUse) {
		t.Errorf("over one that is answered: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("it is gone with the listener: %v", err)
	}
	if l, err = Listen(path, 0o666); err != nil {
		t.Fatalf("over a stale one: %v", err)
	}
	replaced, err := ListenWith(path, Options{Mode: 0o666, GID: -1, Replace: true})
	if err != nil {
		t.Fatalf("replacing: %v", err)
	}
	if err := errors.Join(l.Close(), replaced.Close(), os.Remove(path), os.WriteFile(path, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := ListenWith(path, Options{Replace: true}); err == nil {
		t.Error("a file was replaced")
	}
	if err := os.Chmod(filepath.Dir(path), 0o777); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path, 0o666); !errors.Is(err, ErrOwner) {
		t.Errorf("in a directory that everybody can write: %v", err)
	}
}

func TestMakeDir(t *testing.T) {
	dir := filepath.Join(safeDir(t), "a/b")
	for range 2 {
		if err := MakeDir(dir, 0o750, os.Getegid()); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(dir)
	if err != nil || info.Mode().Perm() != 0o750 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := errors.Join(os.Chmod(dir, 0o711), MakeDir(dir, 0o750, -1)); err != nil {
		t.Fatal(err)
	}
	if info, err = os.Stat(dir); err != nil || info.Mode().Perm() != 0o711 {
		t.Errorf("one that was there has mode %v now, %v", info.Mode(), err)
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := MakeDir(dir, 0o750, -1); !errors.Is(err, ErrOwner) {
		t.Errorf("one that others can have filled: %v", err)
	}
}

func TestDial(t *testing.T) {
	path := filepath.Join(safeDir(t), "s")
	l, err := Listen(path, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := DialOwn(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	link := filepath.Join(filepath.Dir(path), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	if _, err := DialOwn(t.Context(), link); err == nil {
		t.Error("a link was followed")
	}
	file := filepath.Join(filepath.Dir(path), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := DialOwn(t.Context(), file); err == nil {
		t.Error("a file was dialled")
	}
	if _, err := Dial(t.Context(), filepath.Join(filepath.Dir(path), "none")); !errors.Is(err, os.ErrNotExist) && os.Geteuid() == 0 {
		t.Errorf("no socket: %v", err)
	}
	if err := os.Chmod(filepath.Dir(path), 0o770); err != nil {
		t.Fatal(err)
	}
	if _, err := DialOwn(t.Context(), path); !errors.Is(err, ErrOwner) {
		t.Errorf("in a directory that a group can write: %v", err)
	}
	if err := os.Chmod(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() != 0 {
		if _, err := Dial(t.Context(), path); !errors.Is(err, ErrOwner) {
			t.Errorf("our own socket is not root's: %v", err)
		}
		return
	}
	if err := os.Chown(path, 4242, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), path); !errors.Is(err, ErrOwner) {
		t.Errorf("somebody else's socket: %v", err)
	}
	if err := Check(path); !errors.Is(err, ErrOwner) {
		t.Errorf("somebody else's socket, looked at: %v", err)
	}
	if err := errors.Join(os.Chown(path, 0, -1), Check(path), os.Chown(filepath.Dir(path), 4242, -1)); err != nil {
		t.Fatal(err)
	}
	if err := Check(path); !errors.Is(err, ErrOwner) {
		t.Errorf("in somebody else's directory, looked at: %v", err)
	}
	if _, err := Dial(t.Context(), path); !errors.Is(err, ErrOwner) {
		t.Errorf("in somebody else's directory: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := os.Chown(filepath.Dir(path), 0, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("without time: %v", err)
	}
}

func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	path := filepath.Join(safeDir(t), "s")
	l, err := Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err = DialOwn(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	return a, b
}

func TestFrames(t *testing.T) {
	x, y := pair(t)
	from, to := NewFrames(x, 1<<20, 2, time.Second), NewFrames(y, 1<<20, 2, time.Second)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	long := bytes.Repeat([]byte("x"), 1<<20)
	sent := make(chan error, 1)
	go func() {
		sent <- errors.Join(from.Send([]byte("one")), from.Send(nil), from.Send([]byte("two"), w, r), from.Send(nil, w), from.Send(long, w), w.Close())
	}()
	for i, want := range []struct {
		body  string
		files int
	}{{"one", 0}, {"", 0}, {"two", 2}, {"", 1}, {string(long), 1}} {
		body, files, err := to.Receive()
		if err != nil || string(body) != want.body || len(files) != want.files {
			t.Fatalf("frame %d: %d octets, %d files, %v", i, len(body), len(files), err)
		}
		if len(files) > 0 {
			if _, err := files[0].Write([]byte("y")); err != nil {
				t.Error(err)
			}
		}
		closeAll(files)
	}
	if err := <-sent; err != nil {
		t.Fatal(err)
	}
	// All copies of the writing end are closed: none leaked.
	if text, err := io.ReadAll(r); err != nil || string(text) != "yyy" {
		t.Errorf("through the pipe: %q, %v", text, err)
	}
	if err := from.Send(append(long, 'x')); !errors.Is(err, ErrFrame) {
		t.Errorf("too long: %v", err)
	}
	if err := from.Send(nil, r, r, r); !errors.Is(err, ErrFrame) {
		t.Errorf("too many files: %v", err)
	}
	if err := from.Send([]byte("still")); err != nil {
		t.Errorf("after refused ones: %v", err)
	}
	if body, _, err := to.Receive(); err != nil || string(body) != "still" {
		t.Errorf("%q, %v", body, err)
	}
	if err := from.Close(); err != nil {
		t.Fatal(err)
	}
	if _, _, err := to.Receive(); !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %v", err)
	}
}

// TestSlowReader: who does not read is given up, and nothing is sent after half a frame.
func TestSlowReader(t *testing.T) {
	x, _ := pair(t)
	from := NewFrames(x, 8<<20, 1, 50*time.Millisecond)
	if err := from.Send(make([]byte, 8<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := from.Send(nil); err == nil {
		t.Error("more was sent")
	}
}

type slot []byte

func (s slot) Bytes() []byte { return s }

func TestWriteSecret(t *testing.T) {
	x, y := pair(t)
	if err := errors.Join(WriteSecret(x, []byte("head:"), slot("secret")), x.Close()); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(y); err != nil || string(text) != "head:secret" {
		t.Errorf("%q, %v", text, err)
	}
}

func TestFromFile(t *testing.T) {
	path := filepath.Join(safeDir(t), "s")
	l, err := Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := Dup(l, "listener")
	if err != nil {
		t.Fatal(err)
	}
	other, err := FromFile(f)
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("closing a copy removed the socket: %v", err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := FromFile(null); err == nil {
		t.Error("a device became a listener")
	}
}
