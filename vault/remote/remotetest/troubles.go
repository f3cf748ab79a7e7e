package remotetest

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"batchwarden/vault/errand"
	"batchwarden/vault/snapshot"
	"batchwarden/vault/vaulttest"
)

// settled is a machine that holds three batch users and a policy.
func settled(t *testing.T, newSource NewSource, s *vaulttest.Server, o vaulttest.MachineOptions) *machine {
	t.Helper()
	m := newMachine(t, newSource, s, "db01", o)
	for _, n := range names(3) {
		must(t, s.PutBatchUser(t.Context(), m.scope(), n, user(n)))
	}
	must(t, s.PutPolicy(t.Context(), m.scope(), "opcon", policy("jdoe")))
	m.syncOK()
	return m
}

// forgets makes the machine log in anew.
func (m *machine) forgets() { m.token = nil }

func serverTroubles(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	m := settled(t, newSource, s, vaulttest.MachineOptions{})
	conf := m.conf
	both := func(code string) { // with the token it has, and with none
		m.t.Helper()
		token := m.token
		m.keeps(code)
		m.forgets()
		m.keeps(code)
		m.token = token
	}
	story := func(name string, f func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			m.t = t
			f(t)
			m.t, m.conf = t, conf
			m.syncOK()
			m.brought()
			if len(m.held) != 4 {
				t.Errorf("holds %d documents afterwards, want 4", len(m.held))
			}
		})
	}
	story("down", func(t *testing.T) {
		must(t, s.Stop())
		both(errand.Unreachable)
		must(t, s.Restart(ctx))
	})
	story("sealed", func(t *testing.T) {
		must(t, s.Seal(ctx))
		both(errand.Sealed)
		must(t, s.Unseal(ctx))
	})
	story("unknown_name", func(t *testing.T) {
		m.conf.Address = "https://vault.invalid:8200"
		m.keeps(errand.Unreachable)
	})
	story("not_a_server_of_TLS", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer l.Close()
		go func() { // ends with the listener
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = c.Write([]byte("HTTP/1.1 200 OK\r\n\r\n")) // the other end hangs up
				c.Close()
			}
		}()
		m.conf.Address = "https://" + l.Addr().String()
		m.keeps(errand.TLS)
	})
	story("wrong_CA", func(t *testing.T) {
		m.conf.CAFile = filepath.Join(t.TempDir(), "other.pem")
		_, _, err := vaulttest.NewCA(m.conf.CAFile)
		must(t, err)
		both(errand.TLS)
	})
	story("wrong_server_name", func(t *testing.T) {
		m.conf.ServerName = "vault.example.com"
		both(errand.TLS)
	})
	story("wrong_secret_id", func(t *testing.T) {
		m.conf.Auth.SecretIDFile = file(t, "secret_id", canary+"no-such-secret")
		both(errand.LoginRefused)
	})
	story("missing_secret_id", func(t *testing.T) {
		m.conf.Auth.SecretIDFile = filepath.Join(t.TempDir(), "nothing")
		m.keeps(errand.Setup)
	})
	story("no_such_auth_mount", func(t *testing.T) {
		m.conf.Auth.Mount = "elsewhere"
		m.keeps(errand.LoginRefused)
	})
	story("no_such_mount", func(t *testing.T) {
		m.conf.Mount = "elsewhere"
		m.keeps(errand.Forbidden) // a machine has no rights there, and Vault says no more
	})
	story("unknown_method", func(t *testing.T) {
		m.conf.Auth.Method = "kerberos"
		if r := m.keeps(errand.Setup); !strings.Contains(r.Detail, "kerberos") {
			t.Errorf("got %q", r.Detail)
		}
	})
	// Last: what the mount held is lost with it.
	t.Run("mount_gone", func(t *testing.T) {
		m.t = t
		must(t, s.Unmount(ctx))
		both(errand.Missing)
	})
	t.Run("mount_new_and_empty", func(t *testing.T) {
		m.t = t
		must(t, s.Init(ctx))
		m.syncOK()
		m.holds()
	})
}

func damagedAnswers(t *testing.T, newSource NewSource) {
	s := server(t)
	m := settled(t, newSource, s, vaulttest.MachineOptions{})
	p := newProxy(t, s)
	p.configure(m)
	m.forgets()
	for _, c := range []struct {
		name string
		code string
		rule func(*reply)
	}{
		{"500_on_all", errand.Error, func(r *reply) { r.status, r.body = 500, []byte(`{"errors":["internal error"]}`) }},
		{"502_from_a_proxy", errand.Error, func(r *reply) { r.status, r.body = 502, []byte(`<html>`+canary) }},
		{"500_on_lists", errand.Error, func(r *reply) {
			if r.request.URL.RawQuery != "" {
				r.status, r.body = 500, []byte(`{"errors":["storage"]}`)
			}
		}},
		{"429", errand.Limited, func(r *reply) { r.status, r.body = 429, []byte(`{"errors":["too many"]}`) }},
		{"half_of_all", errand.Answer, func(r *reply) { r.cut = true }},
		{"half_of_what_is_below", errand.Answer, func(r *reply) { r.cut = r.below() }},
		{"half_a_JSON", errand.Answer, func(r *reply) { r.body = r.body[:len(r.body)/2] }},
		{"half_a_JSON_below", errand.Answer, func(r *reply) {
			if r.below() {
				r.body = r.body[:len(r.body)/2]
			}
		}},
		{"a_login_page", errand.Answer, func(r *reply) { r.status, r.body = 200, []byte(`<html>`) }},
		{"other_JSON", errand.Answer, func(r *reply) { r.status, r.body = 200, []byte(`{"hello":"world"}`) }},
		{"other_JSON_below", errand.Answer, func(r *reply) {
			if r.below() {
				r.status, r.body = 200, []byte(`{"data":{}}`)
			}
		}},
		{"403_pages_below", errand.Answer, func(r *reply) {
			if r.below() {
				r.status, r.body = 403, []byte(`<html>`)
			}
		}},
		{"404_pages_below", errand.Answer, func(r *reply) {
			if r.below() {
				r.status, r.body = 404, []byte(`not found`)
			}
		}},
		{"404_with_a_text_below", errand.Missing, func(r *reply) {
			if r.below() {
				r.status, r.body = 404, []byte(`{"errors":["no handler for route"]}`)
			}
		}},
		{"404_on_metadata", errand.Missing, func(r *reply) {
			if r.below() && r.request.URL.RawQuery == "" {
				r.status, r.body = 404, []byte(`{"errors":[]}`)
			}
		}},
		{"hang_up", errand.Unreachable, func(r *reply) { r.drop = true }},
		{"hang_up_below", errand.Unreachable, func(r *reply) { r.drop = r.below() }},
		{"403_on_lists", errand.Forbidden, func(r *reply) {
			if r.request.URL.RawQuery != "" {
				r.status, r.body = 403, []byte(`{"errors":["permission denied"]}`)
			}
		}},
		{"403_on_metadata", errand.Forbidden, func(r *reply) {
			if r.below() && r.request.URL.RawQuery == "" {
				r.status, r.body = 403, []byte(`{"errors":["permission denied"]}`)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m.t = t
			p.damage(t, c.rule)
			m.keeps(c.code)
			m.forgets()
			m.keeps(c.code)
			if len(m.held) != 4 {
				t.Errorf("holds %d documents afterwards, want 4", len(m.held))
			}
		})
	}
	t.Run("then_all_is_well", func(t *testing.T) {
		m.t = t
		m.syncOK()
		m.brought()
	})
	t.Run("one_document_without_an_answer", func(t *testing.T) {
		m.t = t
		must(t, s.PutBatchUser(t.Context(), m.scope(), "u00", user("new")))
		must(t, s.PutBatchUser(t.Context(), m.scope(), "u01", user("new")))
		p.damage(t, func(r *reply) {
			if strings.HasSuffix(r.request.URL.Path, "data/machines/db01/batch_users/u00") {
				r.cut = true
			}
		})
		r := m.keeps(errand.Answer)
		m.brought("batch_users/u01")
		m.faults(r, map[string]string{"batch_users/u00": "half an answer"})
		m.password("u00", "u00")
		p.set(nil)
		m.syncOK()
		m.password("u00", "new")
	})
}

func lostPermissions(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	m := settled(t, newSource, s, vaulttest.MachineOptions{})
	deny := func(paths ...string) {
		t.Helper()
		var rules []vaulttest.Rule
		for _, p := range paths {
			rules = append(rules, vaulttest.Rule{Path: p, Capabilities: []string{"deny"}})
		}
		must(t, s.SetRules(ctx, "db01", rules...))
	}
	own := "batch/metadata/" + m.scope()
	deny(own + "/batch_users/")
	m.keeps(errand.Forbidden)
	deny(own + "/batch_users/u00")
	m.syncOK()
	m.holds("batch_users/u01", "batch_users/u02", "policies/opcon")
	deny(own+"/batch_users/u00", own+"/batch_users/u01", own+"/batch_users/u02")
	m.keeps(errand.Forbidden)
	deny(own + "/*")
	m.keeps(errand.Forbidden)
	deny(own+"/*", "batch/data/"+m.scope()+"/*", "auth/token/lookup-self")
	m.keeps(errand.LoginRefused) // it cannot be told from a token that is not valid
	deny()
	m.syncOK()
	m.holds("batch_users/u00", "batch_users/u01", "batch_users/u02", "policies/opcon")

	must(t, s.RemoveMachine(ctx, "db01"))
	m.keeps(errand.LoginRefused)
	m.forgets()
	m.keeps(errand.LoginRefused)
}

func tokens(t *testing.T, newSource NewSource) {
	const login, renewal = "PUT /v1/auth/approle/login", "PUT /v1/auth/token/renew-self"
	ctx, s := t.Context(), server(t)
	expect := func(t *testing.T, m *machine, logins, renewals int) {
		t.Helper()
		mark := len(requests(t, s))
		m.syncOK()
		if l, r := count(t, s, mark, login), count(t, s, mark, renewal); l != logins || r != renewals {
			t.Errorf("%d logins and %d renewals, want %d and %d", l, r, logins, renewals)
		}
	}
	revoke := func(t *testing.T) { // every token that a machine has
		if _, err := s.Root().Logical().WriteWithContext(ctx, "sys/leases/revoke-prefix/auth/approle/login", nil); err != nil {
			t.Error(err)
		}
	}
	t.Run("used_again", func(t *testing.T) {
		m := newMachine(t, newSource, s, "long", vaulttest.MachineOptions{})
		expect(t, m, 1, 0)
		expect(t, m, 0, 0)
		if r := m.syncOK(); time.Until(r.TokenExpires) < 50*time.Minute || time.Until(r.TokenExpires) > 61*time.Minute {
			t.Errorf("the token is said to expire at %s", r.TokenExpires)
		}
		m.tokenKey[0]++ // it does not open: as good as none
		expect(t, m, 1, 0)
		secret, err := s.NewSecretID(ctx, "long")
		must(t, err)
		must(t, os.WriteFile(m.conf.Auth.SecretIDFile, []byte(secret), 0o600))
		expect(t, m, 1, 0) // a rotated secret_id is taken up
		expect(t, m, 0, 0)
	})
	t.Run("how_long_the_secret_id_is_good", func(t *testing.T) {
		m := newMachine(t, newSource, s, "Bounded", vaulttest.MachineOptions{})
		issue := func(bounds map[string]any) {
			res, err := s.Root().Logical().WriteWithContext(ctx, "auth/approle/role/Bounded/secret-id", bounds)
			must(t, err)
			must(t, os.WriteFile(m.conf.Auth.SecretIDFile, []byte(res.Data["secret_id"].(string)), 0o600))
		}
		if r := m.syncOK(); r.SecretID == nil || *r.SecretID != (errand.SecretID{}) {
			t.Errorf("one without bounds: %+v", r.SecretID)
		}
		issue(map[string]any{"ttl": "2h", "num_uses": 3})
		for range 2 { // the second does not log in
			if r := m.syncOK(); r.SecretID == nil || r.SecretID.Gone || r.SecretID.Uses != 2 || time.Until(r.SecretID.Expires).Round(time.Hour) != 2*time.Hour {
				t.Errorf("one with bounds: %+v", r.SecretID)
			}
		}
		issue(map[string]any{"num_uses": 1})
		if r := m.syncOK(); r.SecretID == nil || !r.SecretID.Gone {
			t.Errorf("one that was used up: %+v", r.SecretID)
		}
		must(t, s.SetRules(ctx, "Bounded", vaulttest.Rule{Path: "auth/approle/role/Bounded/secret-id/lookup", Capabilities: []string{"deny"}}))
		issue(nil)
		if r := m.syncOK(); r.SecretID != nil {
			t.Errorf("where Vault does not tell: %+v", r.SecretID)
		}
	})
	t.Run("renewed", func(t *testing.T) {
		m := newMachine(t, newSource, s, "short", vaulttest.MachineOptions{TokenTTL: 160 * time.Second})
		expect(t, m, 1, 0)
		expect(t, m, 0, 0)
		m = newMachine(t, newSource, s, "last", vaulttest.MachineOptions{TokenTTL: 152 * time.Second, TokenMax: time.Hour})
		expect(t, m, 1, 0)
		time.Sleep(2500 * time.Millisecond) // the server's clock is the real one
		expect(t, m, 0, 1)
	})
	t.Run("not_renewable_any_more", func(t *testing.T) {
		m := newMachine(t, newSource, s, "ends", vaulttest.MachineOptions{TokenTTL: 20 * time.Second, TokenMax: 20 * time.Second})
		expect(t, m, 1, 0)
		expect(t, m, 1, 1)
	})
	t.Run("revoked", func(t *testing.T) {
		m := newMachine(t, newSource, s, "revoked", vaulttest.MachineOptions{})
		for _, n := range names(3) {
			must(t, s.PutBatchUser(ctx, m.scope(), n, user(n)))
		}
		m.syncOK()
		revoke(t)
		must(t, s.PutBatchUser(ctx, m.scope(), "u00", user("new")))
		expect(t, m, 1, 0)
		m.holds("batch_users/u00", "batch_users/u01", "batch_users/u02")
		m.password("u00", "new")
	})
	t.Run("revoked_in_the_middle", func(t *testing.T) {
		m := newMachine(t, newSource, s, "middle", vaulttest.MachineOptions{})
		for _, n := range names(30) {
			must(t, s.PutBatchUser(ctx, m.scope(), n, user(n)))
		}
		p := newProxy(t, s)
		p.configure(m)
		m.syncOK()
		p.damage(t, func(r *reply) {
			// Answers about metadata are good until then, so that fewer than half are forbidden.
			if r.nth == 1 && strings.HasSuffix(r.request.URL.Path, "metadata/machines/middle/batch_users/u14") {
				revoke(t)
			}
		})
		m.syncOK()
		if len(m.held) != 30 {
			t.Errorf("holds %d documents, want 30", len(m.held))
		}

		for _, n := range names(12) {
			must(t, s.PutBatchUser(ctx, m.scope(), n, user("new")))
		}
		first := true
		p.set(func(r *reply) {
			if first && strings.Contains(r.request.URL.Path, "/data/machines/middle/batch_users/") {
				first = false
				revoke(t)
			}
		})
		if r := m.sync(); r.Code != errand.LoginRefused || len(r.Removed) != 0 {
			t.Errorf("got %q, removed %v", r.Code, r.Removed)
		}
		m.syncOK()
		if len(m.held) != 30 {
			t.Errorf("holds %d documents, want 30", len(m.held))
		}
		m.password("u11", "new")
	})
	t.Run("from_a_file", func(t *testing.T) {
		m := newMachine(t, newSource, s, "file", vaulttest.MachineOptions{})
		must(t, s.PutBatchUser(ctx, m.scope(), "u", user("u")))
		role, err := os.ReadFile(m.conf.Auth.RoleIDFile)
		must(t, err)
		secret, err := os.ReadFile(m.conf.Auth.SecretIDFile)
		must(t, err)
		token, err := s.Login(ctx, strings.TrimSpace(string(role)), strings.TrimSpace(string(secret)))
		must(t, err)
		m.conf.Auth.Method, m.conf.Auth.TokenFile = "token_file", file(t, "token", token)
		expect(t, m, 0, 0)
		m.holds("batch_users/u")
		m.conf.Auth.TokenFile = file(t, "token", canary+"wrong")
		m.keeps(errand.LoginRefused)
	})
}

func identity(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	b := newMachine(t, newSource, s, "b", vaulttest.MachineOptions{})
	a := newMachine(t, newSource, s, "a", vaulttest.MachineOptions{})
	must(t, s.PutBatchUser(ctx, "machines/a", "u", user("a")))
	must(t, s.PutBatchUser(ctx, "machines/b", "u", user("b")))
	a.syncOK()
	b.syncOK()
	a.password("u", "a")
	b.password("u", "b")

	a.conf.Machine = "b" // a's login on a machine that takes itself for b
	a.held = b.held
	if r := a.keeps(errand.Identity); !strings.Contains(r.Detail, `"a"`) || len(r.Scopes) != 0 {
		t.Errorf("got %q, scopes %v", r.Detail, r.Scopes)
	}
	a.brought()
	a.forgets()
	a.keeps(errand.Identity)

	// An identity that says nothing is not held against anybody; the Vault policy decides.
	c := newMachine(t, newSource, s, "c", vaulttest.MachineOptions{Metadata: map[string]string{"platform": "unix"}})
	if r := c.keeps(errand.Forbidden); len(r.Scopes) == 0 {
		t.Error("without metadata no scope was tried")
	}
}

func olderBackup(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	m := settled(t, newSource, s, vaulttest.MachineOptions{})
	must(t, s.Stop())
	backup := t.TempDir()
	data := filepath.Join(s.Dir, "data")
	must(t, os.CopyFS(backup, os.DirFS(data)))
	must(t, s.Restart(ctx))

	must(t, s.PutBatchUser(ctx, m.scope(), "u00", user("after the backup")))
	m.syncOK()

	must(t, s.Stop())
	must(t, os.RemoveAll(data))
	must(t, os.CopyFS(data, os.DirFS(backup)))
	must(t, s.Restart(ctx))
	m.forgets()
	for _, look := range []func() *errand.Report{m.sync, m.sync} {
		r := look()
		m.faults(r, map[string]string{"batch_users/u00": "older: Vault has version 1"})
		m.brought()
		m.password("u00", "after the backup")
	}
	// What was written before the backup goes on, and what is written after it.
	must(t, s.PutBatchUser(ctx, m.scope(), "u01", user("after the restoring")))
	m.sync()
	m.brought("batch_users/u01")
	known := m.held[snapshot.ID{Scope: m.scope(), Kind: snapshot.BatchUserKind, Name: "u00"}]
	eventually(t, func() bool { return time.Since(known.Created) > time.Second }) // the server says whole seconds
	must(t, s.PutBatchUser(ctx, m.scope(), "u00", user("after the restoring")))
	m.syncOK() // version 2 again, but created later
	m.password("u00", "after the restoring")
}
