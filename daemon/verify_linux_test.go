package daemon_test

import (
	"crypto/rand"
	"errors"
	"os"
	"strings"
	"testing"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
	"batchwarden/platform/memscan"
)

// verifyBed is a bed whose accounts have passwords, and a PAM service that tells a witness of every attempt.
type verifyBed struct {
	*testbed.Bed
	t       *testing.T
	witness string
}

func newVerifyBed(t *testing.T) *verifyBed {
	t.Helper()
	b := &verifyBed{Bed: testbed.New(t, testbed.Options{}), t: t}
	dir := b.Root + "/pam"
	b.witness = dir + "/witness"
	const unix = "auth required pam_unix.so nodelay\n"
	err := os.Mkdir(dir, 0o755)
	for file, text := range map[string]string{ // /etc is the tests' own
		dir + "/tell":            "#!/bin/sh\necho $PAM_USER $PAM_RUSER >>" + b.witness + "\n",
		"/etc/pam.d/bw-verify":   "auth required pam_exec.so quiet " + dir + "/tell\n" + unix,
		"/etc/pam.d/bw-trusting": "auth sufficient pam_rootok.so\n" + unix,
		"/etc/pam.d/login":       unix,
	} {
		err = errors.Join(err, os.WriteFile(file, []byte(text), 0o755))
	}
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *verifyBed) root(command ...string) {
	b.t.Helper()
	if r := b.Command(testbed.Root, command...); r.Code != 0 {
		b.t.Fatal(r.Err)
	}
}

// put gives a batch user of the account another password in Vault, and syncs.
func (b *verifyBed) put(name string, of testbed.Account, password, service string) {
	b.t.Helper()
	if err := b.PutDocument(name, map[string]any{
		"username": of.Name, "password": password, "pam": service, "retrieve": true, "names": map[string]string{testbed.Realm: "users/" + name},
	}); err != nil {
		b.t.Fatal(err)
	}
	synced(b.t, b.Bed)
}

// host sets the account's password on the host.
func (b *verifyBed) host(of testbed.Account, password string) {
	b.t.Helper()
	if r := b.CommandIn(testbed.Root, []byte(of.Name+":"+password), "chpasswd"); r.Code != 0 {
		b.t.Fatal(r.Err)
	}
}

func (b *verifyBed) verify(name string) wire.Verified {
	b.t.Helper()
	return read[wire.Verified](b.t, call(b.t, b.Bed, testbed.Root, "POST", "/v1/batch-users/"+name+"/verify", nil))
}

// attempts is how often PAM was asked.
func (b *verifyBed) attempts() int {
	b.t.Helper()
	text, err := os.ReadFile(b.witness)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		b.t.Fatal(err)
	}
	return strings.Count(string(text), "\n")
}

// is verifies and wants that outcome, words in the reason, and so many attempts.
func (b *verifyBed) is(when, name, outcome, code, words string, attempts int) wire.Verified {
	b.t.Helper()
	before := b.attempts()
	v := b.verify(name)
	if v.Outcome != outcome || v.Code != code || !strings.Contains(v.Reason, words) || b.attempts()-before != attempts {
		b.t.Errorf("%s: got %+v after %d attempts, want %s %s %q after %d", when, v, b.attempts()-before, outcome, code, words, attempts)
	}
	return v
}

func TestVerify(t *testing.T) {
	b := newVerifyBed(t)
	payroll := b.Accounts.Payroll
	right, wrong := "pw-"+rand.Text(), "pw-"+rand.Text()
	b.host(payroll, right)
	b.put("v", payroll, right, "bw-verify")

	t.Run("the right password, once", func(t *testing.T) {
		first := b.is("first", "v", wire.Accepted, "", "", 1)
		if first.Version != 1 || first.Username != payroll.Name || first.Checked.IsZero() {
			t.Errorf("got %+v", first)
		}
		if text, err := os.ReadFile(b.witness); string(text) != payroll.Name+" root\n" {
			t.Errorf("PAM was told %q, %v", text, err)
		}
		r := audited(t, b.Bed, map[string]string{"kind": "verify", "verdict": "allow", "batch_user": "v", "username": payroll.Name})
		audited(t, b.Bed, map[string]string{"kind": "verify.ended", "code": "accepted", "decision_id": r.Text("decision_id")})
		again := b.is("again", "v", wire.Accepted, "", "is not tried again", 0)
		if !again.Checked.Equal(first.Checked) {
			t.Errorf("checked %s, at first %s", again.Checked, first.Checked)
		}
		if err := errors.Join(b.RestartDaemon(), b.RestartLauncher(), b.WaitOnline()); err != nil {
			t.Fatal(err)
		}
		b.is("after a restart", "v", wire.Accepted, "", "version 1 was tried before", 0)
	})
	t.Run("a wrong one opens the breaker", func(t *testing.T) {
		b.put("v", payroll, wrong, "bw-verify")
		b.is("version 2", "v", wire.Rejected, wire.CredentialRejected, "pam: password: ", 1)
		if u := batchUsers(t, b.Bed)["v"]; u.State != "rejected" {
			t.Errorf("got %+v", u)
		}
		want(t, call(t, b.Bed, b.Accounts.LSAM, "POST", "/v1/batch-users/v/retrieve", retrieveBody()), 422, wire.CredentialRejected)
		b.is("the breaker is open", "v", wire.NotChecked, wire.CredentialRejected, "reported as rejected", 0)
		synced(t, b.Bed) // which closes it
		b.is("closed by an operator", "v", wire.Rejected, "", "is not tried again", 0)
		b.put("v", payroll, right, "bw-verify")
		b.is("version 3", "v", wire.Accepted, "", "", 1)
	})
	t.Run("the newer one is fetched", func(t *testing.T) {
		b.put("w", payroll, wrong, "bw-verify")
		if err := b.PutDocument("w", map[string]any{"username": payroll.Name, "password": right, "pam": "bw-verify", "retrieve": true}); err != nil {
			t.Fatal(err)
		}
		b.is("version 1", "w", wire.Rejected, wire.CredentialRejected, "Vault has version 2, which is in force now", 1)
		b.is("version 2", "w", wire.Accepted, "", "", 1)
	})
	t.Run("the service of login", func(t *testing.T) {
		b.put("plain", payroll, right, "")
		b.is("none is named", "plain", wire.Accepted, "", "", 0) // another witness
	})

	t.Run("nothing is tried", func(t *testing.T) {
		reports := b.Accounts.Reports
		b.host(reports, right)
		b.put("r", reports, right, "bw-verify")
		shadow := strings.Split(string(b.Command(testbed.Root, "getent", "shadow", reports.Name).Out), ":")[1]
		for _, c := range []struct {
			when          string
			before, after []string
			code, words   string
		}{
			{"locked", []string{"usermod", "-L", reports.Name}, []string{"usermod", "-U", reports.Name}, wire.AccountLocked, "locked"},
			{"without a password", []string{"usermod", "-p", "*", reports.Name}, []string{"usermod", "-p", shadow, reports.Name}, wire.AccountLocked, "no password"},
			{"expired", []string{"chage", "-E", "1", reports.Name}, []string{"chage", "-E", "-1", reports.Name}, wire.AccountExpired, "expired"},
			{"the password has expired", []string{"chage", "-d", "0", reports.Name}, []string{"chage", "-d", "2026-01-01", reports.Name}, wire.AccountExpired, "has to be changed"},
		} {
			b.root(c.before...)
			v := b.is(c.when, "r", wire.NotChecked, c.code, c.words, 0)
			if !v.Checked.IsZero() {
				t.Errorf("%s: %+v", c.when, v)
			}
			b.root(c.after...)
			audited(t, b.Bed, map[string]string{"kind": "verify.ended", "code": "not_checked", "batch_user": "r"})
		}
		ownLimits(t, b.Bed, "deny_users: ["+reports.Name+"]")
		b.is("outside limits.yaml", "r", wire.NotChecked, wire.LimitsRefused, "deny_users", 0)
		ownLimits(t, b.Bed, "")
		if err := os.Rename(b.Bin+"/batchwarden-pam", b.Bin+"/away"); err != nil {
			t.Fatal(err)
		}
		b.is("no helper", "r", wire.NotChecked, "launch.failed", "batchwarden-pam", 0)
		if err := os.Rename(b.Bin+"/away", b.Bin+"/batchwarden-pam"); err != nil {
			t.Fatal(err)
		}
		b.is("all mended", "r", wire.Accepted, "", "", 1)

		b.put("trusting", payroll, wrong, "bw-trusting")
		b.is("a service that trusts root", "trusting", wire.NotChecked, "launch.failed", "without asking for a password", 0)
		b.put("nowhere", payroll, right, "bw-none")
		b.is("no such service", "nowhere", wire.NotChecked, "launch.failed", `there is no service "bw-none"`, 0)
		b.put("ghost", testbed.Account{Name: "bw-ghost"}, right, "bw-verify")
		b.is("no such account", "ghost", wire.NotChecked, wire.AccountMissing, `"bw-ghost" does not exist`, 0)
		b.put("super", testbed.Root, right, "bw-verify")
		b.is("root", "super", wire.NotChecked, wire.LimitsRefused, "is root", 0)
		if err := b.PutDocument("keyless", map[string]any{"username": payroll.Name, "kind": "none"}); err != nil {
			t.Fatal(err)
		}
		synced(t, b.Bed)
		b.is("kind none", "keyless", wire.NotChecked, wire.CredentialMissing, "kind none", 0)
		audited(t, b.Bed, map[string]string{"kind": "verify", "verdict": "deny", "code": wire.CredentialMissing, "batch_user": "keyless"})
	})
	t.Run("who may, and what", func(t *testing.T) {
		const path = "/v1/batch-users/v/verify"
		want(t, call(t, b.Bed, b.Accounts.LSAM, "POST", path, nil), 403, wire.CallerForbidden)
		want(t, call(t, b.Bed, b.Accounts.Stranger, "POST", path, nil), 403, wire.CallerUnknown)
		want(t, call(t, b.Bed, testbed.Root, "POST", path, `{"password":"x"}`), 400, wire.RequestInvalid)
		want(t, call(t, b.Bed, testbed.Root, "POST", "/v1/batch-users/nobody/verify", nil), 404, wire.BatchUserUnknown)
		audited(t, b.Bed, map[string]string{"kind": "verify", "verdict": "deny", "code": wire.CallerForbidden, "client": "lsam"})
	})
	t.Run("at the command line", func(t *testing.T) {
		if r := b.CLI(testbed.Root, "verify", "v"); r.Code != 0 || !strings.HasPrefix(r.Out, "Accepted: version 3 of v is the password of account "+payroll.Name) || r.Err != "" {
			t.Errorf("got %d %s%s", r.Code, r.Out, r.Err)
		}
		if r := b.CLI(testbed.Root, "verify", "keyless"); r.Code != 1 || !strings.HasPrefix(r.Out, "Not checked: ") {
			t.Errorf("got %d %s%s", r.Code, r.Out, r.Err)
		}
		if r := b.CLI(testbed.Root, "--json", "verify", "v"); r.Code != 0 || !strings.Contains(r.Out, `"outcome": "accepted"`) {
			t.Errorf("got %d %s%s", r.Code, r.Out, r.Err)
		}
	})
	t.Run("the password is in nobody's memory", func(t *testing.T) {
		var needles []memscan.Needle
		for _, text := range []string{right, wrong} {
			needles = append(needles, memscan.Needles([]byte(text))...)
		}
		for _, p := range []*testbed.Process{b.Daemon, b.Launcher} {
			hits, err := memscan.Scan(p.PID(), needles)
			if err != nil || len(hits) > 0 {
				t.Errorf("%s: %v %v", p.Name, hits, err)
			}
		}
	})
}
