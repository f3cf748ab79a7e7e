package peer

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// TestNamed: a connection whose other end is bound to an abstract name is attested where such a one is wanted, with
// its name as it is, and nowhere else; no other is.
func TestNamed(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	a, err := NewAttestor()
	if err != nil {
		t.Fatal(err)
	}
	const unit = "batchwarden-test-0/unit/pay.service/payroll"
	for _, c := range []struct {
		name  string
		local *net.UnixAddr
		want  string // the name
	}{
		{"an abstract name", &net.UnixAddr{Name: "@" + unit, Net: "unix"}, "\x00" + unit},
		{"an abstract name with NULs", &net.UnixAddr{Name: "@" + unit + "\x00\x00", Net: "unix"}, "\x00" + unit + "\x00\x00"},
		{"a path that begins with an @", &net.UnixAddr{Name: filepath.Join(dir, "@"), Net: "unix"}, ""},
		{"no name", nil, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, err := net.DialUnix("unix", c.local, l.Addr().(*net.UnixAddr))
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			in, err := l.AcceptUnix()
			if err != nil {
				t.Fatal(err)
			}
			defer in.Close()
			at, err := a.Attest(context.Background(), in, path, Want{Named: true})
			if c.want == "" {
				if !errors.Is(err, ErrNotAccepted) || !strings.Contains(err.Error(), "not an abstract name") {
					t.Errorf("got %v, want that it has no abstract name", err)
				}
			} else if err != nil || at.Name != c.want {
				t.Errorf("got %q, %v; want %q", at.Name, err, c.want)
			}
			at, err = a.Attest(context.Background(), in, path, Want{})
			if bound := c.local != nil; bound != errors.Is(err, ErrNotAccepted) || at.Name != "" {
				t.Errorf("where no name is wanted: got %q, %v", at.Name, err)
			}
			// The end that connected has the listener's path as its other end's name, and is not bound to path.
			if _, err := a.Attest(context.Background(), out, path, Want{Named: true}); !errors.Is(err, ErrNotAccepted) {
				t.Errorf("the other end: got %v, want that it was not accepted", err)
			}
		})
	}
}
