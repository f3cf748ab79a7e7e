package daemon_test

import (
	"net"
	"os"
	"strings"
	"testing"

	"batchwarden/installer/testbed"
)

// TestCommandLineErrors: each of the usual failures says what happened, to which thing, and what to do next.
func TestCommandLineErrors(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	lsam, stranger, root := b.Accounts.LSAM, b.Accounts.Stranger, testbed.Root
	foreign := b.Root + "/foreign"
	if err := os.Mkdir(foreign, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(foreign, int(stranger.UID), int(stranger.GID)); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", foreign+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	as := func(realm, user, subject string) []string {
		return []string{"run", "--realm", realm, "--subject", subject, "--as", user, "--", "/bin/true"}
	}
	for _, c := range []struct {
		name  string
		who   testbed.Account
		args  []string
		code  int
		words []string // what, to which thing, what to do
	}{
		{"no socket", lsam, []string{"--socket", b.Root + "/none.sock", "status"}, 69, []string{"does not answer", "none.sock", "Is batchwardend running?", "batchwarden doctor"}},
		{"a socket of somebody else", lsam, []string{"--socket", foreign + "/s", "status"}, 69, []string{"does not answer", foreign, "Nothing was sent", "--socket"}},
		{"not permitted to look", stranger, []string{"status"}, 77, []string{"caller.unknown", "batchwarden whoami"}},
		{"not permitted to steer", lsam, []string{"suspend"}, 77, []string{"caller.forbidden", "batchwarden whoami"}},
		{"not permitted to launch", root, as(testbed.Realm, "payroll", testbed.User), 125, []string{"not started", "batchwarden whoami"}},
		{"an unknown realm", lsam, as("opkon", "payroll", testbed.User), 125, []string{"opkon", "batchwarden whoami lists the realms"}},
		{"an unknown batch user", lsam, as(testbed.Realm, "payrol", testbed.User), 125, []string{"payrol", "batchwarden batch-users lists"}},
		{"denied", lsam, as(testbed.Realm, "payroll", testbed.Nobody), 125, []string{"policy.denied", "batchwarden explain"}},
		{"an unknown batch user to look at", root, []string{"batch-users", "payrol"}, 1, []string{"payrol", "batchwarden batch-users lists"}},
		{"an unknown job", lsam, []string{"jobs", "none-7"}, 1, []string{"none-7", "batchwarden jobs lists"}},
		{"an unknown flag", lsam, []string{"run", "--reelm", "x"}, 64, []string{"--reelm", "It is used as: batchwarden run", "batchwarden run --help"}},
		{"an argument too few", lsam, []string{"output"}, 64, []string{"accepts 1 arg", "It is used as: batchwarden output ID"}},
		{"an unknown command", lsam, []string{"statuss"}, 64, []string{`"statuss"`, "status", "batchwarden --help lists the commands"}},
		{"half a command", lsam, []string{"audit"}, 64, []string{"audit is not a command by itself", "batchwarden audit --help"}},
		{"no configuration", lsam, []string{"config", "check", b.Root + "/none.yaml"}, 78, []string{"none.yaml", "does not exist"}},
		{"the audit file is not his", lsam, []string{"audit", "verify", b.AuditFile()}, 77, []string{b.AuditFile(), "permission denied"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := b.CLI(c.who, c.args...)
			if r.Code != c.code {
				t.Errorf("exit %d, want %d", r.Code, c.code)
			}
			for _, word := range c.words {
				if !strings.Contains(r.Err, word) {
					t.Errorf("%q is not in %q", word, r.Err)
				}
			}
		})
	}
	t.Run("nobody answers", func(t *testing.T) {
		if err := b.Daemon.Stop(); err != nil {
			t.Fatal(err)
		}
		r := b.Command(root, "timeout", "-s", "INT", "8", b.Bin+"/batchwarden", "status")
		for _, word := range []string{"still waiting", b.Socket, "batchwarden doctor", "Ctrl-C"} {
			if !strings.Contains(r.Err, word) {
				t.Errorf("%q is not in %q", word, r.Err)
			}
		}
		r = b.Command(root, b.Bin+"/batchwarden", "status")
		if r.Code != 69 || !strings.Contains(r.Err, "within 10s") {
			t.Errorf("status ended with %d: %q", r.Code, r.Err)
		}
	})
}
