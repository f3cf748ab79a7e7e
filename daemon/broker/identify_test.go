package broker

import (
	"strings"
	"testing"

	"batchwarden/daemon/config"
	"batchwarden/ipc/wire"
	"batchwarden/platform/account"
	"batchwarden/platform/peer"
)

// TestMatch: the first entry of which everything holds.
func TestMatch(t *testing.T) {
	const sum = "0123"
	entry := func(name string, m config.Match) config.Client { return config.Client{Name: name, Match: m} }
	conf := &config.Config{Clients: []config.Client{
		entry("credential", config.Match{CredentialUnit: "lsam.service"}),
		entry("nobody", config.Match{User: "no-such-user-here"}),
		entry("lost-too", config.Match{User: "root", Group: "no-such-group-here"}),
		entry("unit", config.Match{User: "root", Unit: "lsam.service"}),
		entry("sum", config.Match{User: "root", Exe: "/opt/lsam", SHA256: sum}),
		entry("exe", config.Match{User: "root", Exe: "/opt/lsam"}),
		entry("group", config.Match{Group: "root", Exe: "/opt/other"}),
		entry("root", config.Match{User: "root"}),
	}}
	cs := newCallers(conf, namesIn(conf).In(account.System()), nil)
	if len(cs.problems) != 2 {
		t.Errorf("problems: %+v, want one for each name that is not there", cs.problems)
	}
	at := func(uid uint32, groups []uint32, exe, sum, unit string) caller {
		p := peer.Attested{Exe: exe, SHA256: sum, Unit: unit, NoExe: "no exe", NoSHA256: "no sum"}
		p.UID, p.Groups = uid, groups
		return caller{peer: p, attested: true}
	}
	zero := []uint32{0}
	for _, c := range []struct {
		name, want, why string
		caller          caller
	}{
		{"in the unit", "unit", "", at(0, zero, "/opt/lsam", "", "lsam.service")},
		{"by the sum", "sum", "unit: \"other.service\" is not", at(0, zero, "/opt/lsam", sum, "other.service")},
		{"another sum", "exe", "sha256: 9 is not", at(0, zero, "/opt/lsam", "9", "")},
		{"a sum that is not known", "exe", "sha256: it is not known: no sum", at(0, zero, "/opt/lsam", "", "")},
		{"by group and program", "group", "user: uid 7 is not root", at(7, zero, "/opt/other", "", "")},
		{"another program", "root", "exe: \"/opt/none\" is not \"/opt/lsam\"", at(0, zero, "/opt/none", "", "")},
		{"no program", "root", "exe: it is not known: no exe", at(0, zero, "", "", "")},
		{"another user", "", "group: groups [7]", at(7, []uint32{7}, "/opt/lsam", sum, "lsam.service")},
	} {
		got := cs.match(c.caller)
		name, why := "", ""
		if got.client != nil {
			name = got.client.Name
		}
		for _, e := range got.looked {
			why += e.Reason + "; "
		}
		if name != c.want || !strings.Contains(why, c.why) {
			t.Errorf("%s: got %q, %s, want %q and …%s…", c.name, name, why, c.want, c.why)
		}
	}
	if got := cs.match(caller{peer: peer.Attested{Peer: peer.Peer{Groups: zero}}}); got.client == nil || got.client.Name != "root" {
		t.Errorf("not attested: got %+v", got.looked)
	}
	for _, c := range []struct {
		uid  uint32
		gids []uint32
		want peer.Want
	}{{0, zero, peer.Want{Program: true, SHA256: true}}, {7, zero, peer.Want{Program: true}}, {7, nil, peer.Want{}}} {
		p := &peer.Peer{UID: c.uid, Groups: c.gids}
		if got := cs.want(p); got != c.want {
			t.Errorf("uid %d, groups %v: wants %+v, want %+v", c.uid, c.gids, got, c.want)
		}
		if got := cs.stranger(p); got != (c.gids == nil) {
			t.Errorf("uid %d, groups %v: stranger %v", c.uid, c.gids, got)
		}
	}
}

// TestACallerWhoIsRefused: one refusal does not write into the next.
func TestACallerWhoIsRefused(t *testing.T) {
	c := caller{operator: true, client: &config.Client{May: []string{config.MayLaunch}}, refused: wire.NewProblem(wire.CallerUnknown, "foreign")}
	first := c.mayDo(config.MayLaunch)
	if first == nil || first.Code != wire.CallerUnknown || first.Detail != "foreign" {
		t.Fatalf("got %v", first)
	}
	first.DecisionID = "1"
	if again := c.isOperator(); again == nil || again.DecisionID != "" {
		t.Errorf("got %+v", again)
	}
}
