package localsock

import (
	"errors"
	"io"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

type text string

func (s text) Bytes() []byte { return []byte(s) }

// TestOutletRoom: what has no room is not written at all, and is waited for outside of Write.
func TestOutletRoom(t *testing.T) {
	for name, ends := range map[string]func(fd []int) error{
		"pipe":   func(fd []int) error { return unix.Pipe2(fd, unix.O_CLOEXEC) },
		"socket": func(fd []int) error { return socketpair(fd) },
	} {
		t.Run(name, func(t *testing.T) {
			var fd [2]int
			if err := ends(fd[:]); err != nil {
				t.Fatal(err)
			}
			r, w := os.NewFile(uintptr(fd[0]), "r"), os.NewFile(uintptr(fd[1]), "w")
			defer r.Close()
			defer w.Close()
			o, err := NewOutlet(w)
			if err != nil {
				t.Fatal(err)
			}
			filled := 0
			for err == nil {
				if err = o.Write(text("secret")); err == nil {
					filled += len("secret")
				}
			}
			if !errors.Is(err, ErrNoRoom) {
				t.Fatalf("got %v after %d octets, want %v", err, filled, ErrNoRoom)
			}
			if o.Await(time.Millisecond) {
				t.Error("there is room, it says")
			}
			if _, err := io.ReadFull(r, make([]byte, filled)); err != nil {
				t.Fatal(err)
			}
			if !o.Await(time.Minute) {
				t.Error("there is no room, it says")
			}
			if err := o.Write(text("again")); err != nil {
				t.Error(err)
			}
			got := make([]byte, 100)
			if n, err := r.Read(got); err != nil || string(got[:n]) != "again" {
				t.Errorf("got %q, %v", got[:n], err)
			}
		})
	}
}

// TestOutletPart: of a secret that a socket had room for a part of, the rest must not be tried again.
func TestOutletPart(t *testing.T) {
	var fd [2]int
	if err := socketpair(fd[:]); err != nil {
		t.Fatal(err)
	}
	r, w := os.NewFile(uintptr(fd[0]), "r"), os.NewFile(uintptr(fd[1]), "w")
	defer r.Close()
	defer w.Close()
	o, err := NewOutlet(w)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Write(text(make([]byte, 16<<20))); !errors.Is(err, io.ErrShortWrite) {
		t.Errorf("got %v, want %v", err, io.ErrShortWrite)
	}
}

func socketpair(fd []int) error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	copy(fd, pair[:])
	return err
}
