package daemon_test

import (
	"crypto/rand"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
	"batchwarden/vault/vaulttest"
)

// password retrieves payroll's as the LSAM.
func password(t *testing.T, b *testbed.Bed) (string, testbed.Answer) {
	t.Helper()
	a := call(t, b, b.Accounts.LSAM, "POST", "/v1/batch-users/payroll/retrieve", retrieveBody())
	return string(a.Body), a
}

func TestSync(t *testing.T) {
	b := testbed.New(t, testbed.Options{})

	t.Run("OC10: a changed password counts for the next retrieve", func(t *testing.T) {
		before, a := password(t, b)
		if before != b.Passwords()[0] || a.Header.Get(wire.HeaderVersion) != "1" || a.Header.Get(wire.HeaderUsername) != b.Accounts.Payroll.Name {
			t.Fatalf("got %d octets with %v, want the first password", len(before), a.Header)
		}
		next := "pw-" + rand.Text()
		if err := b.PutBatchUser("payroll", next); err != nil {
			t.Fatal(err)
		}
		if s := synced(t, b); s.Changed != 1 || s.Removed != 0 {
			t.Errorf("sync: %+v, want one changed", s)
		}
		if got, a := password(t, b); got != next || a.Header.Get(wire.HeaderVersion) != "2" {
			t.Errorf("got version %s, want the new password, version 2", a.Header.Get(wire.HeaderVersion))
		}
		audited(t, b, map[string]string{"kind": "retrieve", "verdict": "allow", "batch_user": "payroll"})
		audited(t, b, map[string]string{"kind": "retrieve.ended", "code": "delivered", "batch_user": "payroll"})
	})
	t.Run("nothing changed is nothing done", func(t *testing.T) {
		if s := synced(t, b); s.Changed != 0 || s.Removed != 0 || len(s.Faults) != 0 {
			t.Errorf("sync: %+v", s)
		}
	})
	t.Run("an added and a deleted batch user", func(t *testing.T) {
		if err := b.PutDocument("extra", map[string]any{"username": b.Accounts.Reports.Name, "kind": "none"}); err != nil {
			t.Fatal(err)
		}
		synced(t, b)
		if u, ok := batchUsers(t, b)["extra"]; !ok || u.State != "ready" {
			t.Fatalf("after adding: %+v", batchUsers(t, b))
		}
		if err := b.DeleteBatchUser("extra"); err != nil {
			t.Fatal(err)
		}
		if s := synced(t, b); s.Removed != 1 {
			t.Errorf("sync: %+v, want one removed", s)
		}
		if _, ok := batchUsers(t, b)["extra"]; ok {
			t.Error("still there after its deletion")
		}
		records, err := b.Audit()
		if err != nil {
			t.Fatal(err)
		}
		written := func(list string) bool { // OC11: every change is audited, without its secret
			for _, r := range records {
				paths, _ := r[list].([]any)
				if slices.Contains(paths, any("machines/db01/batch_users/extra")) {
					return true
				}
			}
			return false
		}
		if !written("changed") || !written("removed") {
			t.Errorf("the addition and the removal are not both audited: %v", records)
		}
	})
	t.Run("a faulty document changes nothing and is named", func(t *testing.T) {
		if err := b.PutDocument("reports", map[string]any{"username": b.Accounts.Reports.Name, "kind": "password", "password": "p", "pasword": "x"}); err != nil {
			t.Fatal(err)
		}
		s := synced(t, b)
		if len(s.Faults) != 1 || !strings.HasSuffix(s.Faults[0].Path, "batch_users/reports") || !strings.Contains(s.Faults[0].Detail, "pasword") {
			t.Errorf("faults: %+v", s.Faults)
		}
		if u := batchUsers(t, b)["reports"]; u.Version != 1 || u.Fault == "" {
			t.Errorf("reports: %+v, want version 1 with the fault", u)
		}
	})
	t.Run("a faulty policy leaves the last good one in force, also across a restart", func(t *testing.T) {
		doc := testbed.Policy()
		doc["rolls"] = map[string]any{}
		if err := b.Vault.PutPolicy(t.Context(), testbed.Scope, testbed.Realm, doc); err != nil {
			t.Fatal(err)
		}
		if s := synced(t, b); len(s.Faults) == 0 {
			t.Errorf("sync: %+v, want the policy refused", s)
		}
		if job, _ := run(t, b, nil); job.State != wire.Exited {
			t.Errorf("launch by the last good policy: %+v", job)
		}
		if err := b.RestartDaemon(); err != nil {
			t.Fatal(err)
		}
		if job, _ := run(t, b, nil); job.State != wire.Exited {
			t.Errorf("after a restart: %+v", job)
		}
	})
	t.Run("OC7, AU4: a revoked grant denies the next launch", func(t *testing.T) {
		doc := testbed.Policy()
		doc["users"].(map[string]any)[testbed.User] = map[string]any{"roles": []string{}}
		if err := b.Vault.PutPolicy(t.Context(), testbed.Scope, testbed.Realm, doc); err != nil {
			t.Fatal(err)
		}
		synced(t, b) // reports is still faulty
		want(t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(nil)), 403, wire.PolicyDenied)
	})
}

func TestOffline(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	if err := b.StopVault(); err != nil {
		t.Fatal(err)
	}
	if s, err := b.Sync(); err != nil || s.Outcome != "vault.unreachable" || s.OfflineSince.IsZero() {
		t.Errorf("sync without Vault: %+v, %v", s, err)
	}
	serves := func(when string) {
		t.Helper()
		if job, _ := run(t, b, nil); job.State != wire.Exited {
			t.Errorf("%s: %+v", when, job)
		}
		if got, _ := password(t, b); got != b.Passwords()[0] {
			t.Errorf("%s: another password", when)
		}
		if s, err := b.Status(); err != nil || s.State != wire.StateOffline {
			t.Errorf("%s: state %q, %v, want offline", when, s.State, err)
		}
	}
	serves("offline")
	if err := b.RestartDaemon(); err != nil {
		t.Fatal(err)
	}
	serves("offline after a restart")

	if err := b.ResumeVault(); err != nil {
		t.Fatal(err)
	}
	if err := b.DeleteBatchUser("payroll"); err != nil {
		t.Fatal(err)
	}
	synced(t, b)
	want(t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(nil)), 404, wire.BatchUserUnknown)
	if err := b.StopVault(); err != nil {
		t.Fatal(err)
	}
	if err := b.RestartDaemon(); err != nil {
		t.Fatal(err)
	}
	want(t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(nil)), 404, wire.BatchUserUnknown)
	_, a := password(t, b)
	want(t, a, 404, wire.BatchUserUnknown)
}

// Each of these is an outage or a mistake at the other end: the daemon says
// which, stays up, removes nothing and serves what it has.
func TestVaultTrouble(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	secretID := filepath.Join(b.Etc, "secret_id")
	good, err := os.ReadFile(secretID)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(filepath.Join(b.Etc, "vault-ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	write := func(file string, text []byte) func() error {
		return func() error { return os.WriteFile(filepath.Join(b.Etc, file), text, 0o600) }
	}
	other := filepath.Join(t.TempDir(), "ca.pem")
	if _, _, err := vaulttest.NewCA(other); err != nil {
		t.Fatal(err)
	}
	otherCA, err := os.ReadFile(other)
	if err != nil {
		t.Fatal(err)
	}
	forget := func() error { return b.Vault.Root().Sys().RevokePrefixWithContext(t.Context(), "auth/approle") } // so that it has to log in
	for _, c := range []struct {
		name       string
		make, mend func() error
		code       string
	}{
		{"sealed", func() error { return b.Vault.Seal(t.Context()) }, func() error { return b.Vault.Unseal(t.Context()) }, "vault.sealed"},
		{"wrong CA", write("vault-ca.pem", otherCA), write("vault-ca.pem", ca), "vault.tls"},
		{"wrong secret_id", func() error {
			if err := forget(); err != nil {
				return err
			}
			return write("secret_id", []byte("11111111-2222-3333-4444-555555555555"))()
		}, write("secret_id", good), "vault.login_refused"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if err := c.make(); err != nil {
				t.Fatal(err)
			}
			s, err := b.Sync()
			if err != nil || s.Outcome != c.code {
				t.Errorf("sync: %+v, %v, want %s", s, err, c.code)
			}
			status, err := b.Status()
			if err != nil || status.State != wire.StateOffline {
				t.Errorf("state %q, %v, want offline", status.State, err)
			}
			found := false
			for _, p := range status.Problems {
				found = found || p.Code == c.code
			}
			if !found {
				t.Errorf("problems %+v do not name %s", status.Problems, c.code)
			}
			if job, _ := run(t, b, nil); job.State != wire.Exited {
				t.Errorf("launch meanwhile: %+v", job)
			}
			if err := c.mend(); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(10 * time.Second); ; {
				if s, err := b.Sync(); err == nil && s.Outcome == "ok" && s.Removed == 0 {
					break
				} else if time.Now().After(deadline) {
					t.Fatalf("mended, and still %+v, %v", s, err)
				}
			}
		})
	}
}

// What Vault has not confirmed for too long is refused, and the rest goes on.
func TestStaleness(t *testing.T) {
	b := testbed.New(t, testbed.Options{Edit: func(yaml string) string {
		return strings.Replace(yaml, "sync: {", "sync: {policy_max_stale: 3s, ", 1)
	}})
	grant(t, b, "users/short", "users/ended")
	for name, member := range map[string]map[string]any{
		"short": {"max_stale": "1s"},
		"ended": {"expires": time.Now().Add(-time.Minute).UTC().Format(time.RFC3339)},
	} {
		member["username"], member["kind"], member["names"] = b.Accounts.Payroll.Name, "none", map[string]string{"opcon": "users/" + name}
		if err := b.PutDocument(name, member); err != nil {
			t.Fatal(err)
		}
	}
	synced(t, b)
	launch := func(name string) testbed.Answer {
		t.Helper()
		return call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(map[string]any{"batch_user": name}))
	}
	want(t, launch("ended"), 422, wire.CredentialExpired)
	want(t, launch("short"), 201, "")
	if err := b.StopVault(); err != nil {
		t.Fatal(err)
	}
	becomes := func(name, code string) {
		t.Helper()
		for deadline := time.Now().Add(10 * time.Second); launch(name).Code() != code; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("%s does not become %s: %s", name, code, launch(name).Body)
			}
		}
	}
	becomes("short", wire.CredentialStale)
	want(t, launch("payroll"), 201, "")
	becomes("payroll", wire.PolicyStale)
	if a := call(t, b, testbed.Root, "GET", "/v1/health", nil); a.Status != 503 {
		t.Errorf("health with every policy stale: %d", a.Status)
	}
	if err := b.Daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := b.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	want(t, launch("payroll"), 422, wire.PolicyStale) // a restart makes nothing fresh
	if err := b.ResumeVault(); err != nil {
		t.Fatal(err)
	}
	synced(t, b)
	want(t, launch("payroll"), 201, "")
	want(t, launch("short"), 201, "")
}
