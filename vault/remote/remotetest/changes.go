package remotetest

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"batchwarden/vault/errand"
	"batchwarden/vault/vaulttest"
)

// changes is a machine's ordinary life.
func changes(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	m := newMachine(t, newSource, s, "db01", vaulttest.MachineOptions{})
	m.syncOK()
	m.holds()

	must(t, s.PutBatchUser(ctx, m.scope(), "payroll", user("one")))
	must(t, s.PutBatchUser(ctx, m.scope(), "keyless", map[string]any{"username": "k", "kind": "none"}))
	must(t, s.PutPolicy(ctx, m.scope(), "opcon", policy("jdoe")))
	m.syncOK()
	m.brought("batch_users/payroll", "batch_users/keyless", "policies/opcon")
	m.password("payroll", "one")
	for id, h := range m.held {
		if text, err := json.Marshal(h.entry); err != nil || strings.Contains(string(text), canary) {
			t.Errorf("%s: the password is in the head (%v)", id, err)
		}
		switch id.Name {
		case "keyless":
			if h.secret != "" {
				t.Error("a batch user without a password has a secret")
			}
		case "opcon":
			if !strings.Contains(string(h.entry.Policy.Document), `"jdoe"`) {
				t.Error("the policy is not in its record")
			}
		}
	}

	m.syncOK()
	m.brought()

	must(t, s.PutBatchUser(ctx, m.scope(), "payroll", user("two")))
	m.syncOK()
	m.brought("batch_users/payroll")
	m.password("payroll", "two")

	must(t, s.PutBatchUser(ctx, m.scope(), "added", user("new")))
	must(t, s.PutPolicy(ctx, m.scope(), "opcon", policy("other")))
	m.syncOK()
	m.brought("batch_users/added", "policies/opcon")
	m.holds("batch_users/added", "batch_users/keyless", "batch_users/payroll", "policies/opcon")

	must(t, s.DeleteBatchUser(ctx, m.scope(), "payroll"))
	if r := m.syncOK(); len(r.Removed) != 1 || r.Removed[0].Why == "" {
		t.Errorf("after a deletion: removed %v", r.Removed)
	}
	m.holds("batch_users/added", "batch_users/keyless", "policies/opcon")
	m.syncOK()
	m.brought()

	must(t, s.DestroyBatchUser(ctx, m.scope(), "added"))
	m.syncOK()
	m.holds("batch_users/keyless", "policies/opcon")

	must(t, s.PutBatchUser(ctx, m.scope(), "payroll", user("back"))) // a new version over a deleted one
	must(t, s.PutBatchUser(ctx, m.scope(), "added", user("anew")))   // version 1 again
	m.syncOK()
	m.holds("batch_users/added", "batch_users/keyless", "batch_users/payroll", "policies/opcon")
	m.password("payroll", "back")
	m.password("added", "anew")
}

func scopes(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	m := newMachine(t, newSource, s, "a", vaulttest.MachineOptions{Groups: []string{"pay"}})
	for _, scope := range []string{"machines/a", "groups/pay", "platforms/unix", "machines/b", "groups/other", "platforms/windows"} {
		must(t, s.PutBatchUser(ctx, scope, "u", user(scope)))
	}
	r := m.syncOK()
	m.holds("batch_users/u", "groups/pay/batch_users/u", "platforms/unix/batch_users/u")
	if len(r.Scopes) != 3 {
		t.Errorf("got scopes %v", r.Scopes)
	}

	// A group that this machine is not entitled to hinders nothing else.
	m.conf.Groups = []string{"pay", "other"}
	must(t, s.PutBatchUser(ctx, "machines/a", "u", user("new")))
	must(t, s.DestroyBatchUser(ctx, "groups/pay", "u"))
	r = m.sync()
	if r.Code != errand.Forbidden || !strings.Contains(r.Detail, "groups/other") {
		t.Errorf("got %q, %q", r.Code, r.Detail)
	}
	m.holds("batch_users/u", "platforms/unix/batch_users/u")
	m.password("u", "new")
	for _, sc := range r.Scopes {
		if want := sc.Scope != "groups/other"; sc.Read != want {
			t.Errorf("%s: read %v", sc.Scope, sc.Read)
		}
	}
}

func removals(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	m := newMachine(t, newSource, s, "db01", vaulttest.MachineOptions{})
	for _, n := range names(4) {
		must(t, s.PutBatchUser(ctx, m.scope(), n, user(n)))
	}
	m.syncOK()

	deny := func(paths ...string) {
		var rules []vaulttest.Rule
		for _, p := range paths {
			rules = append(rules, vaulttest.Rule{Path: p, Capabilities: []string{"deny"}})
		}
		must(t, s.SetRules(ctx, "db01", rules...))
	}
	deny("batch/metadata/machines/db01/batch_users/u00")
	m.syncOK()
	m.holds("batch_users/u01", "batch_users/u02", "batch_users/u03")

	deny("batch/metadata/machines/db01/batch_users/u00", "batch/data/machines/db01/batch_users/u01")
	must(t, s.PutBatchUser(ctx, m.scope(), "u01", user("new")))
	m.syncOK()
	m.holds("batch_users/u02", "batch_users/u03")

	deny()
	m.syncOK()
	m.holds("batch_users/u00", "batch_users/u01", "batch_users/u02", "batch_users/u03")

	_, err := s.Root().Logical().WriteWithContext(ctx, "batch/destroy/machines/db01/batch_users/u02", map[string]any{"versions": []int{1}})
	must(t, err)
	m.syncOK()
	m.holds("batch_users/u00", "batch_users/u01", "batch_users/u03")
}

func losingMuch(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	m := newMachine(t, newSource, s, "db01", vaulttest.MachineOptions{})
	p := newProxy(t, s)
	p.configure(m)
	for _, n := range names(3) {
		must(t, s.PutBatchUser(ctx, m.scope(), n, user(n)))
	}
	m.syncOK()

	t.Run("once_is_not_enough", func(t *testing.T) {
		m.t = t
		p.damage(t, func(r *reply) {
			if r.lists("batch_users") && r.nth == 1 {
				r.status, r.body = 404, []byte(`{"errors":[]}`)
			}
		})
		m.keeps(errand.Answer)
		m.syncOK()
		m.holds("batch_users/u00", "batch_users/u01", "batch_users/u02")
	})
	t.Run("part_of_it_came_back", func(t *testing.T) {
		m.t = t
		p.damage(t, func(r *reply) {
			if r.lists("batch_users") && r.nth == 1 {
				r.status, r.body = 404, []byte(`{"errors":[]}`)
			}
			if r.lists("batch_users") && r.nth == 2 {
				r.body = []byte(`{"data":{"keys":["u01","u02"]}}`)
			}
		})
		if r := m.sync(); r.Code != errand.Answer || len(r.Removed) != 1 {
			t.Errorf("got %q, removed %v", r.Code, r.Removed)
		}
		m.holds("batch_users/u01", "batch_users/u02")
		m.syncOK()
	})
	t.Run("twice_is", func(t *testing.T) {
		m.t = t
		for _, n := range names(3) {
			must(t, s.DestroyBatchUser(ctx, m.scope(), n))
		}
		mark := len(requests(t, s))
		m.syncOK()
		m.holds()
		if n := count(t, s, mark, "GET /v1/batch/metadata/machines/db01/batch_users?list"); n != 2 {
			t.Errorf("%d looks were taken, want 2", n)
		}
		m.syncOK()
	})
	t.Run("an_index_that_agrees_is", func(t *testing.T) {
		m.t = t
		must(t, s.PutBatchUser(ctx, m.scope(), "u", user("u")))
		m.syncOK()
		must(t, s.PutIndex(ctx, m.scope(), map[string]any{"batch_users": map[string]any{}, "policies": map[string]any{}}))
		must(t, s.DeleteBatchUser(ctx, m.scope(), "u"))
		mark := len(requests(t, s))
		m.syncOK()
		m.holds()
		if n := count(t, s, mark, "GET /v1/batch/metadata/machines/db01/batch_users?list"); n != 1 {
			t.Errorf("%d looks were taken, want 1", n)
		}
	})
	t.Run("the_mark_of_removal_is", func(t *testing.T) {
		m.t = t
		must(t, s.PutBatchUser(ctx, m.scope(), "own", user("u")))
		must(t, s.PutBatchUser(ctx, "platforms/unix", "shared", user("u")))
		must(t, s.PutPolicy(ctx, "platforms/unix", "opcon", policy("jdoe")))
		m.syncOK()
		if len(m.held) != 3 {
			t.Fatalf("holds %d documents", len(m.held))
		}
		must(t, s.PutIndex(ctx, m.scope(), map[string]any{"removed": true}))
		m.syncOK()
		m.holds()
		m.brought()
	})
}

func badDocuments(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	m := newMachine(t, newSource, s, "db01", vaulttest.MachineOptions{})
	must(t, s.PutBatchUser(ctx, m.scope(), "stays", user("good")))
	must(t, s.PutBatchUser(ctx, m.scope(), "newer", user("good")))
	must(t, s.PutPolicy(ctx, m.scope(), "opcon", policy("jdoe")))
	m.syncOK()

	put := func(name string, doc map[string]any) { must(t, s.PutBatchUser(ctx, m.scope(), name, doc)) }
	put("stays", map[string]any{"username": "u", "passwort": canary})
	put("newer", map[string]any{"format": 2, "password": canary, "what": "ever"})
	put("huge", map[string]any{"username": "u", "password": canary + strings.Repeat("x", 900<<10)})
	put("empty", map[string]any{})
	put("sourced", map[string]any{"username": "u", "source": map[string]any{"path": "ldap/static-cred/u"}})
	put("fine", user("fine"))
	put("folder/in/it", user("x"))
	put("white space", user("x"))
	must(t, s.PutPolicy(ctx, m.scope(), "opcon", map[string]any{"model": "cron"}))
	must(t, s.PutPolicy(ctx, m.scope(), "new", map[string]any{"users": map[string]any{}}))

	r := m.sync()
	if r.Code != errand.OK {
		t.Errorf("got %q, %q", r.Code, r.Detail)
	}
	m.faults(r, map[string]string{
		"batch_users/stays":       "passwort: unknown member",
		"batch_users/newer":       "format.newer",
		"batch_users/huge":        "password: longer than 1024",
		"batch_users/empty":       "username: is required",
		"batch_users/sourced":     "is not below any of this machine's sync.sources",
		"batch_users/folder/":     "not a name",
		"batch_users/white space": "not a name",
		"policies/opcon":          "model",
		"policies/new":            "model",
	})
	m.brought("batch_users/fine")
	m.holds("batch_users/fine", "batch_users/newer", "batch_users/stays", "policies/opcon")
	m.password("stays", "good")
	m.password("newer", "good")
	if sc := r.Scopes[0]; !sc.Read {
		t.Errorf("what was not refused is not confirmed: %+v", sc)
	}
}

func policiesInParts(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	m := newMachine(t, newSource, s, "db01", vaulttest.MachineOptions{})
	var b strings.Builder
	b.WriteString(`{"model":"automic","users":{`)
	for i := range 108000 {
		fmt.Fprintf(&b, `"U%06d/DEPT":{"groups":[],"rows":[{"grp":"1","type":"JOBS","name":"N%d.*","rights":"RX"}]},`, i, i*7919%100003)
	}
	b.WriteString(`"LAST/DEPT":{}}}`)
	doc := b.String()
	if !json.Valid([]byte(doc)) || len(doc) < 9<<20 || len(doc) > 10<<20 {
		t.Fatalf("not a long document: %d octets", len(doc))
	}
	must(t, s.PutPolicyInParts(ctx, m.scope(), "automic", []byte(doc), 200<<10))
	m.syncOK()
	m.brought("policies/automic")
	for _, h := range m.held {
		if string(h.entry.Policy.Document) != doc {
			t.Error("the document is not what was written")
		}
	}

	must(t, s.PutDocument(ctx, m.scope()+"/policies/automic.parts/2", map[string]any{"data": "AAAA"}))
	m.syncOK() // the head names another version of it
	m.brought()

	lost := strings.Replace(doc, "LAST", "LOST", 1)
	must(t, s.PutPolicyInParts(ctx, m.scope(), "automic", []byte(lost), 200<<10))
	must(t, s.Delete(ctx, "batch/metadata/"+m.scope()+"/policies/automic.parts/2"))
	r := m.sync()
	m.faults(r, map[string]string{"policies/automic": "automic.parts/2 has no version"})
	must(t, s.PutPolicyInParts(ctx, m.scope(), "automic", []byte(lost), 200<<10))
	m.syncOK()
	m.brought("policies/automic")
}
