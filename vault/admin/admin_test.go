package admin_test

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net/http"
	"slices"
	"strings"
	"testing"

	"batchwarden/vault/admin"
	"batchwarden/vault/vaulttest"

	"github.com/hashicorp/vault/api"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// bench is a real server and its root's Admin.
type bench struct {
	*testing.T
	server *vaulttest.Server
	admin  *admin.Admin
}

func empty(t *testing.T) *bench {
	t.Helper()
	s, err := vaulttest.Start(t.Context(), vaulttest.Options{})
	must(t, err)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	b := &bench{T: t, server: s}
	b.admin = b.as(s.RootToken)
	return b
}

// start is empty and then init.
func start(t *testing.T) *bench {
	t.Helper()
	b := empty(t)
	_, err := b.admin.Init(t.Context())
	must(t, err)
	return b
}

func (b *bench) conf(token string) admin.Config {
	return admin.Config{Address: b.server.Address, Token: token, CAFile: b.server.CAFile}
}

func (b *bench) as(token string) *admin.Admin {
	b.Helper()
	a, err := admin.New(b.conf(token))
	must(b.T, err)
	return a
}

// dry is an Admin that must not write.
func (b *bench) dry() *admin.Admin {
	b.Helper()
	c := b.conf(b.server.RootToken)
	c.DryRun = true
	a, err := admin.New(c)
	must(b.T, err)
	return a
}

// lookups are the requests that Vault takes as writes and that change nothing.
var lookups = []string{"/secret-id-accessor/lookup"}

// writes returns what act asked of the server that is no mere look.
func (b *bench) writes(act func()) []string {
	b.Helper()
	before, err := b.server.Requests()
	must(b.T, err)
	act()
	after, err := b.server.Requests()
	must(b.T, err)
	return slices.DeleteFunc(slices.Clone(after[len(before):]), func(r string) bool {
		method, path, _ := strings.Cut(r, " ")
		return method == http.MethodGet || method == "LIST" || method == http.MethodHead ||
			slices.ContainsFunc(lookups, func(l string) bool { return strings.HasSuffix(path, l) })
	})
}

// change runs f as everything is run: dry first, which announces and writes
// nothing; then for real, which does what was announced; then again, and there
// is nothing left to do.
func (b *bench) change(f func(*admin.Admin) ([]admin.Step, error)) []admin.Step {
	b.Helper()
	var planned, done, again []admin.Step
	var err error
	if w := b.writes(func() { planned, err = f(b.dry()) }); len(w) > 0 {
		b.Errorf("a dry run wrote: %q", w)
	}
	must(b.T, err)
	done, err = f(b.as(b.server.RootToken))
	must(b.T, err)
	if len(done) == 0 || len(planned) == 0 {
		b.Errorf("steps: announced %v, done %v; want some", planned, done)
	}
	for _, s := range planned {
		if !slices.ContainsFunc(done, func(d admin.Step) bool { return d.Verb == s.Verb && d.Path == s.Path }) {
			b.Errorf("announced and not done: %v\ndone: %v", s, done)
		}
	}
	if w := b.writes(func() { again, err = f(b.as(b.server.RootToken)) }); len(w) > 0 || len(again) > 0 {
		b.Errorf("a second time: wrote %q, said %v; want nothing", w, again)
	}
	must(b.T, err)
	noWarning(b.T, done)
	return done
}

func noWarning(t *testing.T, steps []admin.Step) {
	t.Helper()
	for _, s := range steps {
		if s.Verb == admin.Warning {
			t.Errorf("a warning: %v", s)
		}
	}
}

func (b *bench) addMachine(m admin.Machine) admin.Credentials {
	b.Helper()
	c, steps, err := b.admin.AddMachine(b.Context(), m)
	must(b.T, err)
	noWarning(b.T, steps)
	return c
}

// unwrap exchanges a wrapped secret_id, as the machine does.
func (b *bench) unwrap(ctx context.Context, wrapped string) (string, error) {
	c, err := b.server.Client(wrapped)
	if err != nil {
		return "", err
	}
	res, err := c.Logical().UnwrapWithContext(ctx, "")
	if err != nil {
		return "", err
	}
	id, _ := res.Data["secret_id"].(string)
	if id == "" {
		return "", errors.New("no secret_id in what was wrapped")
	}
	return id, nil
}

// login is a token of the machine.
func (b *bench) login(c admin.Credentials) string {
	b.Helper()
	id, err := b.unwrap(b.Context(), c.WrappedSecretID)
	must(b.T, err)
	token, err := b.server.Login(b.Context(), c.RoleID, id)
	must(b.T, err)
	return token
}

// reads checks what the token may read below the mount.
func (b *bench) reads(token string, want map[string]int) {
	b.Helper()
	for at, status := range want {
		got, err := b.server.ReadAs(b.Context(), token, at)
		must(b.T, err)
		if got != status {
			b.Errorf("%s: got %d, want %d", at, got, status)
		}
	}
}

// at reads a document below the mount as root; nil when there is none.
func (b *bench) at(path string) map[string]any {
	b.Helper()
	s, err := b.server.Root().Logical().ReadWithContext(b.Context(), "batch/data/"+path)
	must(b.T, err)
	if s == nil || s.Data["data"] == nil {
		return nil
	}
	return s.Data["data"].(map[string]any)
}

func want(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("got %v, want %v", err, target)
	}
}

func user(password string) map[string]any {
	return map[string]any{"username": "payroll", "password": password}
}

func tokenOf(policies ...string) *api.TokenCreateRequest {
	return &api.TokenCreateRequest{Policies: policies}
}

func pemOf(c *x509.Certificate) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
}
