package remotetest

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"batchwarden/vault/errand"
	"batchwarden/vault/snapshot"
	"batchwarden/vault/vaulttest"
)

// sourced is a batch user whose password lies at path.
func sourced(path string) map[string]any {
	return map[string]any{"username": "u", "source": map[string]any{"path": path}}
}

// role is what a static role's engine answers.
func role(password string) map[string]any {
	return map[string]any{"username": "u", "password": canary + password, "ttl": 3600, "dn": "cn=u", "rotation_period": 86400,
		"last_password": canary + "old", "last_vault_rotation": "2026-01-01T00:00:00.5Z"}
}

func sources(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	must(t, s.MountSource(ctx, "ldap"))
	must(t, s.MountSource(ctx, "os"))
	m := newMachine(t, newSource, s, "db01", vaulttest.MachineOptions{})
	m.conf.Sources = []string{"ldap/static-cred/", "os/hosts/db01"}
	allow := func(paths ...string) { t.Helper(); must(t, s.AllowSources(ctx, "db01", paths...)) }
	allow("ldap", "os")
	put := func(at string, data map[string]any) { t.Helper(); must(t, s.PutSource(ctx, at, data)) }
	const ldap, host = "ldap/static-cred/payroll", "os/hosts/db01/accounts/x"
	put(ldap, role("one"))
	put(host, map[string]any{"password": canary + "host"})
	must(t, s.PutBatchUser(ctx, m.scope(), "payroll", sourced(ldap)))
	must(t, s.PutBatchUser(ctx, m.scope(), "x", sourced(host)))
	must(t, s.PutBatchUser(ctx, m.scope(), "plain", user("plain")))

	id := snapshot.ID{Scope: m.scope(), Kind: snapshot.BatchUserKind, Name: "payroll"}
	named := errand.Task{Only: []snapshot.ID{id}, Sources: []snapshot.ID{id}}
	turn := func(want int64) snapshot.Entry {
		t.Helper()
		e := m.held[id].entry
		if e.Turn != want || len(e.Mark) != 16 {
			t.Errorf("got turn %d with a mark of %d octets, want %d with 16", e.Turn, len(e.Mark), want)
		}
		return e
	}

	m.syncOK()
	m.password("payroll", "one")
	m.password("x", "host")
	e := turn(1)
	if left := time.Until(e.Rotates); left < 59*time.Minute || left > 61*time.Minute {
		t.Errorf("rotates in %v, want an hour", left)
	}
	if e := m.held[snapshot.ID{Scope: id.Scope, Kind: id.Kind, Name: "x"}].entry; !e.Rotates.IsZero() || e.Turn != 1 {
		t.Errorf("got turn %d, rotates %v where nothing was announced", e.Turn, e.Rotates)
	}
	if e := m.held[snapshot.ID{Scope: id.Scope, Kind: id.Kind, Name: "plain"}].entry; e.Turn != 0 || e.Mark != nil {
		t.Errorf("a password in the document has turn %d", e.Turn)
	}

	// The same password again: every sweep looks, and nothing is brought.
	mark := len(requests(t, s))
	m.syncOK()
	m.brought()
	if n := count(t, s, mark, "GET /v1/"+ldap); n != 1 {
		t.Errorf("a sweep read the source %d times", n)
	}
	m.asks(s, func() { m.run(named) }, "GET "+ldap, "GET batch/metadata/~/batch_users/payroll")
	m.brought()
	m.asks(s, func() { m.run(errand.Task{Sources: []snapshot.ID{id}}) }, append(metadataOf("payroll", "plain", "x"), ownIndexMeta, ownUsers, ownPolicies,
		unixIndexMeta, unixUsers, unixPolicies, "GET "+ldap, "GET "+host)...) // a small scope without index is swept

	// A rotation.
	put(ldap, role("two"))
	m.syncOK()
	m.brought("batch_users/payroll")
	m.password("payroll", "two")
	if second := turn(2); bytes.Equal(second.Mark, e.Mark) || second.Version != e.Version || !second.Created.Equal(e.Created) {
		t.Errorf("after a rotation: version %d of %s, the same mark: %v", second.Version, second.Created, bytes.Equal(second.Mark, e.Mark))
	}
	put(ldap, role("three"))
	m.run(named)
	m.password("payroll", "three")
	turn(3)

	// A new document with the same password is the same turn.
	must(t, s.PutBatchUser(ctx, m.scope(), "payroll", sourced(ldap)))
	m.syncOK()
	m.brought("batch_users/payroll")
	turn(3)

	refused := func(text string) {
		t.Helper()
		r := m.sync()
		m.faults(r, map[string]string{"batch_users/payroll": text})
		if r.Code != errand.OK || !r.Scopes[0].Read {
			t.Errorf("got %q (%s), read %v: a source is one document's trouble", r.Code, r.Detail, r.Scopes[0].Read)
		}
		for _, f := range r.Faults {
			if f.Version != 0 {
				t.Errorf("%s: a version is refused that may be good in a moment", f.Path)
			}
		}
		m.brought()
		m.password("payroll", "three")
		m.password("plain", "plain")
	}
	other := role("four")
	other["username"] = "somebody"
	put(ldap, other)
	refused("another username")
	put(ldap, map[string]any{"username": "u"})
	refused("password: is required")
	put(ldap, role(strings.Repeat("x", 1<<20-2048)))
	refused("password: longer than 1024")
	put(ldap, map[string]any{"password": 5})
	refused("password: must be a string")
	must(t, s.Delete(ctx, ldap))
	refused("nothing is there")
	put(ldap, role("three"))
	m.syncOK()
	m.brought()
	allow("os") // the right is lost
	refused(`"ldap/static-cred/payroll": read: `)
	m.run(named)
	m.brought()
	allow("ldap", "os")
	put(ldap, role("four"))
	m.syncOK()
	m.password("payroll", "four")
	turn(4)

	// Prefixes that were narrowed hold for what is known, too.
	conf := m.conf
	m.conf.Sources = []string{"os/hosts/db01"}
	r := m.sync()
	m.faults(r, map[string]string{"batch_users/payroll": `"ldap/static-cred/payroll" is not below any`})
	m.password("payroll", "four")
	m.conf = conf
	m.syncOK()

	// A password that moves back into the document.
	must(t, s.PutBatchUser(ctx, m.scope(), "payroll", user("own")))
	m.syncOK()
	m.password("payroll", "own")
	if h := m.held[id]; h.Turn != 0 || h.Mark != nil || h.Source != "" {
		t.Errorf("got %+v", h.Known)
	}
}

// metadataOf is what a sweep asks of each.
func metadataOf(list ...string) []string {
	for i := range list {
		list[i] = "GET batch/metadata/~/batch_users/" + list[i]
	}
	return list
}

// sourcesElsewhere names paths that no source may have.
func sourcesElsewhere(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	must(t, s.MountSource(ctx, "ldap"))
	m := newMachine(t, newSource, s, "db01", vaulttest.MachineOptions{})
	m.conf.Sources = []string{"ldap/static-cred"}
	must(t, s.AllowSources(ctx, "db01", "ldap", "sys", "identity"))
	must(t, s.PutSource(ctx, "ldap/static-cred-old/u", role("one")))
	must(t, s.PutSource(ctx, "ldap/static-cred/u", role("one")))
	bad := map[string]string{
		"other":   "kv/u",
		"longer":  "ldap/static-cred-old/u",
		"itself":  "ldap/static-cred",
		"above":   "ldap",
		"dots":    "ldap/static-cred/../static-cred-old/u",
		"empty":   "ldap/static-cred//u",
		"slash":   "/ldap/static-cred/u",
		"end":     "ldap/static-cred/u/",
		"query":   "ldap/static-cred/u?list=true",
		"escaped": "ldap/static-cred/%2e%2e/static-cred-old/u",
		"system":  "sys/policy",
		"login":   "auth/token/lookup-self",
		"ident":   "Identity/entity",
		"cubby":   "cubbyhole/response",
		"mount":   "batch/data/machines/db02/batch_users/u",
	}
	want := map[string]string{}
	for name, path := range bad {
		must(t, s.PutBatchUser(ctx, m.scope(), name, sourced(path)))
		want["batch_users/"+name] = `source: "` + path + `" `
	}
	must(t, s.PutBatchUser(ctx, m.scope(), "good", sourced("ldap/static-cred/u")))
	mark := len(requests(t, s))
	r := m.sync()
	m.faults(r, want)
	if r.Code != errand.OK || !r.Scopes[0].Read {
		t.Errorf("got %q (%s), read %v", r.Code, r.Detail, r.Scopes[0].Read)
	}
	m.holds("batch_users/good")
	for _, line := range requests(t, s)[mark:] {
		for _, path := range []string{"ldap/static-cred-old", "sys/policy", "kv/", "cubbyhole", "db02", "lookup-self"} {
			if strings.Contains(line, path) {
				t.Errorf("it was asked for all the same: %s", line)
			}
		}
	}
	m.conf.Sources = nil
	m.faults(m.sync(), func() map[string]string {
		want["batch_users/good"] = "is not below any"
		return want
	}())
	m.password("good", "one")
}
