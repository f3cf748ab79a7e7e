package daemon_test

import (
	"os"
	"strings"
	"testing"

	"batchwarden/installer/testbed"
)

// credentialed is the configuration of a bed whose services load credentials.
func credentialed(yaml string) string {
	yaml = strings.Replace(yaml, "/batchwarden.sock\n", "/batchwarden.sock\nsystemd_socket: {dir}/systemd.sock\n", 1)
	_, dir, _ := strings.Cut(yaml, "\nsocket: ")
	dir, _, _ = strings.Cut(dir, "/batchwarden.sock\n")
	yaml = strings.Replace(yaml, "{dir}", dir, 1)
	return strings.Replace(yaml, "\noperators:", `
  - name: pay-service
    match: {credential_unit: pay.service}
    realms: [opcon]
    may: [retrieve]
    subject: {user: `+testbed.User+`}
    object: {}
    batch_users: ["pay*", nonesuch]
  - name: nobody-service
    match: {credential_unit: nobody.service}
    realms: [opcon]
    may: [retrieve]
    subject: {user: `+testbed.Nobody+`}
    batch_users: ["*"]
operators:`, 1)
}

// asks is how systemd asks for a credential of the unit.
func asks(unit, id string) testbed.Asking {
	return testbed.Asking{As: testbed.Root, Name: "\x00adf9d86b6eda275e/unit/" + unit + "/" + id, Unit: unit}
}

// managedBy is there where systemd runs the system.
const managedBy = "/run/systemd/system"

// managed makes the sandbox a system that systemd runs, until the test ends.
func managed(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll(managedBy, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(managedBy); err != nil {
			t.Error(err)
		}
	})
}

func needUnits(t *testing.T, b *testbed.Bed) {
	t.Helper()
	if b.Units() {
		return
	}
	const how = "needs a cgroup2 file system that can be written"
	if os.Getenv(testbed.NoSkip) == "1" {
		t.Fatal(how)
	}
	t.Skip(how)
}

// TestCredentials plays systemd: a root process in a service's cgroup that binds the name which systemd would bind.
func TestCredentials(t *testing.T) {
	b := testbed.New(t, testbed.Options{Edit: credentialed})
	needUnits(t, b)
	password := b.Passwords()[0]
	managed(t)
	ask := func(t *testing.T, a testbed.Asking) string {
		t.Helper()
		got, err := b.Ask(a)
		if err != nil {
			t.Fatal(err)
		}
		return got
	}

	t.Run("the unit gets its secret and nothing else", func(t *testing.T) {
		if got := ask(t, asks("pay.service", "payroll")); got != password {
			t.Errorf("got %q, want the password", got)
		}
		r := audited(t, b, map[string]string{"kind": "retrieve", "verdict": "allow", "client": "pay-service", "batch_user": "payroll"})
		if peer, _ := r["peer"].(map[string]any); peer["unit"] != "pay.service" || peer["user"] != "root" {
			t.Errorf("audited peer %v, want root in pay.service", peer)
		}
		audited(t, b, map[string]string{"kind": "retrieve.ended", "code": "delivered", "client": "pay-service", "decision_id": r.Text("decision_id")})
	})
	t.Run("a short random number", func(t *testing.T) {
		a := asks("pay.service", "payroll")
		a.Name = "\x00f/unit/pay.service/payroll"
		if got := ask(t, a); got != password {
			t.Errorf("got %q, want the password", got)
		}
	})

	for _, c := range []struct {
		name   string
		change func(*testbed.Asking)
		code   string
		reason string
		told   bool // systemd has to be told, or it would start the unit
	}{
		{"another unit", func(a *testbed.Asking) { *a = asks("other.service", "payroll") }, "caller.unknown", `no client entry has match.credential_unit "other.service"`, true},
		{"another id", func(a *testbed.Asking) { *a = asks("pay.service", "reports") }, "caller.forbidden", `does not cover batch user "reports"`, true},
		{"an id that is no batch user", func(a *testbed.Asking) { *a = asks("pay.service", "nonesuch") }, "batch_user.unknown", `"nonesuch" is not known`, true},
		{"a subject whom the policy denies", func(a *testbed.Asking) { *a = asks("nobody.service", "payroll") }, "policy.denied", "", true},
		{"a name forged in another unit", func(a *testbed.Asking) { a.Unit = "other.service" }, "caller.unknown", `belongs to unit "other.service"`, false},
		{"a name forged in no unit", func(a *testbed.Asking) { a.Unit = "" }, "caller.unknown", "belongs to no system service", false},
		{"root's own service manager", func(a *testbed.Asking) { a.Unit = "x.scope/user@0.service/app.slice/pay.service" }, "caller.unknown", "belongs to no system service", false},
		{"no name", func(a *testbed.Asking) { a.Name = "" }, "caller.unknown", "not an abstract name", false},
		{"HTTP", func(a *testbed.Asking) { a.Name, a.Send = "", "GET /v1/whoami HTTP/1.1\r\nHost: x\r\n\r\n" }, "caller.unknown", "not an abstract name", false},
		{"a path", func(a *testbed.Asking) { a.Name = b.Root + "/run/client" }, "caller.unknown", "not an abstract name", false},
		{"no random number", func(a *testbed.Asking) { a.Name = "\x00/unit/pay.service/payroll" }, "caller.unknown", "not how systemd asks", false},
		{"a longer number", func(a *testbed.Asking) { a.Name = "\x00adf9d86b6eda275e0/unit/pay.service/payroll" }, "caller.unknown", "not how systemd asks", false},
		{"something else than a number", func(a *testbed.Asking) { a.Name = "\x00ADF9/unit/pay.service/payroll" }, "caller.unknown", "not how systemd asks", false},
		{"another kind of thing", func(a *testbed.Asking) { a.Name = "\x00adf9/user/pay.service/payroll" }, "caller.unknown", "not how systemd asks", false},
		{"another kind of unit", func(a *testbed.Asking) { a.Name = "\x00adf9/unit/pay.socket/payroll" }, "caller.unknown", "not how systemd asks", false},
		{"more behind it", func(a *testbed.Asking) { a.Name += "/x" }, "caller.unknown", "not how systemd asks", false},
		{"a NUL behind it", func(a *testbed.Asking) { a.Name += "\x00" }, "caller.unknown", "not how systemd asks", false},
		{"no id", func(a *testbed.Asking) { a.Name = "\x00adf9/unit/pay.service/" }, "caller.unknown", "not how systemd asks", false},
		{"the realm's name", func(a *testbed.Asking) { a.Name = "\x00adf9/unit/pay.service/users/payroll" }, "caller.unknown", "not how systemd asks", false},
		{"nothing", func(a *testbed.Asking) { a.Name = "\x00x" }, "caller.unknown", "not how systemd asks", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := len(retrieves(t, b))
			a := asks("pay.service", "payroll")
			c.change(&a)
			switch got := ask(t, a); {
			case !c.told && got != "":
				t.Errorf("got %.80q, want nothing", got)
			case c.told && (len(got) <= 1<<20 || strings.Contains(got, password)):
				t.Errorf("got %d octets, want more than systemd takes", len(got))
			}
			all := retrieves(t, b)
			if len(all) != before+1 {
				t.Fatalf("%d records were written, want one", len(all)-before)
			}
			r := all[before]
			if r.Text("verdict") != "deny" || r.Text("code") != c.code || !strings.Contains(r.Text("reason"), c.reason) {
				t.Errorf("audited %v, want %s because %q", r, c.code, c.reason)
			}
		})
	}

	t.Run("where no systemd runs", func(t *testing.T) {
		if err := os.Remove(managedBy); err != nil {
			t.Fatal(err)
		}
		defer managed(t)
		a := asks("pay.service", "payroll")
		a.Unit = ""
		if got := ask(t, a); got != password {
			t.Errorf("got %q, want the password: there are no units", got)
		}
		a.Unit = "other.service"
		if got := ask(t, a); got != "" {
			t.Errorf("got %.80q in another unit, want nothing", got)
		}
		if got := ask(t, asks("pay.service", "reports")); got != "" {
			t.Errorf("got %.80q, want nothing", got)
		}
	})
	t.Run("another user", func(t *testing.T) {
		a := asks("pay.service", "payroll")
		a.As = b.Accounts.LSAM
		if got, err := b.Ask(a); got != "" || err == nil || !strings.Contains(err.Error(), "permission denied") {
			t.Errorf("got %q, %v; want that the socket is root's alone", got, err)
		}
		if err := os.Chmod(b.SystemdSocket(), 0o666); err != nil {
			t.Fatal(err)
		}
		defer os.Chmod(b.SystemdSocket(), 0o600)
		if got := ask(t, a); got != "" {
			t.Errorf("got %q, want nothing", got)
		}
		audited(t, b, map[string]string{"kind": "retrieve", "verdict": "deny", "code": "caller.unknown"})
		if all := retrieves(t, b); !strings.Contains(all[len(all)-1].Text("reason"), "only the system's service manager may") {
			t.Errorf("audited %v, want that another uid is refused", all[len(all)-1])
		}
	})
	t.Run("the entry is not for connections", func(t *testing.T) {
		a := call(t, b, testbed.Root, "POST", "/v1/batch-users/payroll/retrieve", map[string]any{"realm": testbed.Realm, "subject": map[string]any{"user": testbed.User}})
		want(t, a, 403, "caller.forbidden")
	})
	t.Run("without Vault, after restarts", func(t *testing.T) {
		if err := b.StopVault(); err != nil {
			t.Fatal(err)
		}
		for _, restart := range []func() error{b.RestartDaemon, b.RestartLauncher} {
			if err := restart(); err != nil {
				t.Fatal(err)
			}
			if got := ask(t, asks("pay.service", "payroll")); got != password {
				t.Errorf("got %q, want the password", got)
			}
		}
	})
}

// retrieves are the records of decisions about passwords.
func retrieves(t *testing.T, b *testbed.Bed) (list []testbed.AuditRecord) {
	t.Helper()
	records, err := b.Audit()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		if r.Text("kind") == "retrieve" {
			list = append(list, r)
		}
	}
	return list
}
