package keeper

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"batchwarden/platform/account"
	"batchwarden/platform/launch"
)

// directory is a resolver like the system's that knows one more user, and does not answer about another in time.
type directory struct {
	account.Resolver
	gate chan struct{}
}

func (d directory) Lookup(name string) (account.Account, error) {
	switch name {
	case "remote":
		return account.Account{Name: name, UID: 70001}, nil
	case "slow":
		return account.Account{}, fmt.Errorf("account %q: %w", name, account.ErrSilent)
	}
	return d.Resolver.Lookup(name)
}

func (d directory) ByUID(uid uint32) (account.Account, error) {
	switch uid {
	case 70001:
		return account.Account{Name: "remote", UID: uid}, nil
	case 70002:
		<-d.gate
		return account.Account{Name: "late", UID: uid}, nil
	}
	return d.Resolver.ByUID(uid)
}

// TestResolve: names are asked of the launcher's resolver; what does not answer and what is not there are told apart.
func TestResolve(t *testing.T) {
	d := directory{account.System(), make(chan struct{})}
	k := &keeper{Config: Config{Accounts: d}}
	got, err := k.resolve(&launch.Names{Users: []string{"root", "remote", "slow", "nobody-at-all"}, Groups: []string{"root", "no-group"}})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Users) != 2 || got.Users["remote"] != 70001 || got.Users["root"] != 0 || len(got.Groups) != 1 || len(got.Lost) != 3 {
		t.Errorf("got %+v", got)
	}
	if got.Lost["user slow"] == "" || got.Lost["user nobody-at-all"] == "" || got.Lost["group no-group"] == "" {
		t.Errorf("lost %+v", got.Lost)
	}
	for _, n := range []*launch.Names{nil, {Users: make([]string, launch.MaxNames), Groups: []string{"x"}}} {
		var refused *launch.Refused
		if _, err := k.resolve(n); !errors.As(err, &refused) || refused.Code != launch.CodeInvalid {
			t.Errorf("got %v", err)
		}
	}

	if name := k.called(70001); name != "remote" {
		t.Errorf("called %q", name)
	}
	for range maxNamed {
		go k.called(70002)
	}
	for k.naming.Load() < maxNamed {
		time.Sleep(time.Millisecond)
	}
	begun := time.Now()
	if name := k.called(70001); name != "" || time.Since(begun) > nameWait {
		t.Errorf("called %q after %v, although too many are being asked about", name, time.Since(begun))
	}
	close(d.gate)
	for k.naming.Load() > 0 {
		time.Sleep(time.Millisecond)
	}
	if name := k.called(70001); name != "remote" {
		t.Errorf("called %q", name)
	}
}
