package broker

import (
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/config"
	"batchwarden/daemon/policy"
	"batchwarden/ipc/wire"
	"batchwarden/vault/snapshot"
)

// stopped is a clock that the test sets.
type stopped struct {
	now    time.Time
	behind time.Duration
}

func (s *stopped) Now() time.Time        { return s.now }
func (s *stopped) Behind() time.Duration { return s.behind }

// yes is a policy that nothing is asked of here.
type yes struct{ policy.Engine }

func aged(t *testing.T) (*Broker, *stopped) {
	t.Helper()
	log, err := audit.Open(filepath.Join(t.TempDir(), "audit.jsonl"), audit.Options{})
	if err != nil {
		t.Fatal(err)
	}
	clock := &stopped{now: time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)}
	c := &config.Config{Machine: "db01", Realms: map[string]config.Realm{"opcon": {Model: "opcon"}}}
	c.Sync.MaxStale, c.Sync.PolicyMaxStale = 72*time.Hour, 24*time.Hour
	return New(Parts{Config: c, Audit: log, Clock: clock, Log: slog.New(slog.DiscardHandler)}), clock
}

// TestHowLongACredentialIsGood: by the clock that is given, not by another one.
func TestHowLongACredentialIsGood(t *testing.T) {
	for _, c := range []struct {
		name     string
		maxStale time.Duration
		expires  time.Duration // after its confirmation; 0: never
		age      time.Duration
		want     string
	}{
		{"fresh", 0, 0, 0, ""},
		{"at the machine's bound", 0, 0, 72 * time.Hour, ""},
		{"past the machine's bound", 0, 0, 72*time.Hour + 1, wire.CredentialStale},
		{"at its own bound", time.Hour, 0, time.Hour, ""},
		{"past its own bound", time.Hour, 0, time.Hour + 1, wire.CredentialStale},
		{"its own bound does not lengthen the machine's", 1000 * time.Hour, 0, 73 * time.Hour, wire.CredentialStale},
		{"before it expires", 0, time.Hour, time.Hour, ""},
		{"after it expired", 0, time.Hour, time.Hour + 1, wire.CredentialExpired},
		{"expired and stale", time.Minute, time.Hour, 2 * time.Hour, wire.CredentialExpired},
		{"confirmed by a clock that was ahead", time.Hour, 0, -10 * time.Hour, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			b, clock := aged(t)
			u := &snapshot.User{Held: &snapshot.Held{}, Name: "payroll"}
			u.BatchUser = &snapshot.BatchUser{MaxStale: c.maxStale}
			u.Confirmed = clock.now
			if c.expires > 0 {
				u.BatchUser.Expires = clock.now.Add(c.expires)
			}
			clock.now = clock.now.Add(c.age)
			code := ""
			if p := b.usable(b.view.Load(), u); p != nil {
				code = p.Code
			}
			if code != c.want {
				t.Errorf("got %q, want %q", code, c.want)
			}
		})
	}
	b, _ := aged(t)
	if p := b.usable(b.view.Load(), &snapshot.User{Held: &snapshot.Held{Entry: snapshot.Entry{BatchUser: &snapshot.BatchUser{}}}}); p == nil || p.Code != wire.CredentialStale {
		t.Errorf("one that Vault never confirmed: %v", p)
	}
}

func TestHowLongAPolicyIsGood(t *testing.T) {
	b, clock := aged(t)
	v := &view{config: b.Config(), policies: map[string]*inForce{"opcon": {engine: yes{}, held: &snapshot.Held{Confirmed: clock.now}}}}
	for _, c := range []struct {
		pass time.Duration
		want string
	}{{0, ""}, {24 * time.Hour, ""}, {1, wire.PolicyStale}} {
		clock.now = clock.now.Add(c.pass)
		code := ""
		if _, p := b.policyFor(v, "opcon"); p != nil {
			code = p.Code
		}
		if code != c.want {
			t.Errorf("%v old: got %q, want %q", clock.now.Sub(v.policies["opcon"].held.Confirmed), code, c.want)
		}
	}
}

func TestWhatIsWrongAtHome(t *testing.T) {
	b, clock := aged(t)
	codes := func(v wire.LocalVault) (list string) {
		for _, f := range b.atHome(&v) {
			if f.Detail == "" {
				t.Errorf("%s says nothing", f.Code)
			}
			list += f.Code + " "
		}
		return list
	}
	if got := codes(wire.LocalVault{}); got != "" {
		t.Errorf("all is well, and there is %s", got)
	}
	clock.behind = time.Hour
	all := wire.LocalVault{Error: "x", Foreign: "x", WentBack: "x", Unwritable: "x"}
	if got := codes(all); got != "local_vault.damaged local_vault.foreign local_vault.went_back local_vault.unwritable clock.behind " {
		t.Errorf("got %s", got)
	}
}

// A password that callers found to be no good is kept from retrieving, and from
// nothing else.
func TestARejectedPasswordStillLaunches(t *testing.T) {
	b, clock := aged(t)
	v := b.view.Load()
	v.config.Platforms = []string{"unix"}
	u := &snapshot.User{Held: &snapshot.Held{}, Name: "payroll"}
	u.BatchUser = &snapshot.BatchUser{Platform: "unix", Kind: "password", Launch: true, Retrieve: true}
	u.Box, u.Confirmed = []byte{1}, clock.now
	if p := permits(v, u, toRetrieve); p != nil {
		t.Errorf("before: %v", p)
	}
	u.Rejected = clock.now
	if p := permits(v, u, toRetrieve); p == nil || p.Code != wire.CredentialRejected || p.Status != 422 {
		t.Errorf("retrieve: %v", p)
	}
	if p := permits(v, u, toLaunch); p != nil {
		t.Errorf("launch: %v", p)
	}
	if got := b.describe(v, u).State; got != stateRejected {
		t.Errorf("state %q", got)
	}
	u.BatchUser.Expires = clock.now.Add(-time.Second)
	if got := b.describe(v, u).State; got != "expired" {
		t.Errorf("state %q, want the one that no newer password mends", got)
	}
}

func TestWhenAPasswordRotates(t *testing.T) {
	b, clock := aged(t)
	u := &snapshot.User{Held: &snapshot.Held{}}
	u.BatchUser = &snapshot.BatchUser{}
	u.Version, u.Turn = 3, 8
	if s := b.about(u); s.RotatesIn != nil || s.Version != 8 {
		t.Errorf("%+v", s)
	}
	for in, want := range map[time.Duration]int64{90*time.Second + 500*time.Millisecond: 90, 0: 0, -time.Hour: 0} {
		u.Rotates = clock.now.Add(in)
		if s := b.about(u); s.RotatesIn == nil || *s.RotatesIn != want {
			t.Errorf("in %v: %+v", in, s)
		}
	}
}
