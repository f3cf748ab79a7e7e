package broker

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/config"
	"batchwarden/ipc/wire"
	"batchwarden/platform/launch"
	"batchwarden/platform/peer"
	"batchwarden/vault/snapshot"
)

// attesting is a launcher that knows the peer, and how often it was asked. With mute it is away.
type attesting struct {
	Launcher
	asked int
	mute  bool
	then  func() // what happens while it looks
}

func (a *attesting) Attest(_ context.Context, _ *net.UnixConn, want peer.Want) (at peer.Attested, err error) {
	a.asked++
	if a.then != nil {
		a.then()
	}
	at.UID, at.User, at.Exe, at.Started = 70001, "far", "/opt/lsam", 1
	return at, nil
}

func (a *attesting) Resolve(context.Context, launch.Names) (launch.Numbers, error) {
	if a.mute {
		return launch.Numbers{}, &launch.Refused{Code: launch.CodeUnavailable}
	}
	return launch.Numbers{Users: map[string]uint32{"far": 70001}, Groups: map[string]uint32{}}, nil
}

// TestAdopt: what a connection, a client's bounds, names and an operator's problems are under another configuration.
func TestAdopt(t *testing.T) {
	log, err := audit.Open(filepath.Join(t.TempDir(), "audit.jsonl"), audit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	of := func(clients ...config.Client) *config.Config { return &config.Config{Clients: clients} }
	client := func(name, exe string, concurrent int) config.Client {
		return config.Client{Name: name, Match: config.Match{User: "far", Exe: exe}, Concurrent: concurrent}
	}
	l := &attesting{}
	b := New(Parts{Config: of(), Audit: log, Launcher: l, Clock: &stopped{now: time.Now()}, Log: slog.New(slog.DiscardHandler)})
	p := &peer.Connection{Peer: peer.Peer{UID: 70001}}
	ctx := t.Context()
	name := func() string {
		t.Helper()
		c := b.identify(ctx, p)
		if c.view != b.view.Load() {
			t.Error("a request sees something that is not in force")
		}
		return c.name()
	}

	b.Adopt(ctx, of(client("lsam", "/opt/lsam", 1)))
	if got := name(); got != "lsam" || l.asked != 1 {
		t.Errorf("got %q, asked %d times", got, l.asked)
	}
	if leave, err := b.Admit(ctx, p); err != nil {
		t.Fatal(err)
	} else {
		defer leave()
	}
	b.Adopt(ctx, of(client("other", "/opt/other", 0), client("lsam", "/opt/lsam", 1)))
	if got := name(); got != "lsam" || l.asked != 1 {
		t.Errorf("a configuration with one more: got %q, asked %d times", got, l.asked)
	}
	if _, err := b.Admit(ctx, p); err == nil {
		t.Error("what the client has in progress was forgotten")
	}
	b.Adopt(ctx, of(client("lsam", "/opt/lsam", 2)))
	if _, err := b.Admit(ctx, p); err != nil {
		t.Errorf("with other bounds: %v", err)
	}
	b.Adopt(ctx, of(client("other", "/opt/other", 0)))
	if got := name(); got != "" {
		t.Errorf("a client that was removed is %q", got)
	}

	// Without the launcher's resolver a name that was found stays found.
	l.mute = true
	b.Adopt(ctx, of(client("again", "", 0)))
	if got := name(); got != "again" || len(b.unnamed) != 1 {
		t.Errorf("got %q, and %d say that names are missing", got, len(b.unnamed))
	}
	l.mute = false

	// Who is looked at while the configuration changes is held against the one that is in force afterwards.
	b.Adopt(ctx, of(client("lsam", "/opt/lsam", 0)))
	fresh := &peer.Connection{Peer: peer.Peer{UID: 70001}}
	l.then = func() { l.then = nil; b.Adopt(ctx, of(client("other", "/opt/other", 0))) }
	if c := b.identify(ctx, fresh); c.client != nil || c.view != b.view.Load() {
		t.Errorf("got %+v", c.client)
	}

	b.ConfigAmiss([]wire.Finding{{Code: wire.ConfigFaulty}})
	if got := b.configAmiss(); len(got) != 1 {
		t.Errorf("problems: %+v", got)
	}
	b.Activate(snapshot.New("db01", nil))
	if b.Config().Clients[0].Name != "other" {
		t.Error("a sync brought another configuration back")
	}
}
