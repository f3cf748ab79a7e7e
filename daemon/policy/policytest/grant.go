package policytest

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"batchwarden/daemon/policy"
)

// A Granting is a grant that is tried in a document.
type Granting struct {
	Doc       []byte
	To        policy.Grantee
	BatchUser policy.BatchUser
	Subjects  []policy.Subject // who has what the grantee has; the grantee alone where it is a subject
	Shared    bool             // the subjects have the grantee's rights besides others
	Requests  []policy.Request // that are asked besides those made of the documents
}

// Grant grants and revokes, each twice, and holds what changes against what may:
// a grant takes nothing from anybody and gives nothing that about does not
// know; then the subjects can use the batch user; the second time nothing
// changes; a revocation gives nothing, and takes what the grant gave. It
// returns what became of the grant: "barred", "already" or "granted", and
// whether the revocation left the right standing.
func Grant(t *testing.T, m policy.Model, g Granting, about func(*policy.Request) bool) (outcome string, still bool) {
	t.Helper()
	granter := m.(policy.Granter)
	fail := func(format string, args ...any) {
		t.Helper()
		t.Logf("%s\n%v %+v", g.Doc, g.To, g.BatchUser)
		t.Fatalf(format, args...)
	}
	_, err := granter.Grant(g.Doc, g.To, g.BatchUser, false)
	made := errors.Is(err, policy.ErrUnknownGrantee) // and stays when the right goes
	granted, err := granter.Grant(g.Doc, g.To, g.BatchUser, true)
	if barred := (*policy.BarError)(nil); errors.As(err, &barred) {
		if barred.Rule == "" {
			fail("barred by no rule: %v", err)
		}
		return "barred", false
	}
	if err != nil {
		fail("grant: %v", err)
	}
	outcome = "granted"
	if granted.Changes == nil {
		outcome = "already"
		if granted.Already == nil || string(granted.Text) != string(g.Doc) {
			fail("no change, and not said why: %+v", granted)
		}
	}
	g.changes(t, m, g.Doc, granted.Text, func(c *policy.Change) bool { return c.Kind() == policy.Gained && about(&c.Request) })
	after := Compile(t, m, granted.Text)
	use := m.(policy.Reviewer).Use(policy.Host{}, g.BatchUser)
	for _, s := range g.Subjects {
		if d := use.Decide(after, s); !d.Allowed {
			fail("%+v is denied after the grant by %s %s:\n%s", s, d.Rule, d.Reason, granted.Text)
		} else if len(use.By(after, s)) == 0 {
			fail("%+v is allowed by nothing", s)
		}
	}
	if again, err := granter.Grant(granted.Text, g.To, g.BatchUser, true); err != nil || again.Changes != nil || again.Already == nil {
		fail("granted a second time: %+v %v", again, err)
	}

	revoked, err := granter.Revoke(granted.Text, g.To, g.BatchUser)
	if err != nil {
		fail("revoke: %v", err)
	}
	g.changes(t, m, granted.Text, revoked.Text, func(c *policy.Change) bool { return c.Kind() == policy.Lost && about(&c.Request) })
	if outcome == "granted" {
		if revoked.Changes == nil {
			fail("nothing was revoked of\n%s", granted.Text)
		}
		g.changes(t, m, g.Doc, revoked.Text, func(c *policy.Change) bool { return (c.Kind() == policy.Lost || made) && about(&c.Request) })
	}
	left := Compile(t, m, revoked.Text)
	for _, s := range g.Subjects {
		if d := use.Decide(left, s); d.Allowed && len(revoked.Still) == 0 && !g.Shared {
			fail("%+v is allowed after the revocation by %s, and that was not said:\n%s", s, d.Rule, revoked.Text)
		} else if !d.Allowed && len(revoked.Still) > 0 && !g.Shared {
			fail("%+v is denied after the revocation, and it is said that %q still allow:\n%s", s, revoked.Still, revoked.Text)
		}
	}
	if again, err := granter.Revoke(revoked.Text, g.To, g.BatchUser); err != nil || again.Changes != nil || !slices.Equal(again.Still, revoked.Still) {
		fail("revoked a second time: %+v %v", again, err)
	}
	return outcome, len(revoked.Still) > 0
}

// changes fails for a change between two documents that may not be.
func (g *Granting) changes(t *testing.T, m policy.Model, before, after []byte, may func(*policy.Change) bool) {
	t.Helper()
	old, now := Compile(t, m, before), Compile(t, m, after)
	requests := append(slices.Clone(g.Requests), m.(policy.Asker).Ask(old, now, 400).Requests...)
	for i := range requests {
		c := policy.Compare(old, now, &requests[i])
		if kind := c.Kind(); kind != "" && kind != policy.Wording && !may(&c) {
			text, _ := json.Marshal(&c.Request)
			t.Logf("%v %+v\n%s\n%s", g.To, g.BatchUser, before, after)
			t.Fatalf("%s %s", kind, text)
		}
	}
}
