package remotetest

import (
	"slices"
	"strings"
	"testing"

	"batchwarden/vault/errand"
	"batchwarden/vault/snapshot"
	"batchwarden/vault/vaulttest"
)

// asks checks what one errand asks of the server, in any order. What is about
// tokens is left out.
func (m *machine) asks(s *vaulttest.Server, do func(), want ...string) {
	m.t.Helper()
	mark := len(requests(m.t, s))
	do()
	var got []string
	for _, line := range requests(m.t, s)[mark:] {
		line = strings.Replace(line, " /v1/", " ", 1)
		line = strings.Replace(line, "/machines/"+m.conf.Machine+"/", "/~/", 1)
		if !strings.Contains(line, " auth/") && !strings.Contains(line, " identity/") {
			got = append(got, line)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		m.t.Errorf("asked:\n\t%s\nwant:\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

// askedBack checks how often the last sync asked for what is known.
func (m *machine) askedBack(n int) {
	m.t.Helper()
	if m.asked != n {
		m.t.Errorf("asked %d times for what is known, want %d", m.asked, n)
	}
}

const (
	ownIndexMeta  = "GET batch/metadata/~/index"
	ownIndex      = "GET batch/data/~/index"
	unixIndexMeta = "GET batch/metadata/platforms/unix/index"
	unixIndex     = "GET batch/data/platforms/unix/index"
	ownUsers      = "GET batch/metadata/~/batch_users?list=true"
	ownPolicies   = "GET batch/metadata/~/policies?list=true"
	unixUsers     = "GET batch/metadata/platforms/unix/batch_users?list=true"
	unixPolicies  = "GET batch/metadata/platforms/unix/policies?list=true"
	rights        = "PUT sys/capabilities-self"
	u00Meta       = "GET batch/metadata/~/batch_users/u00"
	u00           = "GET batch/data/~/batch_users/u00"
)

// hints writes an index of batch users with these versions, u00 first, and the
// machine's policy.
func hints(t *testing.T, s *vaulttest.Server, scope string, versions ...int) {
	t.Helper()
	users := map[string]any{}
	for i, v := range versions {
		users[names(len(versions))[i]] = v
	}
	must(t, s.PutIndex(t.Context(), scope, map[string]any{"batch_users": users, "policies": map[string]any{"opcon": 1}}))
}

// polled is a poll in which nothing goes wrong and nothing is confirmed.
func (m *machine) polled() {
	m.t.Helper()
	r := m.poll()
	if r.Code != errand.OK || len(r.Faults) != 0 {
		m.t.Errorf("got %q, %q, faults %v", r.Code, r.Detail, r.Faults)
	}
	for _, s := range r.Scopes {
		if s.Read {
			m.t.Errorf("a poll confirms %s", s.Scope)
		}
	}
}

func polls(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	m := newMachine(t, newSource, s, "db01", vaulttest.MachineOptions{})
	for _, n := range names(3) {
		must(t, s.PutBatchUser(ctx, m.scope(), n, user(n)))
	}
	must(t, s.PutPolicy(ctx, m.scope(), "opcon", policy("jdoe")))
	hints(t, s, m.scope(), 1, 1, 1)
	must(t, s.PutIndex(ctx, "platforms/unix", map[string]any{"batch_users": map[string]any{}, "policies": map[string]any{}}))
	story := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			m.t = t
			f(t)
		})
	}
	story("a_first_sync_reads_each_once", func(t *testing.T) {
		m.asks(s, func() { m.syncOK() },
			ownIndexMeta, ownIndex, ownUsers, ownPolicies, unixIndexMeta, unixUsers, unixPolicies,
			u00, "GET batch/data/~/batch_users/u01", "GET batch/data/~/batch_users/u02", "GET batch/data/~/policies/opcon")
		m.holds("batch_users/u00", "batch_users/u01", "batch_users/u02", "policies/opcon")
	})
	story("nothing_changed_is_one_request_a_scope", func(t *testing.T) {
		for range 2 {
			m.asks(s, m.polled, ownIndexMeta, unixIndexMeta)
			m.brought()
			m.askedBack(0)
		}
	})
	story("one_changed_password", func(t *testing.T) {
		must(t, s.PutBatchUser(ctx, m.scope(), "u00", user("two")))
		m.asks(s, m.polled, ownIndexMeta, unixIndexMeta) // nobody said so
		hints(t, s, m.scope(), 2, 1, 1)
		m.asks(s, m.polled, ownIndexMeta, ownIndex, u00Meta, u00, unixIndexMeta)
		m.brought("batch_users/u00")
		m.askedBack(1)
		m.password("u00", "two")
		m.asks(s, m.polled, ownIndexMeta, unixIndexMeta)
	})
	story("takes_one_connection", func(t *testing.T) {
		p := newProxy(t, s)
		direct := m.conf
		p.configure(m)
		defer func() { m.conf = direct }()
		for _, change := range []func(){
			func() {},
			func() {
				must(t, s.PutBatchUser(ctx, m.scope(), "u00", user("three")))
				hints(t, s, m.scope(), 3, 1, 1)
			},
		} {
			change()
			before := p.begun.Load()
			m.polled()
			if n := p.begun.Load() - before; n != 1 {
				t.Errorf("%d connections", n)
			}
		}
		m.password("u00", "three")
	})
	story("a_new_one", func(t *testing.T) {
		must(t, s.PutBatchUser(ctx, m.scope(), "u03", user("u03")))
		hints(t, s, m.scope(), 3, 1, 1, 1)
		m.asks(s, m.polled, ownIndexMeta, ownIndex, "GET batch/data/~/batch_users/u03", rights, unixIndexMeta)
		m.brought("batch_users/u03")
	})
	story("the_index_is_only_a_hint", func(t *testing.T) {
		hints(t, s, m.scope(), 9, 1, 1, 1) // there is no such version
		m.asks(s, m.polled, ownIndexMeta, ownIndex, u00Meta, unixIndexMeta)
		m.brought()
		must(t, s.PutIndex(ctx, m.scope(), map[string]any{"batch_users": map[string]any{"../u00": 1, "u00": 3, "u01": 1, "u02": 1, "u03": 1, "nobody": 4}, "policies": map[string]any{"opcon": 1}}))
		m.asks(s, m.polled, ownIndexMeta, ownIndex, "GET batch/data/~/batch_users/nobody", rights, unixIndexMeta)
		m.asks(s, m.polled, ownIndexMeta, unixIndexMeta)
	})
	story("what_is_missing_in_it_is_looked_for", func(t *testing.T) {
		must(t, s.DeleteBatchUser(ctx, m.scope(), "u03"))
		hints(t, s, m.scope(), 3, 1) // u02 is still there
		r := m.poll()
		if len(r.Removed) != 1 || r.Code != errand.OK {
			t.Errorf("got %q, removed %v", r.Code, r.Removed)
		}
		m.holds("batch_users/u00", "batch_users/u01", "batch_users/u02", "policies/opcon")
		m.asks(s, m.polled, ownIndexMeta, unixIndexMeta)
	})
	story("a_refused_version_is_read_once", func(t *testing.T) {
		must(t, s.PutBatchUser(ctx, m.scope(), "u01", map[string]any{"username": "u", "passwort": canary}))
		hints(t, s, m.scope(), 3, 2, 1)
		m.asks(s, func() {
			m.faults(m.poll(), map[string]string{"batch_users/u01": "passwort: unknown member"})
		}, ownIndexMeta, ownIndex, "GET batch/metadata/~/batch_users/u01", "GET batch/data/~/batch_users/u01", unixIndexMeta)
		m.asks(s, m.polled, ownIndexMeta, unixIndexMeta)
		mark := len(requests(t, s))
		m.faults(m.sync(), map[string]string{"batch_users/u01": "passwort: unknown member"})
		if n := count(t, s, mark, "GET /v1/batch/data/machines/db01/batch_users/u01"); n != 0 {
			t.Errorf("it was read %d times again", n)
		}
		must(t, s.PutBatchUser(ctx, m.scope(), "u01", user("good")))
		m.syncOK()
		m.password("u01", "good")
	})
	story("an_index_that_is_not_understood_is_none", func(t *testing.T) {
		for _, x := range []map[string]any{{"format": 2, "batch_users": map[string]any{}}, {"batch_users": []string{"u00"}}} {
			must(t, s.PutIndex(ctx, m.scope(), x))
			must(t, s.PutBatchUser(ctx, m.scope(), "u00", user("again")))
			m.poll() // so few documents are looked at in every run
			m.brought("batch_users/u00")
		}
		must(t, s.DeleteDocument(ctx, m.scope()+"/index"))
		must(t, s.PutBatchUser(ctx, m.scope(), "u00", user("once more")))
		m.poll()
		m.brought("batch_users/u00")
		m.password("u00", "once more")
	})
	story("only_what_the_task_names", func(t *testing.T) {
		must(t, s.PutBatchUser(ctx, m.scope(), "u00", user("five")))
		must(t, s.PutBatchUser(ctx, m.scope(), "u01", user("five")))
		only := errand.Task{Only: []snapshot.ID{{Scope: m.scope(), Kind: snapshot.BatchUserKind, Name: "u00"}, {Scope: "machines/other", Kind: snapshot.BatchUserKind, Name: "x"}, {Scope: m.scope(), Kind: "?", Name: "u01"}}}
		m.asks(s, func() {
			if r := m.run(only); r.Code != errand.OK || len(r.Scopes) != 1 || r.Scopes[0].Read {
				t.Errorf("got %q, scopes %+v", r.Code, r.Scopes)
			}
		}, u00Meta, u00)
		m.password("u00", "five")
		m.asks(s, func() { m.run(only) }, u00Meta)
		must(t, s.DestroyBatchUser(ctx, m.scope(), "u00"))
		if r := m.run(only); r.Code != errand.OK || len(r.Removed) != 1 { // by the list that had to be asked for
			t.Errorf("got %q, removed %v", r.Code, r.Removed)
		}
		m.password("u01", "five")
	})
	story("a_forbidden_scope_shows_in_a_poll", func(t *testing.T) {
		hints(t, s, m.scope())
		m.syncOK()
		must(t, s.SetRules(ctx, "db01", vaulttest.Rule{Path: "batch/metadata/" + m.scope() + "/*", Capabilities: []string{"deny"}}))
		before := len(m.held)
		if r := m.poll(); r.Code != errand.Forbidden || len(r.Removed) != 0 || len(m.held) != before {
			t.Errorf("got %q, removed %v", r.Code, r.Removed)
		}
		must(t, s.SetRules(ctx, "db01"))
	})
}

// manyWithoutIndex is a scope that is too large to be looked at in every run.
func manyWithoutIndex(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	m := newMachine(t, newSource, s, "db01", vaulttest.MachineOptions{})
	for _, n := range names(51) {
		must(t, s.PutBatchUser(ctx, m.scope(), n, user(n)))
	}
	m.asks(s, func() {
		mark := len(requests(t, s))
		m.syncOK()
		if n := count(t, s, mark, "GET /v1/batch/data/machines/db01/batch_users/"); n != 51 {
			t.Errorf("%d documents were read, want 51", n)
		}
	}, append(documents(51), ownIndexMeta, ownUsers, ownPolicies, unixIndexMeta, unixUsers, unixPolicies)...)
	must(t, s.PutBatchUser(ctx, m.scope(), "u00", user("two")))
	m.asks(s, func() { m.poll() }, ownIndexMeta, unixIndexMeta, unixUsers, unixPolicies)
	m.brought()
	must(t, s.DestroyBatchUser(ctx, m.scope(), "u50"))
	m.poll()
	m.syncOK()
	m.brought("batch_users/u00")
	if len(m.held) != 50 {
		t.Errorf("holds %d", len(m.held))
	}
	m.asks(s, func() { m.poll() }, append(metadata(50), ownIndexMeta, ownUsers, ownPolicies, unixIndexMeta, unixUsers, unixPolicies)...)
}

func documents(n int) []string { return prefixed("GET batch/data/~/batch_users/", n) }
func metadata(n int) []string  { return prefixed("GET batch/metadata/~/batch_users/", n) }

func prefixed(prefix string, n int) []string {
	list := names(n)
	for i := range list {
		list[i] = prefix + list[i]
	}
	return list
}
