package localsock

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
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

// TestOutletKinds: what a secret can be written to, and what not, whatever else may be written to.
func TestOutletKinds(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	open := func(name string, flags int) func() (int, error) {
		return func() (int, error) { return unix.Open(name, flags|unix.O_CLOEXEC, 0o600) }
	}
	pair := func(style, end int) func() (int, error) {
		return func() (int, error) {
			fds, err := unix.Socketpair(unix.AF_UNIX, style|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return -1, err
			}
			t.Cleanup(func() { _ = unix.Close(fds[1-end]) })
			return fds[end], nil
		}
	}
	dial := func(network, address string) func() (int, error) {
		return func() (int, error) {
			l, err := net.Listen(network, address)
			if err != nil {
				return -1, err
			}
			t.Cleanup(func() { _ = l.Close() })
			c, err := net.Dial(network, l.Addr().String())
			if err != nil {
				return -1, err
			}
			defer c.Close()
			fd := -1
			err = control(c.(File), func(of int) (err error) {
				fd, err = unix.FcntlInt(uintptr(of), unix.F_DUPFD_CLOEXEC, 0)
				return err
			})
			return fd, err
		}
	}
	const ours, theirs = "ours", "theirs"
	at := func(name string) string { return filepath.Join(dir, name) }
	for name, c := range map[string]struct {
		open func() (int, error)
		why  string // it is refused; empty: it is not
	}{
		"FIFO to read and write":     {open(fifo, unix.O_RDWR), ""},
		"FIFO to read":               {open(fifo, unix.O_RDONLY|unix.O_NONBLOCK), "reading only"},
		"FIFO without access":        {open(fifo, unix.O_PATH), "neither a pipe nor a socket"},
		"file":                       {open(at("file"), unix.O_RDWR|unix.O_CREAT), "neither a pipe nor a socket"},
		"directory":                  {open(dir, unix.O_RDONLY), "neither a pipe nor a socket"},
		"null device":                {open("/dev/null", unix.O_RDWR), "neither a pipe nor a socket"},
		"stream":                     {pair(unix.SOCK_STREAM, 0), ""},
		"other end of a stream":      {pair(unix.SOCK_STREAM, 1), ""},
		"datagrams":                  {pair(unix.SOCK_DGRAM, 0), "not a Unix stream"},
		"packets":                    {pair(unix.SOCK_SEQPACKET, 0), "not a Unix stream"},
		"TCP":                        {dial("tcp", "127.0.0.1:0"), "not a Unix stream"},
		"connected to somebody else": {dial("unix", at(theirs)), ""},
		"connected to this service":  {dial("unix", at(ours)), "of this service"},
		"connected to nobody": {func() (int, error) {
			return unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		}, "not connected"},
		"that others connect to": {func() (int, error) {
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				err = errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: at("listener")}), unix.Listen(fd, 1))
			}
			return fd, err
		}, "not connected"},
	} {
		t.Run(name, func(t *testing.T) {
			fd, err := c.open()
			if err != nil {
				t.Fatal(err)
			}
			f := os.NewFile(uintptr(fd), name)
			defer f.Close()
			o, err := NewOutlet(f, at(ours))
			switch {
			case c.why == "" && err != nil:
				t.Error(err)
			case c.why == "":
				if err := o.Write(text("secret")); err != nil {
					t.Error(err)
				}
			case !errors.Is(err, ErrKind) || !strings.Contains(err.Error(), c.why):
				t.Errorf("got %v, want one about %q", err, c.why)
			}
		})
	}
}
