package keeper

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"batchwarden/platform/launch"
	"batchwarden/platform/peer"
)

// TestSystemdSocket: the launcher binds a second socket for root alone and hands it over; connections to it are
// attested as such, and are nobody's requests for launches.
func TestSystemdSocket(t *testing.T) {
	needRoot(t)
	c := configure(t)
	c.SystemdSocket = filepath.Join(filepath.Dir(c.PublicSocket), "systemd.sock")
	b := start(t, c)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	l, err := b.launcher.SystemdSocket(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	info, err := os.Stat(c.SystemdSocket)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v; want 0600", info.Mode(), err)
	}
	const name = "batchwarden-test-1/unit/pay.service/payroll"
	out, err := net.DialUnix("unix", &net.UnixAddr{Name: "@" + name, Net: "unix"}, &net.UnixAddr{Name: c.SystemdSocket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	at, err := b.launcher.Attest(ctx, in, peer.Want{Program: true, Named: true})
	if err != nil || at.Name != "\x00"+name || at.PID != os.Getpid() || at.UID != 0 {
		t.Errorf("got %+v, %v; want this process and the name that it bound", at, err)
	}
	refused := func(what string, err error) {
		t.Helper()
		if r, ok := errors.AsType[*launch.Refused](err); !ok || r.Code != launch.CodeCaller {
			t.Errorf("%s: got %v, want %s", what, err, launch.CodeCaller)
		}
	}
	_, err = b.launcher.Attest(ctx, in, peer.Want{})
	refused("as a connection to the public socket", err)
	_, err = b.launcher.Attest(ctx, out, peer.Want{Named: true})
	refused("the end that connected", err)
	_, _, err = b.launcher.Start(ctx, in, spec("x", "/bin/true"))
	refused("for a launch", err)

	// The launcher's own copy keeps the socket open for the next session.
	if err := errors.Join(l.Close(), in.Close()); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(out); err != nil {
		t.Error(err)
	}
	again, err := b.launcher.SystemdSocket(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	next, err := net.Dial("unix", c.SystemdSocket)
	if err != nil {
		t.Fatal(err)
	}
	defer next.Close()
	if in, err := again.AcceptUnix(); err != nil {
		t.Error(err)
	} else {
		defer in.Close()
		_, err = b.launcher.Attest(ctx, in, peer.Want{Named: true})
		refused("without a name", err)
	}
}

func TestNoSystemdSocket(t *testing.T) {
	b := newBed(t)
	l, err := b.launcher.SystemdSocket(t.Context())
	if r, ok := errors.AsType[*launch.Refused](err); !ok || r.Code != launch.CodeInvalid {
		t.Errorf("got %v, %v; want that there is none", l, err)
	}
	conn, _ := b.requester(agentUID)
	if _, err := b.launcher.Attest(t.Context(), conn, peer.Want{Named: true}); err == nil {
		t.Error("a connection to the public socket was attested as one to systemd's")
	}
}
