package opcon_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"batchwarden/daemon/policy"
	"batchwarden/daemon/policy/opcon"
	"batchwarden/daemon/policy/policytest"
)

// TestSoakGrants: on random documents a grant gives the role the batch user and nothing else to anybody, and a
// revocation takes it.
func TestSoakGrants(t *testing.T) {
	documents, rnd := soak(t, 100)
	documents = min(documents, 1_000) // each is asked thousands of questions
	outcomes, stands := map[string]int{}, 0
	for range documents {
		text, err := json.Marshal(randomDoc(rnd))
		if err != nil {
			t.Fatal(err)
		}
		role := pick(rnd, append(universeRoles, "new"))
		p := pick(rnd, universePlatforms)
		b := policy.BatchUser{Name: pick(rnd, universe[p]), Platform: p}
		g := policytest.Granting{Doc: text, To: policy.Grantee{Role: role}, BatchUser: b, Subjects: []policy.Subject{{Roles: []string{role}}}}
		for range 30 {
			g.Requests = append(g.Requests, randomRequest(rnd))
		}
		outcome, still := policytest.Grant(t, opcon.Model{}, g, func(r *policy.Request) bool {
			folds := p == "windows" || p == "sql"
			return r.Object.Platform == p && (r.Object.BatchUser == b.Name || folds && strings.EqualFold(r.Object.BatchUser, b.Name))
		})
		outcomes[outcome]++
		if still {
			stands++
		}
	}
	if len(outcomes) != 3 || stands == 0 {
		t.Errorf("not everything was tried: %v, %d still stand", outcomes, stands)
	}
}

func TestGrantWords(t *testing.T) {
	const doc = `{"model":"opcon","x_owner":"ops","roles":{"r":{"machines":["m"],"batch_users":{"unix":["g/a"]}}},"users":{"u":{"roles":["r"]}},"host":{"black_list":["g/bad"]}}`
	b := policy.BatchUser{Name: "g/b", Platform: "unix"}
	grant := func(to policy.Grantee, b policy.BatchUser, make bool) (policy.Edit, error) {
		return opcon.Model{}.Grant([]byte(doc), to, b, make)
	}
	got, err := grant(policy.Grantee{Role: "r"}, b, false)
	if want := strings.Replace(doc, `["g/a"]`, `["g/a","g/b"]`, 1); err != nil || string(got.Text) != want {
		t.Errorf("got %s %v, want %s", got.Text, err, want)
	}
	if want := []string{`roles.r.batch_users.unix: "g/b" is added`}; !slices.Equal(got.Changes, want) {
		t.Errorf("got %q, want %q", got.Changes, want)
	}
	got, err = grant(policy.Grantee{Role: "new"}, policy.BatchUser{Name: "C\\A", Platform: "windows"}, true)
	if want := strings.Replace(doc, `["g/a"]}}`, `["g/a"]}},"new":{"batch_users":{"windows":["C\\A"]}}`, 1); err != nil || string(got.Text) != want {
		t.Errorf("got %s %v, want %s", got.Text, err, want)
	}
	if got, err = grant(policy.Grantee{Role: "r"}, policy.BatchUser{Name: "g/a", Platform: "unix"}, false); err != nil || !slices.Equal(got.Already, []string{"roles.r.batch_users.unix[0]"}) {
		t.Errorf("got %+v %v, want where it is granted already", got, err)
	}
	for _, tc := range []struct {
		to   policy.Grantee
		b    policy.BatchUser
		is   error
		want string
	}{
		{policy.Grantee{User: "u"}, b, policy.ErrGrantee, `user "u" cannot be a grantee: OpCon grants batch users to roles (OC5)`},
		{policy.Grantee{Role: "typo"}, b, policy.ErrUnknownGrantee, `role "typo" is not in the document`},
		{policy.Grantee{Role: "r"}, policy.BatchUser{Name: "b", Platform: "unix"}, nil, `"b" is not group/user`},
		{policy.Grantee{Role: "r"}, policy.BatchUser{Name: "b", Platform: "plan9"}, nil, `"plan9" is not a platform of OpCon (OC2)`},
		{policy.Grantee{Role: "r"}, policy.BatchUser{Name: "g/bad", Platform: "unix"}, nil, "host.black_list: "},
	} {
		got, err := grant(tc.to, tc.b, false)
		if err == nil || got.Text != nil || !strings.Contains(err.Error(), tc.want) || tc.is != nil && !errors.Is(err, tc.is) {
			t.Errorf("%v %v: got %v, want %s", tc.to, tc.b, err, tc.want)
		}
	}
	if _, err := (opcon.Model{}).Revoke([]byte(doc), policy.Grantee{Role: "typo"}, b); !errors.Is(err, policy.ErrUnknownGrantee) {
		t.Errorf("revoked from nobody: %v", err)
	}
}

// TestReview: who can use a batch user is what the engine says to a launch.
func TestReview(t *testing.T) {
	p := compile(t, `"roles":{"r":{"batch_users":{"unix":["g/a"]},"machines":["M"]},"s":{"batch_users":{"unix":["g/a"]}},"Role_ocadm":{}},
		"users":{"u":{"roles":["r"]},"v":{"roles":["s"]},"admin":{"roles":["Role_ocadm"]},"none":{"roles":[]}}}`)
	m := opcon.Model{}
	b := policy.BatchUser{Name: "g/a", Platform: "unix"}
	who := func(h policy.Host) (names []string) {
		use := m.Use(h, b)
		for _, s := range m.Subjects(p) {
			if use.Decide(p, s).Allowed {
				names = append(names, s.User+strings.Join(s.Roles, "")+" by "+strings.Join(use.By(p, s), " "))
			}
		}
		return names
	}
	all := []string{"admin by roles.Role_ocadm", "u by roles.r.batch_users.unix roles.r.machines", "v by roles.s.batch_users.unix",
		"Role_ocadm by roles.Role_ocadm", "r by roles.r.batch_users.unix roles.r.machines", "s by roles.s.batch_users.unix"}
	if got := who(policy.Host{Agent: "M"}); !slices.Equal(got, all) {
		t.Errorf("on M: got %q, want %q", got, all)
	}
	if got := who(policy.Host{Agent: "N"}); len(got) != 4 {
		t.Errorf("OC8: on another machine: got %q, want neither u nor r", got)
	}
	if got := who(policy.Host{}); len(got) != 6 {
		t.Errorf("on whatever machine: got %q, want all", got)
	}
}
