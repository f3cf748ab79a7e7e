package daemon_test

import (
	"strings"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
	"batchwarden/vault/vaulttest"
)

// reached asks until the answer is yes.
func reached(t *testing.T, d time.Duration, what string, yes func() bool) time.Duration {
	t.Helper()
	for begin := time.Now(); ; time.Sleep(5 * time.Millisecond) {
		if yes() {
			return time.Since(begin)
		}
		if time.Since(begin) > d {
			t.Fatalf("not within %v: %s", d, what)
		}
	}
}

// putIndex writes the machine's index, as batchwarden admin keeps it.
func putIndex(t *testing.T, b *testbed.Bed, scope string, versions map[string]int) {
	t.Helper()
	if err := b.Vault.PutIndex(t.Context(), scope, map[string]any{"batch_users": versions, "policies": map[string]int{testbed.Realm: 1}}); err != nil {
		t.Fatal(err)
	}
}

// A poll in which nothing has changed is one request for each scope and writes
// nothing; what the index says has changed is there within one interval.
func TestPolls(t *testing.T) {
	const interval = 500 * time.Millisecond
	b := testbed.New(t, testbed.Options{Interval: interval, Edit: func(yaml string) string {
		return strings.Replace(yaml, "sweep: 2s", "sweep: 1h", 1)
	}})
	putIndex(t, b, testbed.Scope, map[string]int{"payroll": 1, "reports": 1})
	if err := b.Vault.PutIndex(t.Context(), "platforms/unix", map[string]any{}); err != nil {
		t.Fatal(err)
	}
	status := func() wire.Status {
		t.Helper()
		s, err := b.Status()
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	quiet := func() {
		t.Helper()
		reached(t, 10*time.Second, "a poll of two requests", func() bool { s := status().Sync; return s.Outcome == "ok" && s.Requests == 2 })
	}
	quiet()
	before := status()
	reached(t, 10*time.Second, "three polls", func() bool {
		return status().Sync.LastAttempt.Sub(before.Sync.LastAttempt) > 2*interval
	})
	if after := status(); after.LocalVault.Bytes != before.LocalVault.Bytes || !after.Sync.LastSweep.Equal(before.Sync.LastSweep) || after.Sync.Requests != 2 {
		t.Errorf("before %+v %+v, after %+v %+v", before.Sync, before.LocalVault, after.Sync, after.LocalVault)
	}
	for version := 2; version < 7; version++ {
		text := next(t, b)
		putIndex(t, b, testbed.Scope, map[string]int{"payroll": version, "reports": 1})
		took := reached(t, 10*time.Second, "the next password", func() bool { got, _ := password(t, b); return got == text })
		t.Logf("version %d served after %v: %v beyond the interval", version, took, took-interval)
		if took > interval+2*time.Second { // a busy machine takes longer than the 50 ms of an idle one
			t.Errorf("version %d was there after %v, want it within %v", version, took, interval)
		}
	}
	quiet()
	if s := status().Sync; !s.LastSweep.Equal(before.Sync.LastSweep) {
		t.Errorf("a sweep at %v was needed for it", s.LastSweep)
	}
}

// Permission that is lost on one path, where everything else stays readable,
// takes that batch user away; lost on everything, it takes away nothing.
func TestPermissionLost(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	deny := func(paths ...string) {
		t.Helper()
		var rules []vaulttest.Rule
		for _, p := range paths {
			rules = append(rules, vaulttest.Rule{Path: p, Capabilities: []string{"deny"}})
		}
		if err := b.Vault.SetRules(t.Context(), testbed.Machine, rules...); err != nil {
			t.Fatal(err)
		}
	}
	deny("batch/data/"+testbed.Scope+"/*", "batch/metadata/"+testbed.Scope+"/*")
	if s, err := b.Sync(); err != nil || s.Outcome == "ok" || s.Removed != 0 {
		t.Errorf("lost on everything: %+v, %v", s, err)
	}
	if got, _ := password(t, b); got != b.Passwords()[0] {
		t.Error("lost on everything: the password is gone")
	}
	deny()
	synced(t, b)
	deny("batch/data/" + testbed.Scope + "/batch_users/payroll")
	if s := synced(t, b); s.Removed != 1 {
		t.Errorf("lost on one path's data: %+v", s)
	}
	_, a := password(t, b)
	want(t, a, 404, wire.BatchUserUnknown)
	if err := b.StopVault(); err != nil {
		t.Fatal(err)
	}
	if err := b.RestartDaemon(); err != nil {
		t.Fatal(err)
	}
	_, a = password(t, b)
	want(t, a, 404, wire.BatchUserUnknown)
	if err := b.ResumeVault(); err != nil {
		t.Fatal(err)
	}
	deny()
	synced(t, b)
	if got, _ := password(t, b); got != b.Passwords()[0] {
		t.Error("permission is back, and the password is not")
	}
}
