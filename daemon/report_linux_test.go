package daemon_test

import (
	"crypto/rand"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// problems are the codes in status.
func problems(t *testing.T, b *testbed.Bed) (codes []string) {
	t.Helper()
	s, err := b.Status()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range s.Problems {
		codes = append(codes, p.Code)
	}
	return codes
}

func reportOn(t *testing.T, b *testbed.Bed, version int64, outcome string) wire.Reported {
	t.Helper()
	return read[wire.Reported](t, call(t, b, b.Accounts.LSAM, "POST", "/v1/batch-users/payroll/report", wire.Report{Version: version, Outcome: outcome}))
}

// next gives payroll another password in Vault.
func next(t *testing.T, b *testbed.Bed) string {
	t.Helper()
	text := "pw-" + rand.Text()
	if err := b.PutBatchUser("payroll", text); err != nil {
		t.Fatal(err)
	}
	return text
}

func TestReport(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	kept := func(when string) {
		t.Helper()
		if _, a := password(t, b); a.Status != 422 || a.Code() != wire.CredentialRejected {
			t.Errorf("%s: retrieve: %d %s", when, a.Status, a.Code())
		}
		if u := batchUsers(t, b)["payroll"]; u.State != "rejected" {
			t.Errorf("%s: %+v", when, u)
		}
		if codes := problems(t, b); !slices.Contains(codes, wire.CredentialRejected) {
			t.Errorf("%s: problems %q", when, codes)
		}
		if job, _ := run(t, b, nil); job.State != wire.Exited {
			t.Errorf("%s: a launch, which needs no password: %+v", when, job)
		}
	}
	given := func(when, want, version string) {
		t.Helper()
		if got, a := password(t, b); got != want || a.Header.Get(wire.HeaderVersion) != version {
			t.Errorf("%s: %d, version %q, want %s", when, a.Status, a.Header.Get(wire.HeaderVersion), version)
		}
		if u := batchUsers(t, b)["payroll"]; u.State != "ready" || strconv.FormatInt(u.Version, 10) != version {
			t.Errorf("%s: %+v", when, u)
		}
	}
	t.Run("Vault has a newer one, which nobody has synced", func(t *testing.T) {
		password(t, b)
		second := next(t, b)
		if r := reportOn(t, b, 1, wire.Rejected); !r.Newer || r.Version != 2 {
			t.Errorf("%+v", r)
		}
		given("at once", second, "2")
		if r := reportOn(t, b, 1, wire.Rejected); !r.Newer || r.Version != 2 {
			t.Errorf("the old one again: %+v", r)
		}
		audited(t, b, map[string]string{"kind": "report", "verdict": "allow", "code": "rejected", "batch_user": "payroll", "client": "lsam"})
	})
	t.Run("Vault has none", func(t *testing.T) {
		if r := reportOn(t, b, 2, wire.Rejected); r.Newer || r.Version != 2 {
			t.Errorf("%+v", r)
		}
		before, err := b.Vault.Requests()
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			reportOn(t, b, 2, wire.Rejected)
		}
		after, err := b.Vault.Requests()
		if err != nil {
			t.Fatal(err)
		}
		if len(after) != len(before) {
			t.Errorf("Vault was asked again: %q", after[len(before):])
		}
		kept("rejected")
	})
	t.Run("a restart without Vault keeps it", func(t *testing.T) {
		if err := b.StopVault(); err != nil {
			t.Fatal(err)
		}
		if err := b.RestartDaemon(); err != nil {
			t.Fatal(err)
		}
		kept("restarted")
		if err := b.ResumeVault(); err != nil {
			t.Fatal(err)
		}
	})
	t.Run("a newer one ends it", func(t *testing.T) {
		third := next(t, b)
		synced(t, b)
		given("third", third, "3")
	})
	t.Run("somebody finds it accepted", func(t *testing.T) {
		reportOn(t, b, 3, wire.Rejected)
		kept("rejected")
		if r := reportOn(t, b, 3, wire.Accepted); r.Newer || r.Version != 3 {
			t.Errorf("%+v", r)
		}
		given("accepted", b.Passwords()[len(b.Passwords())-1], "3")
	})
	t.Run("an operator's sync gives it another chance", func(t *testing.T) {
		reportOn(t, b, 3, wire.Rejected)
		kept("rejected")
		synced(t, b)
		given("synced", b.Passwords()[len(b.Passwords())-1], "3")
	})
	t.Run("who may report, and what", func(t *testing.T) {
		post := func(as testbed.Account, name string, body any) testbed.Answer {
			t.Helper()
			return call(t, b, as, "POST", "/v1/batch-users/"+name+"/report", body)
		}
		good := wire.Report{Version: 3, Outcome: wire.Rejected}
		want(t, post(testbed.Root, "payroll", good), 403, wire.CallerForbidden)
		want(t, post(b.Accounts.Stranger, "payroll", good), 403, wire.CallerUnknown)
		want(t, post(b.Accounts.LSAM, "nobody", good), 404, wire.BatchUserUnknown)
		want(t, post(b.Accounts.LSAM, "payroll", wire.Report{Version: 3, Outcome: "locked"}), 400, wire.RequestInvalid)
		want(t, post(b.Accounts.LSAM, "payroll", wire.Report{Outcome: wire.Rejected}), 400, wire.RequestInvalid)
		want(t, post(b.Accounts.LSAM, "payroll", map[string]any{"version": 3, "outcome": "rejected", "x": 1}), 400, wire.RequestInvalid)
		given("after all that", b.Passwords()[len(b.Passwords())-1], "3")
	})
}

// A password that lies elsewhere in Vault, in a stand-in for an engine of static
// LDAP roles, reaches callers when it turns, without anybody asking.
func TestSourceTurns(t *testing.T) {
	b := testbed.New(t, testbed.Options{Edit: func(yaml string) string {
		return strings.Replace(yaml, "sync: {", "sync: {sources: [ldap/static-cred], ", 1)
	}})
	ctx := t.Context()
	if err := b.Vault.MountSource(ctx, "ldap"); err != nil {
		t.Fatal(err)
	}
	if err := b.Vault.AllowSources(ctx, testbed.Machine, "ldap"); err != nil {
		t.Fatal(err)
	}
	turn := func(text string, ttl int) {
		t.Helper()
		if err := b.Vault.PutSource(ctx, "ldap/static-cred/payroll", map[string]any{"username": b.Accounts.Payroll.Name, "password": text, "ttl": ttl}); err != nil {
			t.Fatal(err)
		}
	}
	turn("pw-first-turn", 3)
	if err := b.PutDocument("payroll", map[string]any{
		"username": b.Accounts.Payroll.Name, "retrieve": true, "names": map[string]string{testbed.Realm: "users/payroll"},
		"source": map[string]string{"path": "ldap/static-cred/payroll"},
	}); err != nil {
		t.Fatal(err)
	}
	if s := synced(t, b); len(s.Faults) > 0 {
		t.Fatalf("faults: %+v", s.Faults)
	}
	got, a := password(t, b)
	in, err := strconv.Atoi(a.Header.Get(wire.HeaderRotatesIn))
	if got != "pw-first-turn" || a.Header.Get(wire.HeaderVersion) != "1" || err != nil || in < 0 || in > 3 {
		t.Fatalf("%d, %v", a.Status, a.Header)
	}
	if u := batchUsers(t, b)["payroll"]; time.Until(u.Rotates) > 3*time.Second || time.Since(u.Rotates) > time.Minute {
		t.Errorf("it rotates at %s", u.Rotates)
	}
	turn("pw-second-turn", 1000)
	for deadline := time.Now().Add(15 * time.Second); ; time.Sleep(20 * time.Millisecond) { // the next poll is an hour away
		if got, a = password(t, b); got == "pw-second-turn" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("the second turn does not come: %d %v", a.Status, a.Header)
		}
	}
	if in, err := strconv.Atoi(a.Header.Get(wire.HeaderRotatesIn)); a.Header.Get(wire.HeaderVersion) != "2" || err != nil || in < 900 || in > 1000 {
		t.Errorf("%v", a.Header)
	}
	turn("pw-third-turn", 1000)
	if r := reportOn(t, b, 2, wire.Rejected); !r.Newer || r.Version != 3 {
		t.Errorf("a rejected one reads its source: %+v", r)
	}
	if got, _ := password(t, b); got != "pw-third-turn" {
		t.Error("not the third turn")
	}
}
