package remotetest

import (
	"crypto/rand"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"batchwarden/vault/errand"
	"batchwarden/vault/remote"
	"batchwarden/vault/sealed"
	"batchwarden/vault/snapshot"
	"batchwarden/vault/vaulttest"
)

// The requests that logging in is made of.
const (
	approleLogin = "PUT /v1/auth/approle/login"
	renewal      = "PUT /v1/auth/token/renew-self"
	wrapLookup   = "PUT /v1/sys/wrapping/lookup"
	unwrapping   = "PUT /v1/sys/wrapping/unwrap"
)

// wrappedMachine is a machine whose secret_id file holds a wrapping token.
func wrappedMachine(t *testing.T, newSource NewSource, s *vaulttest.Server, name string, o vaulttest.MachineOptions) (*machine, string) {
	t.Helper()
	m := newMachine(t, newSource, s, name, o)
	token, err := s.NewWrappedSecretID(t.Context(), name, time.Minute)
	must(t, err)
	m.conf.Auth.SecretIDWrapped = true
	m.conf.Auth.SecretIDFile = file(t, "secret_id", token)
	must(t, s.PutBatchUser(t.Context(), m.scope(), "u", user("u")))
	return m, token
}

// rewrite puts other text into a file that the machine reads.
func rewrite(t *testing.T, path, text string) {
	t.Helper()
	must(t, os.WriteFile(path, []byte(text+"\n"), 0o600))
}

// costs runs do and checks how often it made requests that begin with the words.
func costs(t *testing.T, s *vaulttest.Server, want map[string]int, do func()) {
	t.Helper()
	mark := len(requests(t, s))
	do()
	for begins, n := range want {
		if got := count(t, s, mark, begins); got != n {
			t.Errorf("%d requests %s, want %d", got, begins, n)
		}
	}
}

// revoke ends every token that the method gave.
func revoke(t *testing.T, s *vaulttest.Server, method string) {
	t.Helper()
	if _, err := s.Root().Logical().WriteWithContext(t.Context(), "sys/leases/revoke-prefix/auth/"+method+"/login", nil); err != nil {
		t.Error(err)
	}
}

// quiet checks that a sync finds nothing to keep that is not kept already.
func (m *machine) quiet() {
	m.t.Helper()
	if r := m.syncOK(); !r.KeepToken || r.Token != nil {
		m.t.Error("a sync in which nothing happened gives a new session to keep")
	}
}

func wrappedSecretIDs(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	none := map[string]int{wrapLookup: 0, unwrapping: 0}

	t.Run("used_once", func(t *testing.T) {
		m, token := wrappedMachine(t, newSource, s, "once", vaulttest.MachineOptions{})
		costs(t, s, map[string]int{wrapLookup: 1, unwrapping: 1, approleLogin: 1}, func() { m.syncOK() })
		m.holds("batch_users/u")
		if _, err := s.Unwrap(ctx, token); err == nil {
			t.Error("the wrapping token can still be used")
		}
		costs(t, s, none, m.quiet)
		revoke(t, s, "approle")
		costs(t, s, map[string]int{wrapLookup: 0, unwrapping: 0, approleLogin: 1}, func() { m.syncOK() })
		must(t, os.Remove(m.conf.Auth.SecretIDFile)) // as a tidy operator does
		costs(t, s, none, m.quiet)
		m.forgets()
		if r := m.keeps(errand.Setup); !strings.Contains(r.Detail, "secret_id_file") {
			t.Errorf("got %q", r.Detail)
		}
	})
	t.Run("a_new_one_is_taken_up", func(t *testing.T) {
		m, _ := wrappedMachine(t, newSource, s, "renewed", vaulttest.MachineOptions{})
		m.syncOK()
		token, err := s.NewWrappedSecretID(ctx, "renewed", time.Minute)
		must(t, err)
		rewrite(t, m.conf.Auth.SecretIDFile, token)
		costs(t, s, map[string]int{wrapLookup: 1, unwrapping: 1, approleLogin: 1}, func() { m.syncOK() })
		costs(t, s, none, m.quiet)
	})
	t.Run("kept_before_the_login", func(t *testing.T) {
		m, _ := wrappedMachine(t, newSource, s, "ahead", vaulttest.MachineOptions{})
		p := newProxy(t, s)
		p.configure(m)
		p.damage(t, func(r *reply) { r.drop = strings.HasSuffix(r.request.URL.Path, "/login") })
		ahead := onlyAhead(m)
		if ahead == nil {
			t.Fatal("nothing was handed on before the login")
		}
		p.set(nil)
		m.token = ahead
		costs(t, s, none, func() { m.syncOK() })
	})
	t.Run("outage", func(t *testing.T) {
		m, _ := wrappedMachine(t, newSource, s, "outage", vaulttest.MachineOptions{})
		p := newProxy(t, s)
		p.configure(m)
		for _, c := range []struct {
			code string
			rule func(*reply)
		}{
			{errand.Unreachable, func(r *reply) { r.drop = true }},
			{errand.Error, func(r *reply) { r.status, r.body = 502, []byte("<html>") }},
			{errand.Limited, func(r *reply) { r.status, r.body = 429, []byte(`{"errors":[]}`) }},
			{errand.Answer, func(r *reply) { r.status, r.body = 403, []byte("<html>") }},
			{errand.LoginRefused, func(r *reply) { r.status, r.body = 404, []byte(`{"errors":["no handler for route"]}`) }},
		} {
			p.set(func(r *reply) {
				if strings.HasSuffix(r.request.URL.Path, "/wrapping/lookup") {
					c.rule(r)
				}
			})
			costs(t, s, map[string]int{unwrapping: 0, approleLogin: 0}, func() { m.keeps(c.code) })
		}
		p.set(nil)
		m.syncOK()
	})
	t.Run("an_answer_lost", func(t *testing.T) {
		m, _ := wrappedMachine(t, newSource, s, "lost", vaulttest.MachineOptions{})
		p := newProxy(t, s)
		p.configure(m)
		p.damage(t, func(r *reply) { r.drop = strings.HasSuffix(r.request.URL.Path, "/unwrap") })
		m.keeps(errand.Unreachable)
		p.set(nil)
		if r := m.keeps(errand.WrappedUsed); !strings.Contains(r.Detail, "asked for it once and got no answer") {
			t.Errorf("got %q", r.Detail)
		}
	})
	t.Run("used_by_a_thief", func(t *testing.T) { stolen(t, newSource, s) })
	t.Run("a_thief_while_all_is_well", func(t *testing.T) { stolenLater(t, newSource, s) })
	t.Run("wraps_something_else", func(t *testing.T) { foreign(t, newSource, s) })
	t.Run("its_role_is_gone", func(t *testing.T) {
		m, _ := wrappedMachine(t, newSource, s, "gone", vaulttest.MachineOptions{})
		m.syncOK()
		must(t, s.RemoveMachine(ctx, "gone"))
		revoke(t, s, "approle")
		for range 2 { // and what was unwrapped is kept meanwhile
			costs(t, s, map[string]int{wrapLookup: 0, unwrapping: 0, approleLogin: 1}, func() {
				if r := m.keeps(errand.LoginRefused); !strings.Contains(r.Detail, "unwrapped before is not taken") {
					t.Errorf("got %q", r.Detail)
				}
			})
		}
	})
}

// onlyAhead runs an errand that does not get to its end, and returns what it
// asked to be kept on the way.
func onlyAhead(m *machine) (ahead *sealed.Token) {
	m.t.Helper()
	m.generation++
	keys := new(errand.Keys)
	_, _ = rand.Read(keys.Batch[:]) // it does not return without having filled it
	_, err := m.newSource(m.t, m.conf).Sync(m.t.Context(), keys, &errand.Task{Generation: m.generation}, remote.Out{
		Put:   func(sealed.Record) error { return nil },
		Token: func(t sealed.Token) error { ahead = &t; return nil },
	})
	must(m.t, err)
	m.tokenKey = keys.Batch
	return ahead
}

// stolen is the story of a wrapping token that somebody else used first.
func stolen(t *testing.T, newSource NewSource, s *vaulttest.Server) {
	m, token := wrappedMachine(t, newSource, s, "stolen", vaulttest.MachineOptions{})
	if _, err := s.Unwrap(t.Context(), token); err != nil {
		t.Fatal(err)
	}
	costs(t, s, map[string]int{wrapLookup: 1, unwrapping: 0, approleLogin: 0}, func() {
		if r := m.keeps(errand.WrappedUsed); !strings.Contains(r.Detail, "used before") || strings.Contains(r.Detail, token) {
			t.Errorf("got %q", r.Detail)
		}
	})
	all := map[string]int{"": 0}
	costs(t, s, all, func() { m.keeps(errand.WrappedUsed) }) // never tried again
	costs(t, s, all, func() {
		if r := m.keeps(errand.WrappedUsed); !r.KeepToken {
			t.Error("what is known of the token is written anew every time")
		}
	})
	next, err := s.NewWrappedSecretID(t.Context(), "stolen", time.Minute)
	must(t, err)
	rewrite(t, m.conf.Auth.SecretIDFile, next)
	m.syncOK()
	m.password("u", "u")
}

// stolenLater is the same of the token for a secret_id that is to follow one in
// use: the theft is reported, and what Vault removes is removed all the same.
func stolenLater(t *testing.T, newSource NewSource, s *vaulttest.Server) {
	ctx := t.Context()
	m, _ := wrappedMachine(t, newSource, s, "later", vaulttest.MachineOptions{})
	must(t, s.PutBatchUser(ctx, m.scope(), "v", user("v")))
	m.syncOK()
	token, err := s.NewWrappedSecretID(ctx, "later", time.Minute)
	must(t, err)
	_, err = s.Unwrap(ctx, token)
	must(t, err)
	rewrite(t, m.conf.Auth.SecretIDFile, token)
	must(t, s.DeleteBatchUser(ctx, m.scope(), "v"))
	must(t, s.PutBatchUser(ctx, m.scope(), "u", user("new")))
	costs(t, s, map[string]int{wrapLookup: 1, unwrapping: 0, approleLogin: 0}, func() {
		if r := m.sync(); r.Code != errand.WrappedUsed {
			t.Errorf("got %q, %q", r.Code, r.Detail)
		}
	})
	m.holds("batch_users/u")
	m.password("u", "new")
	revoke(t, s, "approle")
	costs(t, s, map[string]int{wrapLookup: 0, unwrapping: 0, approleLogin: 1}, func() {
		if r := m.sync(); r.Code != errand.WrappedUsed || len(r.Scopes) == 0 {
			t.Errorf("got %q, %q, scopes %v", r.Code, r.Detail, r.Scopes)
		}
	})
	token, err = s.NewWrappedSecretID(ctx, "later", time.Minute)
	must(t, err)
	rewrite(t, m.conf.Auth.SecretIDFile, token)
	m.syncOK()
}

// foreign is the story of wrapping tokens that hold something else than a
// secret_id for us. They are left as they are.
func foreign(t *testing.T, newSource NewSource, s *vaulttest.Server) {
	ctx := t.Context()
	m, _ := wrappedMachine(t, newSource, s, "mine", vaulttest.MachineOptions{})
	_, _, err := s.AddMachine(ctx, "theirs", "unix")
	must(t, err)
	mine := m.conf.Auth
	for _, c := range []struct{ name, role, made string }{
		{"a_token", "", "auth/token/create"},
		{"anything", "", "sys/wrapping/wrap"},
		{"a_chosen_secret_id", "", "auth/approle/role/mine/custom-secret-id"},
		{"another_role's", "mine", "auth/approle/role/theirs/secret-id"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m.t = t
			token, err := s.Wrap(ctx, c.made, map[string]any{"secret_id": canary + c.name}, time.Minute)
			must(t, err)
			m.conf.Auth.Role = c.role
			m.conf.Auth.SecretIDFile = file(t, "secret_id", token)
			costs(t, s, map[string]int{wrapLookup: 1, unwrapping: 0, approleLogin: 0}, func() {
				if r := m.keeps(errand.WrappedUsed); !strings.Contains(r.Detail, c.made) {
					t.Errorf("got %q", r.Detail)
				}
			})
			costs(t, s, map[string]int{"": 0}, func() { m.keeps(errand.WrappedUsed) })
			if _, err := s.Unwrap(ctx, token); err != nil {
				t.Errorf("the token cannot be used any more: %v", err)
			}
		})
	}
	m.t, m.conf.Auth = t, mine
	m.conf.Auth.Role = "Mine" // names of roles are the same in every case
	m.syncOK()
}

// otherLogins are certificates, JWTs and namespaces.
func otherLogins(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	at := func(t *testing.T, name string, auth remote.Auth) *machine {
		t.Helper()
		must(t, s.PutBatchUser(ctx, "machines/"+name, "u", user(name)))
		return &machine{t: t, newSource: newSource, held: map[snapshot.ID]held{}, conf: remote.Config{
			Machine: name, Platforms: []string{"unix"}, Address: s.Address, CAFile: s.CAFile, Mount: vaulttest.Mount, Auth: auth}}
	}
	const certLogin, jwtLogin = "PUT /v1/auth/cert/login", "PUT /v1/auth/jwt/login"
	pair := func(t *testing.T, cert, key []byte, err error) remote.Auth {
		t.Helper()
		must(t, err)
		return remote.Auth{Method: remote.Cert, CertFile: file(t, "cert.pem", string(cert)), KeyFile: file(t, "key.pem", string(key))}
	}
	a, aKey, err := s.AddMachineCert(ctx, "a", "unix", vaulttest.MachineOptions{})
	must(t, err)
	t.Run("certificate", func(t *testing.T) {
		m := at(t, "a", pair(t, a, aKey, nil))
		costs(t, s, map[string]int{certLogin: 1}, func() { m.syncOK() })
		m.password("u", "a")
		costs(t, s, map[string]int{certLogin: 0}, m.quiet)
		cert, key, err := s.NewMachineCert("a", time.Hour)
		must(t, err)
		rewrite(t, m.conf.Auth.CertFile, string(cert))
		if r := m.keeps(errand.Setup); !strings.Contains(r.Detail, "does not match") { // in the middle of its rotation
			t.Errorf("got %q", r.Detail)
		}
		rewrite(t, m.conf.Auth.KeyFile, string(key))
		costs(t, s, map[string]int{certLogin: 1, renewal: 0}, func() { m.syncOK() })
		m.conf.Auth.Role = "a"
		m.forgets()
		m.syncOK()
	})
	t.Run("certificate_of_another_machine", func(t *testing.T) {
		auth := pair(t, a, aKey, nil)
		_, _, err := s.AddMachineCert(ctx, "b", "unix", vaulttest.MachineOptions{})
		must(t, err)
		m := at(t, "b", auth)
		if r := m.keeps(errand.Identity); !strings.Contains(r.Detail, `"a"`) {
			t.Errorf("got %q", r.Detail)
		}
		m.conf.Auth.Role = "b"
		m.keeps(errand.LoginRefused)
		m.holds()
	})
	t.Run("certificate_that_expired", func(t *testing.T) {
		cert, key, err := s.NewMachineCert("a", -time.Hour)
		m := at(t, "a", pair(t, cert, key, err))
		if r := m.keeps(errand.LoginRefused); !strings.Contains(r.Detail, "the certificate expired on") {
			t.Errorf("got %q", r.Detail)
		}
	})
	t.Run("JWT", func(t *testing.T) {
		jwt, err := s.AddMachineJWT(ctx, "j", "unix", vaulttest.MachineOptions{})
		must(t, err)
		m := at(t, "j", remote.Auth{Method: remote.JWT, Role: "j", JWTFile: file(t, "jwt", jwt)})
		costs(t, s, map[string]int{jwtLogin: 1}, func() { m.syncOK() })
		m.password("u", "j")
		next, err := s.NewMachineJWT("j", time.Hour)
		must(t, err)
		rewrite(t, m.conf.Auth.JWTFile, next)
		costs(t, s, map[string]int{jwtLogin: 0}, m.quiet) // the token is as good as before
		late, err := s.NewMachineJWT("j", -time.Hour)
		must(t, err)
		rewrite(t, m.conf.Auth.JWTFile, late)
		costs(t, s, map[string]int{jwtLogin: 0}, m.quiet)
		revoke(t, s, "jwt")
		if r := m.keeps(errand.LoginRefused); !strings.Contains(r.Detail, "expired") {
			t.Errorf("got %q", r.Detail)
		}
		rewrite(t, m.conf.Auth.JWTFile, next)
		costs(t, s, map[string]int{jwtLogin: 1}, func() { m.syncOK() })

		other, err := s.AddMachineJWT(ctx, "k", "unix", vaulttest.MachineOptions{})
		must(t, err)
		m.forgets()
		rewrite(t, m.conf.Auth.JWTFile, other)
		m.keeps(errand.LoginRefused) // not this role's
		m.conf.Auth.Role = "k"
		m.keeps(errand.Identity)
	})
	t.Run("namespace", func(t *testing.T) { namespaces(t, newSource, s) })
}

// namespaces has the same machine, document and mounts in a namespace and
// outside, each with its own content.
func namespaces(t *testing.T, newSource NewSource, s *vaulttest.Server) {
	ctx := t.Context()
	in, err := s.Namespace(ctx, "ops")
	must(t, err)
	must(t, in.Init(ctx))
	out := newMachine(t, newSource, s, "ns", vaulttest.MachineOptions{})
	must(t, s.PutBatchUser(ctx, "machines/ns", "u", user("outside")))
	m := newMachine(t, newSource, in, "ns", vaulttest.MachineOptions{})
	must(t, in.PutBatchUser(ctx, "machines/ns", "u", user("inside")))
	must(t, in.PutBatchUser(ctx, "machines/ns", "v", user("inside")))
	p := newProxy(t, s)
	p.configure(m)
	m.conf.Namespace = "ops"
	p.set(func(r *reply) {
		if got := r.request.Header.Get("X-Vault-Namespace"); got != "ops" {
			t.Errorf("%s is asked in namespace %q", r.request.URL.Path, got)
		}
	})
	m.syncOK()
	m.holds("batch_users/u", "batch_users/v")
	m.password("u", "inside")
	p.set(nil)
	out.syncOK()
	out.holds("batch_users/u")
	out.password("u", "outside")
	m.conf.Namespace = ""
	m.keeps(errand.LoginRefused) // nor does its token go there

	m.conf.Namespace = "ops"
	token, err := in.NewWrappedSecretID(ctx, "ns", time.Minute)
	must(t, err)
	m.conf.Auth.SecretIDWrapped, m.conf.Auth.SecretIDFile = true, file(t, "secret_id", token)
	m.syncOK()
	token, err = s.NewWrappedSecretID(ctx, "ns", time.Minute) // same path, other namespace
	must(t, err)
	rewrite(t, m.conf.Auth.SecretIDFile, token)
	m.forgets()
	if r := m.sync(); r.Code == errand.OK {
		t.Error("a secret_id of another namespace is taken")
	}
}

// rotation changes what lies on disk under a machine that goes on.
func rotation(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	m := settled(t, newSource, s, vaulttest.MachineOptions{})
	pem, err := os.ReadFile(s.CAFile)
	must(t, err)
	m.conf.CAFile = file(t, "ca.pem", string(pem))

	t.Run("CA", func(t *testing.T) {
		m.t = t
		m.syncOK()
		must(t, s.RotateCA(ctx))
		m.keeps(errand.TLS)
		pem, err := os.ReadFile(s.CAFile)
		must(t, err)
		rewrite(t, m.conf.CAFile, "no certificate")
		m.keeps(errand.Setup)
		rewrite(t, m.conf.CAFile, string(pem))
		m.syncOK()
		m.conf.ServerName = "localhost" // another of the certificate's names
		m.syncOK()
	})
	t.Run("role_id_and_secret_id", func(t *testing.T) {
		m.t = t
		role, secret, err := s.AddMachine(ctx, "other", "unix")
		must(t, err)
		token := m.token
		rewrite(t, m.conf.Auth.RoleIDFile, role)
		m.keeps(errand.LoginRefused) // half rotated
		rewrite(t, m.conf.Auth.SecretIDFile, secret)
		m.keeps(errand.Identity)
		must(t, os.Remove(m.conf.Auth.SecretIDFile))
		m.keeps(errand.Setup)
		role, secret, err = s.AddMachine(ctx, "db01", "unix")
		must(t, err)
		rewrite(t, m.conf.Auth.RoleIDFile, role)
		rewrite(t, m.conf.Auth.SecretIDFile, secret)
		costs(t, s, map[string]int{approleLogin: 1}, func() { m.syncOK() })
		if token == m.token {
			t.Error("the token of before is kept")
		}
	})
	t.Run("token_file", func(t *testing.T) {
		m.t = t
		approle := m.conf.Auth
		fresh := func() string {
			role, secret, err := s.AddMachine(ctx, "db01", "unix")
			must(t, err)
			token, err := s.Login(ctx, role, secret)
			must(t, err)
			return token
		}
		m.conf.Auth = remote.Auth{Method: remote.TokenFile, TokenFile: file(t, "token", fresh())}
		m.syncOK()
		revoke(t, s, "approle")
		m.keeps(errand.LoginRefused)
		rewrite(t, m.conf.Auth.TokenFile, fresh())
		m.syncOK()
		m.conf.Auth = approle
	})
	t.Run("renewal_and_login_refused", func(t *testing.T) { refusedRenewal(t, newSource, s) })
}

// refusedRenewal has a token that is to be renewed, and can be neither that nor
// replaced. It goes on until its end, and what fails is said.
func refusedRenewal(t *testing.T, newSource NewSource, s *vaulttest.Server) {
	// Under what a run may need, so that every run wants a better one.
	m := newMachine(t, newSource, s, "brief", vaulttest.MachineOptions{TokenTTL: time.Minute, TokenMax: time.Minute})
	must(t, s.PutBatchUser(t.Context(), m.scope(), "u", user("u")))
	m.syncOK()
	p := newProxy(t, s)
	m.token = nil
	p.configure(m)
	m.syncOK()
	p.damage(t, func(r *reply) {
		if r.request.Method != http.MethodGet {
			r.status, r.body = 400, []byte(`{"errors":["not today"]}`)
		}
	})
	must(t, s.PutBatchUser(t.Context(), m.scope(), "u", user("new")))
	r := m.sync()
	if r.Code != errand.LoginRefused || !strings.Contains(r.Detail, "not today; the token in use ends at") {
		t.Errorf("got %q, %q", r.Code, r.Detail)
	}
	m.password("u", "new")
	revoke(t, s, "approle")
	costs(t, s, map[string]int{approleLogin: 1}, func() { m.keeps(errand.LoginRefused) })
	p.set(nil)
	m.syncOK()
}
