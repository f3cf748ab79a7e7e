package policy_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"batchwarden/daemon/policy"
)

// texts are all words of at most three of the letters a and b.
func texts() []string {
	all := []string{""}
	for from := 0; len(all[from]) < 3; from++ {
		all = append(all, all[from]+"a", all[from]+"b")
	}
	return all
}

func randomPattern(rnd *rand.Rand) string {
	var b strings.Builder
	for range rnd.IntN(4) {
		b.WriteByte("ab*?"[rnd.IntN(4)])
	}
	return b.String()
}

// TestCovers: where Covers says yes, every text that the one matches is matched by the other.
func TestCovers(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 6))
	yes, missed := 0, 0
	for range 20_000 {
		wide, narrow := randomPattern(rnd), randomPattern(rnd)
		really := !slices.ContainsFunc(texts(), func(s string) bool { return policy.Match(narrow, s) && !policy.Match(wide, s) })
		switch covers := policy.Covers(wide, narrow); {
		case covers && !really:
			t.Fatalf("Covers(%q, %q): got true", wide, narrow)
		case covers:
			yes++
		case really:
			missed++
		}
	}
	t.Logf("%d cover, %d more seem to", yes, missed)
	if yes < 1000 || missed > yes {
		t.Error("Covers finds too little")
	}
}

// TestInstancesAndBoth: what they make is matched by the patterns it is for.
func TestInstancesAndBoth(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 8))
	both := 0
	for range 20_000 {
		p, q := randomPattern(rnd), randomPattern(rnd)
		for _, s := range policy.Instances(p) {
			if s == "" || !policy.Match(p, s) {
				t.Fatalf("Instances(%q): got %q", p, s)
			}
		}
		for _, s := range policy.Both(p, q) {
			both++
			if s == "" || !policy.Match(p, s) || !policy.Match(q, s) {
				t.Fatalf("Both(%q, %q): got %q", p, q, s)
			}
		}
	}
	if both < 1000 {
		t.Errorf("Both found %d", both)
	}
	if got := policy.Both("PAY.*", "*.ROOT"); !slices.Contains(got, "PAY..ROOT") {
		t.Errorf("got %q, want PAY..ROOT in it", got)
	}
}

// TestAskingShares: every subject gets his share, what he leaves is the others', and what is cut is said.
func TestAskingShares(t *testing.T) {
	ask := func(limit, subjects int, wants func(i int) int) policy.Questions {
		a := policy.NewAsking(limit)
		names := make([]string, subjects)
		for i := range names {
			names[i] = fmt.Sprintf("u%02d", i)
		}
		for i, name := range a.Subjects(names) {
			for n := range wants(i) {
				r := policy.Request{Subject: policy.Subject{User: name}, Action: fmt.Sprint("a", n)}
				room := a.Add(r)
				if a.Add(r) != room {
					t.Error("a request that is there already changes the answer")
				}
			}
		}
		return a.Questions()
	}
	of := func(q policy.Questions, name string) (n int) {
		for _, r := range q.Requests {
			if r.Subject.User == name {
				n++
			}
		}
		return n
	}
	q := ask(300, 3, func(i int) int { return []int{10, 500, 500}[i] })
	if len(q.Requests) != 300 || of(q, "u00") != 10 || of(q, "u01") != 145 || of(q, "u02") != 145 {
		t.Errorf("got %d, %d, %d", of(q, "u00"), of(q, "u01"), of(q, "u02"))
	}
	if want := []string{"not all combinations were made for 2 of 3 subjects (u01, u02)"}; !slices.Equal(q.Cut, want) {
		t.Errorf("got %q, want %q", q.Cut, want)
	}
	q = ask(200, 30, func(int) int { return 10 })
	if len(q.Requests) != 40 || q.Subjects != 4 || !slices.Equal(q.Cut, []string{"26 subjects have no requests at all"}) {
		t.Errorf("got %d requests, %d subjects, %q", len(q.Requests), q.Subjects, q.Cut)
	}
	if q = ask(5, 2, func(int) int { return 10 }); len(q.Requests) != 5 || q.Subjects != 1 {
		t.Errorf("got %d requests, %d subjects", len(q.Requests), q.Subjects)
	}
	if q = ask(100, 2, func(int) int { return 50 }); len(q.Requests) != 100 || q.Cut != nil {
		t.Errorf("got %d requests, %q", len(q.Requests), q.Cut)
	}
}

func TestChangeKind(t *testing.T) {
	yes := policy.Decision{Allowed: true, Rule: "A"}
	for _, c := range []struct {
		old, new policy.Decision
		want     string
	}{
		{yes, policy.Deny("A", "r"), policy.Lost},
		{policy.Deny("A", "r"), yes, policy.Gained},
		{policy.Deny("A", "r"), policy.Refuse(&policy.InvalidError{}), policy.Code},
		{yes, policy.Decision{Allowed: true, Rule: "A", Withheld: []string{"v"}}, policy.Withheld},
		{yes, policy.Decision{Allowed: true, Rule: "B"}, policy.Wording},
		{policy.Deny("A", "r"), policy.Deny("A", "s"), policy.Wording},
		{yes, yes, ""},
	} {
		change := policy.Change{Old: c.old, New: c.new}
		if got := change.Kind(); got != c.want {
			t.Errorf("%+v to %+v: got %q, want %q", c.old, c.new, got, c.want)
		}
	}
}

func TestFindings(t *testing.T) {
	var f policy.Findings
	for range 2 {
		f.Add("b", "x", "%d", 1)
		f.Add("a", "y", "2")
	}
	if got := f.Sorted(); !slices.Equal(got, []policy.Finding{{Place: "a", Code: "y", Text: "2"}, {Place: "b", Code: "x", Text: "1"}}) {
		t.Errorf("got %v", got)
	}
	for i := range policy.MaxFindings + 5 {
		f.Add("c", "z", "%d", i)
	}
	if got := len(f.Sorted()); got != policy.MaxFindings {
		t.Errorf("got %d, want %d", got, policy.MaxFindings)
	}
}
