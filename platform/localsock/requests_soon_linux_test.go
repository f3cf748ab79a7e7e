package localsock

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestRequestsSoon: while a request is handled that is answered soon, what net/http asks for beside it is not there.
func TestRequestsSoon(t *testing.T) {
	from, to := pair(t)
	c := NewRequests(to, 3)
	for _, text := range []string{"first", "second"} {
		told := tell(t, text)
		send(t, from, text, told.r)
		got := next(t, c, text)
		c.Soon()
		if n, err := c.Read(make([]byte, 1)); n != 0 || err != nil {
			t.Errorf("%s: %d octets, %v; want none", text, n, err)
		}
		if len(got) != 1 {
			t.Fatalf("%s: %d descriptors", text, len(got))
		}
		if w := word(t, got[0]); w != text {
			t.Errorf("%s: its descriptor says %q", text, w)
		}
		closeAll(got)
		c.End()
		if n, err := c.Read(make([]byte, 1)); n != 0 || err != nil { // which asks late
			t.Errorf("%s was answered: %d octets, %v; want none", text, n, err)
		}
		told.unheld(t)
	}
	send(t, from, "third")
	if got := next(t, c, "third"); len(got) != 0 {
		t.Errorf("%d descriptors came with a request that brought none", len(got))
	}
}

// TestRequestsAhead: who brings descriptors waits for the answer before the next request, or loses the connection.
func TestRequestsAhead(t *testing.T) {
	for name, handle := range map[string]func(c *Requests) error{
		"of one answered soon": func(c *Requests) error { c.Soon(); return nil },
		"while net/http looks whether the caller has gone": func(c *Requests) error {
			_, err := c.Read(make([]byte, 1))
			return err
		},
	} {
		for _, ahead := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, answered %t", name, !ahead), func(t *testing.T) {
				from, to := pair(t)
				c := NewRequests(to, 3)
				told := tell(t, "first")
				send(t, from, "first", told.r)
				closeAll(next(t, c, "first"))
				if !ahead {
					if _, err := c.Write([]byte("done")); err != nil {
						t.Fatal(err)
					}
				}
				send(t, from, "second")
				err := handle(c)
				c.End()
				if err == nil {
					_, err = c.Read(make([]byte, 10))
				}
				if errors.Is(err, ErrFrame) != ahead {
					t.Errorf("%v", err)
				}
				told.unheld(t)
			})
		}
	}
}

// TestIntoPipe: both ways into a pipe write all of a secret or nothing, and wait for no reader.
func TestIntoPipe(t *testing.T) {
	for name, into := range map[string]func(int, []byte) error{"at once": intoPipe, "through a pipe of our own": throughPipe} {
		t.Run(name, func(t *testing.T) {
			var ends [2]int
			if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil { // writes to it wait
				t.Fatal(err)
			}
			r, w := os.NewFile(uintptr(ends[0]), "r"), os.NewFile(uintptr(ends[1]), "w")
			defer r.Close()
			defer w.Close()
			if err := into(ends[1], []byte("secret")); err != nil {
				t.Fatal(err)
			}
			b := make([]byte, 100)
			if n, err := r.Read(b); err != nil || string(b[:n]) != "secret" {
				t.Fatalf("%q, %v", b[:n], err)
			}
			size, err := unix.FcntlInt(uintptr(ends[1]), unix.F_GETPIPE_SZ, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(make([]byte, size)); err != nil {
				t.Fatal(err)
			}
			if err := into(ends[1], []byte("secret")); !errors.Is(err, syscall.EAGAIN) {
				t.Errorf("a full pipe: %v, want %v", err, syscall.EAGAIN)
			}
		})
	}
}

// TestRequestsTimeout: a Read that comes to nothing returns zero octets; readers around it do not bear fewer.
func TestRequestsTimeout(t *testing.T) {
	_, to := pair(t)
	c := NewRequests(to, 3)
	if err := c.SetReadDeadline(time.Now()); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 10)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d, %v", n, err)
	}
}
