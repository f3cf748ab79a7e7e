package keeper

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"batchwarden/platform/launch"
	"batchwarden/platform/localsock"
)

// TestNeighbourAsksMore: a call of a newer daemon is answered, whatever comes with it, and the session goes on.
func TestNeighbourAsksMore(t *testing.T) {
	b := newBed(t)
	b.stopDaemon()
	s := b.session()
	defer s.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	var a launch.Answer
	send(t, s, map[string]any{"n": 1, "call": "levitate", "height": 3}, null, null)
	receive(t, s, &a)
	if a.Number != 1 || a.Refused == nil || a.Refused.Code != launch.CodeUnsupported {
		t.Fatalf("got %+v", a)
	}
	for _, part := range []string{"version test", `"levitate"`, "restart the launcher", "running jobs go on"} {
		if !strings.Contains(a.Refused.Reason, part) {
			t.Errorf("%q is not in %q", part, a.Refused.Reason)
		}
	}
	send(t, s, map[string]any{"n": 2, "call": launch.CallStatus, "added_later": true})
	receive(t, s, &a)
	if a.Number != 2 || a.State == nil {
		t.Errorf("afterwards: %+v", a)
	}
}

// TestNeighbourOfAnotherProtocol: a daemon of another protocol is let go, and the launcher's log says why and what to do.
func TestNeighbourOfAnotherProtocol(t *testing.T) {
	needRoot(t)
	c := configure(t)
	log := &logged{}
	c.Log = slog.New(slog.NewTextHandler(log, nil))
	b := start(t, c)
	b.stopDaemon()
	for until := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		f := localsock.NewFrames(dial(t, b.config.Socket), launch.MaxFrame, launch.MaxFiles, time.Second)
		var hello launch.Hello
		receive(t, f, &hello)
		if hello.Refused == nil {
			send(t, f, launch.Hello{Protocol: launch.Protocol + 1})
			if _, _, err := f.Receive(); err == nil {
				t.Error("the session goes on")
			}
			_ = f.Close()
			break
		}
		_ = f.Close() // the last session is being cleared away
		if time.Now().After(until) {
			t.Fatalf("no session: %v", hello.Refused)
		}
	}
	b.stopKeeper()
	for _, part := range []string{"daemon speaks protocol 2, this launcher protocol 1", "restart the older one", "running jobs go on"} {
		if !strings.Contains(log.text(), part) {
			t.Errorf("%q is not in the log:\n%s", part, log.text())
		}
	}
}

// TestNeighbourLauncherOfAnotherProtocol: the daemon says the same of a launcher.
func TestNeighbourLauncherOfAnotherProtocol(t *testing.T) {
	needRoot(t)
	dir, err := os.MkdirTemp(world, "other")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dir + "/l.sock", Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	d := launch.New(dir+"/l.sock", slog.New(slog.DiscardHandler))
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	wg.Go(func() { _ = d.Run(ctx, func(l *net.UnixListener) { _ = l.Close() }) })
	conn, err := l.AcceptUnix()
	if err != nil {
		t.Fatal(err)
	}
	f := localsock.NewFrames(conn, launch.MaxFrame, launch.MaxFiles, time.Second)
	defer f.Close()
	send(t, f, launch.Hello{Protocol: launch.Protocol + 1, Version: "9.9"})
	if _, _, err := f.Receive(); err == nil {
		t.Error("the session goes on")
	}
	const want = "the launcher (version 9.9) speaks protocol 2, this daemon protocol 1: install both of one version and restart the older one; running jobs go on"
	for until := time.Now().Add(10 * time.Second); !strings.Contains(d.Status().Detail, want); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("status says %q", d.Status().Detail)
		}
	}
}

// logged is what a launcher logs.
type logged struct {
	mu  sync.Mutex
	all bytes.Buffer
}

func (l *logged) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.Write(p)
}

func (l *logged) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.all.String()
}
