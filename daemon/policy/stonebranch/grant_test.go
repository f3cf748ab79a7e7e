package stonebranch_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"batchwarden/daemon/policy"
	"batchwarden/daemon/policy/policytest"
	"batchwarden/daemon/policy/stonebranch"
)

// TestSoakGrants: on random documents a grant gives Execute on the credential and nothing else to anybody, and a
// revocation takes it.
func TestSoakGrants(t *testing.T) {
	documents, rnd := soak(t, 80)
	documents = min(documents, 1_000) // each is asked thousands of questions
	outcomes, stands := map[string]int{}, 0
	for range documents {
		doc := randomDoc(rnd)
		text, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		b := policy.BatchUser{Name: pick(rnd, "a", "b", "cc", "xx"), Services: some(rnd, 2, "F", "H")}
		g := policytest.Granting{Doc: text, BatchUser: b}
		if rnd.IntN(2) == 0 {
			g.To.User = pick(rnd, "u1", "u2", "u3", "new")
			g.Subjects = []policy.Subject{{User: g.To.User}}
		} else {
			g.To.Group, g.Shared = pick(rnd, "G", "H", "new"), true
			for name, u := range doc.Users {
				if slices.Contains(u.Groups, g.To.Group) {
					g.Subjects = append(g.Subjects, policy.Subject{User: name})
				}
			}
		}
		for range 30 {
			g.Requests = append(g.Requests, randomRequest(rnd))
		}
		outcome, still := policytest.Grant(t, stonebranch.Model{}, g, func(r *policy.Request) bool {
			o := &r.Object
			if g.To.User == "new" && (r.Subject.User == "new" || o.User == "new") {
				return true // who is known to the document has what everybody has
			}
			return r.Action == "Execute" && o.Type == "Credential" && o.Name == b.Name || r.Action == "launch" && o.Credential.Name == b.Name
		})
		outcomes[outcome]++
		if still {
			stands++
		}
	}
	if outcomes["granted"] < documents/4 || outcomes["already"] == 0 || stands == 0 {
		t.Errorf("not everything was tried: %v, %d still stand", outcomes, stands)
	}
}

func TestGrantWords(t *testing.T) {
	const other = `{"type":"Credential","name":"SF*","operations":["Execute"]}`
	const added = `{"type":"Credential","name":"PAY","operations":["Execute"]}`
	doc := func(user, group string) string {
		return `{"model":"stonebranch","users":{"alice":{"groups":["G"],"permissions":[` + user + `]}},"groups":{"G":{"x_note":1,"permissions":[` + group + `]}}}`
	}
	user, group := policy.Grantee{User: "alice"}, policy.Grantee{Group: "G"}
	b := policy.BatchUser{Name: "PAY", Services: []string{"FIN"}}
	m := stonebranch.Model{}
	for _, tc := range []struct {
		name, doc string
		to        policy.Grantee
		want      string // the document, or by what it is so already
	}{
		{"a user", doc(other, ""), user, doc(other+","+added, "")},
		{"a group", doc(other, ""), group, doc(other, added)},
		{"a user of a group that may", doc("", added), user, "groups.G.permissions[0]"},
		{"a group with another's user", doc(added, ""), group, doc(added, added)},
		{"a pattern", doc("", strings.Replace(added, "PAY", "P*", 1)), group, "groups.G.permissions[0]"},
		{"ST1", strings.Replace(doc("", ""), `"x_note":1`, `"roles":["ops_admin"]`, 1), group, "ST1"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, err := m.Grant([]byte(tc.doc), tc.to, b, false)
			if err != nil {
				t.Fatal(err)
			}
			if got.Changes == nil {
				if by := strings.Join(got.Already, " "); by != tc.want {
					t.Errorf("got already by %s, want %s", by, tc.want)
				}
				return
			}
			if string(got.Text) != tc.want {
				t.Fatalf("got  %s\nwant %s", got.Text, tc.want)
			}
			if back, err := m.Revoke(got.Text, tc.to, b); err != nil || string(back.Text) != tc.doc || back.Still != nil {
				t.Errorf("taken back: got  %+v %v\nwant %s", back, err, tc.doc)
			}
		})
	}
	if got, err := m.Grant([]byte(doc("", "")), policy.Grantee{User: "new"}, b, true); err != nil || len(got.Changes) != 2 || !strings.Contains(got.Changes[0], "users.new is made") {
		t.Errorf("a user who is made: got %+v %v", got, err)
	}
	more := doc(`{"type":"Credential","name":"PAY","operations":["Read","Execute"]},{"type":"Credential","name":"P*","operations":["Execute"]}`, "")
	left := doc(`{"type":"Credential","name":"PAY","operations":["Read"]},{"type":"Credential","name":"P*","operations":["Execute"]}`, "")
	if got, err := m.Revoke([]byte(more), user, b); err != nil || string(got.Text) != left || !slices.Equal(got.Still, []string{"users.alice.permissions[1]"}) {
		t.Errorf("got %s %q %v, want %s and the pattern", got.Text, got.Still, err, left)
	}
	for _, tc := range []struct {
		to   policy.Grantee
		name string
		is   error
		want string
	}{
		{policy.Grantee{Role: "ops_dba"}, "L", policy.ErrGrantee, "the Universal Controller grants to users and groups"},
		{policy.Grantee{Group: "typo"}, "L", policy.ErrUnknownGrantee, `group "typo" is not in the document`},
		{user, "L*", nil, "cannot be written as the name of one credential"},
	} {
		got, err := m.Grant([]byte(doc("", "")), tc.to, policy.BatchUser{Name: tc.name}, false)
		if err == nil || got.Text != nil || !strings.Contains(err.Error(), tc.want) || tc.is != nil && !errors.Is(err, tc.is) {
			t.Errorf("%v %v: got %v, want %s", tc.to, tc.name, err, tc.want)
		}
	}
}

// TestReview: the credential with its services, and the agent where it is named.
func TestReview(t *testing.T) {
	p := compile(t, `"users":{"admin":{"roles":["ops_admin"]},`+
		`"both":{"groups":["G"],"permissions":[{"type":"Agent","name":"A*","operations":["Execute"]}]},"one":{"groups":["G"]},"none":{}},`+
		`"groups":{"G":{"permissions":[{"type":"Credential","name":"PAY","business_services":{"criterion":"specific","services":["FIN"]},"operations":["Execute"]}]}}`)
	m := stonebranch.Model{}
	who := func(h policy.Host, services ...string) (names []string) {
		use := m.Use(h, policy.BatchUser{Name: "PAY", Services: services})
		for _, s := range m.Subjects(p) {
			if use.Decide(p, s).Allowed {
				names = append(names, s.User+" by "+strings.Join(use.By(p, s), " "))
			}
		}
		return names
	}
	if got, want := who(policy.Host{}, "FIN"), []string{"admin by ST1", "both by groups.G.permissions[0]", "one by groups.G.permissions[0]"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if got, want := who(policy.Host{Agent: "AGNT1"}, "FIN"), []string{"admin by ST1", "both by groups.G.permissions[0] users.both.permissions[0]"}; !slices.Equal(got, want) {
		t.Errorf("on an agent: got %q, want %q", got, want)
	}
	if got := who(policy.Host{}, "HR"); len(got) != 1 {
		t.Errorf("of another service: got %q, want the admin alone", got)
	}
}
