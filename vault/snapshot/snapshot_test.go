package snapshot

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
)

// batchUser is an entry whose username tells where it comes from. names is "place=name ...".
func batchUser(scope, name, names string) *Held {
	u := &BatchUser{Username: scope, Platform: "unix", Kind: "password"}
	called := map[string]string{}
	for _, f := range strings.Fields(names) {
		where, alias, _ := strings.Cut(f, "=")
		called[where] = alias
	}
	u.Names = NamesOf(called)
	return &Held{Entry: Entry{ID: ID{scope, BatchUserKind, name}, BatchUser: u}, Box: []byte{1}}
}

func policyOf(scope, realm string) *Held {
	return &Held{Entry: Entry{ID: ID{scope, PolicyKind, realm}, Policy: &Policy{Model: "opcon", Document: []byte(scope)}}}
}

func TestBatchUser(t *testing.T) {
	const m, g, g2, p = "machines/db01", "groups/a", "groups/b", "platforms/unix"
	cases := []struct {
		name    string
		entries []*Held
		asks    map[string]string // "realm:model:name" to "scope realm's name", "unknown" or "ambiguous"
	}{
		{"own name and the realm's name mean the same", []*Held{batchUser(m, "pay", "opcon=users/pay")}, map[string]string{
			"opcon:opcon:pay": m + " users/pay", "opcon:opcon:users/pay": m + " users/pay",
			"automic:automic:pay": m + " pay", "automic:automic:users/pay": "unknown",
			"opcon:opcon:other": "unknown", "opcon:opcon:": "unknown", "opcon:opcon:PAY": "unknown",
		}},
		{"the realm's name wins over the model's", []*Held{batchUser(m, "pay", "prod=PROD.PAY opcon=users/pay")}, map[string]string{
			"prod:opcon:pay": m + " PROD.PAY", "prod:opcon:PROD.PAY": m + " PROD.PAY", "prod:opcon:users/pay": "unknown",
			"test:opcon:users/pay": m + " users/pay", "test:opcon:PROD.PAY": "unknown", "test:automic:pay": m + " pay",
		}},
		{"the machine wins over groups and platforms", []*Held{
			batchUser(p, "pay", ""), batchUser(g, "pay", ""), batchUser(m, "pay", ""),
		}, map[string]string{"r::pay": m + " pay"}},
		{"a group wins over platforms", []*Held{batchUser(g, "pay", ""), batchUser(p, "pay", "")}, map[string]string{"r::pay": g + " pay"}},
		{"a platform alone", []*Held{batchUser(p, "pay", "")}, map[string]string{"r::pay": p + " pay"}},
		{"a farther one's names do not count", []*Held{batchUser(m, "pay", "r=A"), batchUser(p, "pay", "r=B")}, map[string]string{
			"r::A": m + " A", "r::B": "unknown",
		}},
		{"the same name in two groups", []*Held{batchUser(g, "pay", "r=A"), batchUser(g2, "pay", "r=B"), batchUser(g, "fin", "")}, map[string]string{
			"r::pay": "ambiguous", "r::A": "ambiguous", "r::B": "ambiguous", "r::fin": g + " fin",
		}},
		{"the same name in two groups and on the machine", []*Held{batchUser(g, "pay", ""), batchUser(g2, "pay", ""), batchUser(m, "pay", "")},
			map[string]string{"r::pay": m + " pay"}},
		{"one realm's name of two", []*Held{batchUser(m, "pay", "r=X"), batchUser(m, "fin", "r=X"), batchUser(m, "ok", "r=Y")}, map[string]string{
			"r::X": "ambiguous", "r::pay": "ambiguous", "r::fin": "ambiguous", "r::ok": m + " Y", "s::pay": m + " pay", "s::fin": m + " fin",
		}},
		{"the own name of one is the realm's name of another", []*Held{batchUser(m, "pay", "r=P"), batchUser(m, "fin", "r=pay")}, map[string]string{
			"r::pay": "ambiguous", "r::P": "ambiguous", "r::fin": "ambiguous", "s::pay": m + " pay",
		}},
		{"the own name of one is the model's name of another", []*Held{batchUser(m, "pay", ""), batchUser(m, "fin", "opcon=pay")}, map[string]string{
			"r:opcon:pay": "ambiguous", "r:opcon:fin": "ambiguous", "r:automic:pay": m + " pay", "r:automic:fin": m + " fin",
		}},
		{"a realm's name of one, the model's of another", []*Held{batchUser(m, "pay", "r=X"), batchUser(m, "fin", "opcon=X")}, map[string]string{
			"r:opcon:X": "ambiguous", "r:opcon:fin": "ambiguous", "s:opcon:X": m + " X",
		}},
		{"the model's name does not count where the realm has one", []*Held{batchUser(m, "pay", "r=X"), batchUser(m, "fin", "r=F opcon=X")}, map[string]string{
			"r:opcon:X": m + " X", "r:opcon:F": m + " F",
		}},
		{"named like itself", []*Held{batchUser(m, "pay", "r=pay opcon=pay")}, map[string]string{"r:opcon:pay": m + " pay"}},
		{"an ambiguous one makes others' names ambiguous", []*Held{batchUser(g, "pay", "r=X"), batchUser(g2, "pay", "opcon=Y"), batchUser(m, "fin", "r=Y")},
			map[string]string{"r:opcon:fin": "ambiguous", "r:opcon:Y": "ambiguous", "r:automic:fin": m + " Y"}},
		{"what belongs to other machines is nothing", []*Held{
			batchUser("machines/db02", "pay", ""), batchUser("machines/db01/x", "pay", ""), batchUser("other/x", "pay", ""),
			batchUser("groups/", "pay", ""), batchUser("groups", "pay", ""), batchUser("", "pay", ""), batchUser(m, "", ""),
		}, map[string]string{"r::pay": "unknown", "r::": "unknown"}},
		{"an empty name for a realm is none", []*Held{batchUser(m, "pay", "r=")}, map[string]string{"r::pay": m + " pay", "r::": "unknown"}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			// The order in which the entries come must not matter.
			for _, reverse := range []bool{false, true} {
				entries := slices.Clone(c.entries)
				if reverse {
					slices.Reverse(entries)
				}
				s := New("db01", entries)
				for ask, want := range c.asks {
					f := strings.Split(ask, ":")
					if got := answer(s.BatchUser(f[0], f[1], f[2])); got != want {
						t.Errorf("%s: got %q, want %q (reversed %v)", ask, got, want, reverse)
					}
					told := len(s.Clashes(f[0], f[1]))+len(s.Faults()) > 0
					if want == "ambiguous" && !told {
						t.Errorf("%s: nothing says why", ask)
					}
					if want != "ambiguous" && len(c.asks) == 1 && len(s.Clashes(f[0], f[1])) > 0 {
						t.Errorf("%s: clashes %q", ask, s.Clashes(f[0], f[1]))
					}
				}
			}
		})
	}
}

func answer(u *User, err error) string {
	switch {
	case errors.Is(err, ErrUnknown) && u == nil:
		return "unknown"
	case errors.Is(err, ErrAmbiguous) && u == nil:
		return "ambiguous"
	case err != nil:
		return err.Error()
	}
	return u.BatchUser.Username + " " + u.RealmName
}

func TestPolicies(t *testing.T) {
	s := New("db01", []*Held{
		policyOf("platforms/unix", "opcon"), policyOf("machines/db01", "opcon"), policyOf("groups/a", "opcon"),
		policyOf("groups/a", "automic"), policyOf("groups/b", "automic"), policyOf("groups/b", "stonebranch"),
		policyOf("machines/db02", "foreign"), {Entry: Entry{ID: ID{"machines/db01", PolicyKind, "empty"}}},
		batchUser("machines/db01", "opcon", ""),
	})
	for realm, want := range map[string]string{
		"opcon": "machines/db01", "automic": "", "stonebranch": "groups/b", "foreign": "", "empty": "", "": "",
	} {
		h, ok := s.Policy(realm)
		if ok != (want != "") || ok && string(h.Policy.Document) != want {
			t.Errorf("%s: got %v, %v", realm, h, ok)
		}
	}
	var realms []string
	for _, h := range s.Policies() {
		realms = append(realms, h.ID.Name)
	}
	if got := fmt.Sprint(realms); got != "[opcon stonebranch]" {
		t.Errorf("policies %s", got)
	}
	if got := strings.Join(s.Faults(), "\n"); !strings.Contains(got, "groups/a/policies/automic, groups/b/policies/automic") ||
		!strings.Contains(got, "machines/db02/policies/foreign: not a document of machine") || strings.Count(got, "\n") != 2 {
		t.Errorf("faults %s", got)
	}
}

func TestUsers(t *testing.T) {
	s := New("db01", []*Held{
		batchUser("groups/a", "two", ""), batchUser("groups/b", "two", ""), batchUser("machines/db01", "one", "r=ONE"),
		batchUser("platforms/unix", "three", ""),
	})
	var got []string
	for _, u := range s.Users() {
		got = append(got, fmt.Sprintf("%s %v %v", u.Name, u.Ambiguous, u.Box != nil))
	}
	if want := []string{"one false true", "three false true", "two true false"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if !strings.Contains(s.Users()[2].Fault, "groups/a/batch_users/two, groups/b/batch_users/two") {
		t.Errorf("fault %q", s.Users()[2].Fault)
	}
	if s.Users()[0].RealmName != "" {
		t.Error("a look-up left the realm's name in the list")
	}
}

func TestServices(t *testing.T) {
	u := &User{Held: &Held{Entry: Entry{BatchUser: &BatchUser{Services: map[string][]string{"stonebranch": {"FIN"}, "prod": {}}}}}}
	for where, want := range map[string]string{"test": "[FIN]", "prod": "[]"} {
		if got := fmt.Sprint(u.ServicesIn(where, "stonebranch")); got != want {
			t.Errorf("%s: got %s, want %s", where, got, want)
		}
	}
	if got := u.ServicesIn("x", "opcon"); got != nil {
		t.Errorf("got %v", got)
	}
}

func TestIDString(t *testing.T) {
	for want, id := range map[string]ID{
		"machines/db01/batch_users/payroll": {"machines/db01", BatchUserKind, "payroll"},
		"groups/x/policies/opcon":           {"groups/x", PolicyKind, "opcon"},
	} {
		if id.String() != want {
			t.Errorf("got %s, want %s", id, want)
		}
	}
}

// TestReplaced: what Replaced makes New would have made, and what it was made from stays as it is.
func TestReplaced(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(from ...string) string { return from[random.IntN(len(from))] }
	document := func(id ID, version int64) *Held {
		h := &Held{Entry: Entry{ID: id, Version: version}, Box: []byte(fmt.Sprint(version))}
		if id.Kind == PolicyKind {
			h.Policy = &Policy{Model: "opcon"}
			return h
		}
		h.BatchUser = &BatchUser{Username: "u", Names: NamesOf(map[string]string{"opcon": pick("a", "x", "y"), "uac": pick("", "b", "z")})}
		return h
	}
	replaced := 0
	for range 20_000 {
		var old, next, newer []*Held
		for _, scope := range []string{"machines/db01", "groups/g", "groups/h", "platforms/unix", "machines/other"} {
			for _, name := range []string{"a", "b", "c"} {
				if random.IntN(3) == 0 {
					old = append(old, document(ID{scope, pickKind(random), name}, 1))
				}
			}
		}
		for _, h := range old {
			if random.IntN(4) == 0 {
				again := document(h.ID, 2)
				if h.BatchUser != nil && random.IntN(4) > 0 {
					again.BatchUser.Names = h.BatchUser.Names
				}
				newer, h = append(newer, again), again
			}
			next = append(next, h)
		}
		s := New("db01", old)
		got := s.Replaced(newer)
		if !reflect.DeepEqual(s, New("db01", old)) {
			t.Fatalf("%v: the one that it was made from is another one", old)
		}
		if got == nil {
			continue
		}
		if replaced += len(newer); !reflect.DeepEqual(got, New("db01", next)) {
			t.Fatalf("%v with %v:\ngot  %+v\nwant %+v", old, newer, got, New("db01", next))
		}
	}
	if replaced < 1000 {
		t.Errorf("%d were replaced: this test shows nothing", replaced)
	}
}

func pickKind(random *rand.Rand) Kind {
	if random.IntN(8) == 0 {
		return PolicyKind
	}
	return BatchUserKind
}
