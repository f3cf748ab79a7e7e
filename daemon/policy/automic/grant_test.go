package automic_test

import (
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"

	"batchwarden/daemon/policy"
	"batchwarden/daemon/policy/automic"
	"batchwarden/daemon/policy/policytest"
)

// TestSoakGrants: on random documents a grant gives X on the login and nothing else to anybody, also where
// groups are AND-ed, and a revocation takes it without giving anything else.
func TestSoakGrants(t *testing.T) {
	documents, rnd := soak(t, 80)
	documents = min(documents, 1_000) // each is asked thousands of questions
	outcomes, stands := map[string]int{}, 0
	for range documents {
		doc := randomDoc(rnd)
		for name, u := range doc.Users { // fewer rows, or nothing is ever missing
			if u.Rows = u.Rows[:min(len(u.Rows), 4)]; rnd.IntN(8) == 0 {
				u.Rows = append(u.Rows, map[string]string{"grp": "NOT", "type": "LOGIN", "name": "*1", "rights": "X"})
			}
			doc.Users[name] = u
		}
		for name, u := range doc.Groups {
			u.Rows = u.Rows[:min(len(u.Rows), 3)]
			doc.Groups[name] = u
		}
		text, err := json.Marshal(doc)
		if err != nil {
			t.Fatal(err)
		}
		b := policy.BatchUser{Name: pick(rnd, "L1", "l2", "x", "ab", "PAY")}
		g := policytest.Granting{Doc: text, BatchUser: b}
		if rnd.IntN(2) == 0 {
			g.To.User = pick(rnd, "u1", "u2", "new")
			g.Subjects = []policy.Subject{{User: g.To.User}}
		} else {
			g.To.Group, g.Shared = pick(rnd, "G", "H", "new"), true
			for name, u := range doc.Users {
				not := func(r map[string]string) bool { return strings.EqualFold(r["grp"], "NOT") }
				if slices.Contains(u.Groups, g.To.Group) && !slices.ContainsFunc(doc.rows(name), not) {
					g.Subjects = append(g.Subjects, policy.Subject{User: name})
				}
			}
		}
		for range 30 {
			g.Requests = append(g.Requests, randomRequest(t, rnd))
		}
		outcome, still := policytest.Grant(t, automic.Model{}, g, func(r *policy.Request) bool {
			o := &r.Object
			return r.Action == "X" && strings.EqualFold(o.Type, "LOGIN") && strings.EqualFold(o.Name, b.Name) ||
				r.Action == "launch" && strings.EqualFold(o.Login, b.Name)
		})
		outcomes[outcome]++
		if still {
			stands++
		}
	}
	if len(outcomes) != 3 || outcomes["granted"] < documents/4 || stands == 0 {
		t.Errorf("not everything was tried: %v, %d still stand", outcomes, stands)
	}
}

func asked(user, action string, o map[string]string) string {
	text, _ := json.Marshal(map[string]any{"subject": map[string]string{"user": user}, "action": action, "object": o})
	return string(text)
}

func TestGrantWords(t *testing.T) {
	const pay, two = `{"grp":"1","type":"JOBS","name":"PAY.*","rights":"X"}`, `{"grp":"2","type":"*","rights":"R"}`
	const not = `{"grp":"NOT","type":"LOGIN","name":"L*","rights":"X"}`
	const login1, login2 = `{"grp":"1","type":"LOGIN","name":"LOGIN.PAY","rights":"X"}`, `{"grp":"2","type":"LOGIN","name":"LOGIN.PAY","rights":"X"}`
	user, group := policy.Grantee{User: "U"}, policy.Grantee{Group: "G"}
	doc := func(users, group string) string {
		return `{"model":"automic","users":{"U":{"x_note":"n","rows":[` + users + `],"groups":["G"]}},"groups":{"G":{"rows":[` + group + `]}}}`
	}
	for _, tc := range []struct {
		name, doc     string
		to            policy.Grantee
		want          string // the document, or the error
		changes, back string
	}{
		{"the user's only group", doc(pay, ""), user, doc(pay+","+login1, ""), "users.U.rows: the row Grp 1, Type LOGIN, Name LOGIN.PAY, rights X is added", doc(pay, "")},
		{"AU8: every group needs a row", doc(pay, two), user, doc(pay+","+login1+","+login2, two), "2", doc(pay, two)},
		{"nobody has rows", doc("", ""), user, doc(login1, ""), "1", doc("", "")},
		{"the user group's", doc("", two), group, doc("", two+","+login2), "1", doc("", two)},
		{"what the user group's users need besides", doc(two, pay), group, doc(two, pay+","+login1+","+login2), "2", doc(two, pay)},
		{"a row that is there", doc(`{"grp":"1","type":"login","name":"login.pay","rights":"r"}`, ""), user, doc(`{"grp":"1","type":"login","name":"login.pay","rights":"RX"}`, ""), "1",
			doc(`{"grp":"1","type":"login","name":"login.pay","rights":"R"}`, "")},
		{"AU7", doc(pay, not), user, "groups.G.rows[0]: this NOT row denies X on the login, and no row helps against it (AU7)", "", ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			b := policy.BatchUser{Name: "LOGIN.PAY"}
			got, err := automic.Model{}.Grant([]byte(tc.doc), tc.to, b, false)
			if err != nil {
				if err.Error() != tc.want {
					t.Errorf("got %v, want %s", err, tc.want)
				}
				return
			}
			if string(got.Text) != tc.want {
				t.Fatalf("got  %s\nwant %s", got.Text, tc.want)
			}
			if n := len(got.Changes); tc.changes != got.Changes[0] && tc.changes != string(rune('0'+n)) {
				t.Errorf("got %q, want %s", got.Changes, tc.changes)
			}
			back, err := automic.Model{}.Revoke(got.Text, tc.to, b)
			if err != nil || string(back.Text) != tc.back {
				t.Errorf("taken back: got  %s %v\nwant %s", back.Text, err, tc.back)
			}
		})
	}
	const last = `{"model":"automic","users":{"U":{"rows":[` + pay + `,` + login1 + `,` + login2 + `]}}}`
	kept := strings.Replace(strings.Replace(last, ","+login1, "", 1), `"name":"LOGIN.PAY","rights":"X"`, `"name":"LOGIN.PAY","rights":""`, 1)
	if got, err := (automic.Model{}).Revoke([]byte(last), user, policy.BatchUser{Name: "LOGIN.PAY"}); err != nil || string(got.Text) != kept || !strings.Contains(got.Changes[0], "stays without a right so that group 2 counts as before (AU8)") {
		t.Errorf("AU8: without group 2 the jobs would run: got %s %q %v, want %s", got.Text, got.Changes, err, kept)
	}
	denying := doc(pay+`,{"grp":"not","type":"LOGIN","name":"LOGIN.PAY","rights":"X"}`, "")
	if got, err := (automic.Model{}).Revoke([]byte(denying), user, policy.BatchUser{Name: "LOGIN.PAY"}); err != nil || string(got.Text) != denying || got.Changes != nil {
		t.Errorf("AU7: a NOT row is no grant: got %s %q %v", got.Text, got.Changes, err)
	}
	harm := `{"model":"automic","users":{"U":{"rows":[` + two + `],"groups":["G"]},"V":{"rows":[` + pay + `],"groups":["G"]}},"groups":{"G":{"rows":[]}}}`
	if _, err := (automic.Model{}).Grant([]byte(harm), group, policy.BatchUser{Name: "L"}, false); err == nil || !strings.Contains(err.Error(), "would take rights from user") {
		t.Errorf("AU8: got %v, want that no group of rows suits all its users", err)
	}
	for _, tc := range []struct {
		to   policy.Grantee
		name string
		is   error
		want string
	}{
		{policy.Grantee{Role: "r"}, "L", policy.ErrGrantee, "Automic grants to users and user groups"},
		{policy.Grantee{User: "typo"}, "L", policy.ErrUnknownGrantee, `user "typo" is not in the document`},
		{user, "L*", nil, "cannot be written as a filter for one LOGIN object"},
		{user, "A,B", nil, "cannot be written"},
		{user, strings.Repeat("L", 201), nil, "201 characters, at most 200"},
	} {
		got, err := automic.Model{}.Grant([]byte(doc("", "")), tc.to, policy.BatchUser{Name: tc.name}, false)
		if err == nil || got.Text != nil || !strings.Contains(err.Error(), tc.want) || tc.is != nil && !errors.Is(err, tc.is) {
			t.Errorf("%v %v: got %v, want %s", tc.to, tc.name, err, tc.want)
		}
	}
}

// TestReview: who can use a login is what a launch asks of it: the login object's own list does not bind
// launches (AU28).
func TestReview(t *testing.T) {
	p := compile(t, `"users":{"U":{"rows":[`+row("1 LOGIN X name=L*")+`]},"V":{"rows":[],"groups":["G"]},"W":{"rows":[]}},"groups":{"G":{"rows":[`+row("2 LOGIN X name=L*")+`]}},
		"objects":{"LOGIN/L1":{"access":{"V":"R"}}}`)
	m := automic.Model{}
	use := m.Use(policy.Host{}, policy.BatchUser{Name: "l1"})
	var got []string
	for _, s := range m.Subjects(p) {
		if use.Decide(p, s).Allowed {
			got = append(got, s.User+" by "+strings.Join(use.By(p, s), " "))
		}
	}
	if want := []string{"U by users.U.rows[0]", "V by groups.G.rows[0]"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}
