package daemon_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"batchwarden/installer/testbed"
)

// TestSystemd boots a machine whose Vault is out of reach, and lets its service managers load credentials: the
// system's for a unit of an entry, which two lines were added to, and those that get nothing.
func TestSystemd(t *testing.T) {
	testbed.NeedMachine(t)
	b := testbed.New(t, testbed.Options{Edit: credentialed})
	password := b.Passwords()[0]
	// What this host knows was synced; from here on there is neither Vault nor network.
	for _, end := range []func() error{b.Daemon.Stop, b.Launcher.Stop, b.StopVault} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
	const twoLines = "[Service]\nLoadCredential=payroll:"
	shows := func(out string) string {
		return "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'id -un; cat \"$CREDENTIALS_DIRECTORY/payroll\"'\nStandardOutput=truncate:" + out + "\n"
	}
	m, err := b.Boot(map[string]string{
		"system/batchwarden-launcher.service": "[Service]\nExecStart=" + b.Bin + "/batchwarden-launcher --config " + b.ConfigFile() + " --limits " + b.LimitsFile() + "\nDelegate=yes\nKillMode=process\n",
		"system/batchwarden.service":          "[Unit]\nWants=batchwarden-launcher.service\n[Service]\nUser=" + b.Accounts.Daemon.Name + "\nExecStart=" + b.Bin + "/batchwardend --config " + b.ConfigFile() + "\n",
		"system/pay.service":                  shows("/tmp/pay.out") + "User=" + b.Accounts.Payroll.Name + "\n",
		"system/pay.service.d/two.conf":       twoLines + b.SystemdSocket() + "\n",
		"system/other.service":                shows("/tmp/other.out"),
		"system/other.service.d/two.conf":     twoLines + b.SystemdSocket() + "\n",
		"system/nobody.service":               shows("/tmp/nobody.out"),
		"system/nobody.service.d/two.conf":    twoLines + b.SystemdSocket() + "\n",
		"system/forge.service":                b.AskingUnit(asks("pay.service", "payroll"), "/tmp/forge.out"),
		"user/pay.service":                    shows("%t/pay.out"),
		"user/pay.service.d/two.conf":         twoLines + b.SystemdSocket() + "\n",
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(m.Journal(80))
		}
		if err := m.Stop(); err != nil {
			t.Error(err)
		}
	})
	if r := m.Command("systemctl", "start", "batchwarden.service"); r.Code != 0 {
		t.Fatalf("start: %s%s", r.Out, r.Err)
	}
	if err := m.WaitFor(b.Bin+"/batchwarden", "--socket", b.Socket, "status"); err != nil {
		t.Fatal(err)
	}
	if r := m.Command(b.Bin+"/batchwarden", "--socket", b.Socket, "status"); !strings.Contains(r.Out, "offline") {
		t.Fatalf("status is not offline:\n%s", r.Out)
	}
	output := func(t *testing.T, file string) string {
		t.Helper()
		text, err := os.ReadFile(m.Path(file))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}

	t.Run("a unit with two added lines reads its secret", func(t *testing.T) {
		if r := m.Command("systemctl", "start", "pay.service"); r.Code != 0 {
			t.Fatalf("start: %s%s", r.Out, r.Err)
		}
		if got, want := output(t, "/tmp/pay.out"), b.Accounts.Payroll.Name+"\n"+password; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
		r := audited(t, b, map[string]string{"kind": "retrieve", "verdict": "allow", "client": "pay-service"})
		if peer, _ := r["peer"].(map[string]any); peer["unit"] != "pay.service" || peer["uid"] != 0.0 {
			t.Errorf("audited peer %v, want root in pay.service", peer)
		}
		audited(t, b, map[string]string{"kind": "retrieve.ended", "code": "delivered", "decision_id": r.Text("decision_id")})
	})

	// An empty answer would be an empty password to systemd: it would start the unit.
	for unit, code := range map[string]string{"other.service": "caller.unknown", "nobody.service": "policy.denied"} {
		t.Run(unit+" is refused and does not start", func(t *testing.T) {
			r := m.Command("systemctl", "start", unit)
			if r.Code == 0 || r.Took.Seconds() > 10 {
				t.Errorf("start: code %d after %s, want a failure at once", r.Code, r.Took)
			}
			if r := m.Command("systemctl", "show", "--property=ExecMainStatus", "--value", unit); strings.TrimSpace(r.Out) != "243" {
				t.Errorf("the unit's status is %s, want 243/CREDENTIALS", r.Out)
			}
			audited(t, b, map[string]string{"kind": "retrieve", "verdict": "deny", "code": code})
		})
	}

	// refused fails unless there is one more refusal, because of that.
	refused := func(t *testing.T, before int, reason string) {
		t.Helper()
		all := retrieves(t, b)
		if len(all) != before+1 || all[before].Text("verdict") != "deny" || !strings.Contains(all[before].Text("reason"), reason) {
			t.Errorf("audited %v, want one refusal because %q", all[before:], reason)
		}
	}
	t.Run("a name forged in another unit", func(t *testing.T) {
		before := len(retrieves(t, b))
		if r := m.Command("systemctl", "start", "forge.service"); r.Code != 0 {
			t.Fatalf("start: %s%s", r.Out, r.Err)
		}
		if got := output(t, "/tmp/forge.out"); got != "" {
			t.Errorf("got %.80q, want nothing", got)
		}
		refused(t, before, `belongs to unit "forge.service"`)
	})
	t.Run("a name forged outside of all units", func(t *testing.T) {
		before := len(retrieves(t, b))
		if r := m.Command(b.AskingCommand(asks("pay.service", "payroll"))...); r.Code != 0 || r.Out != "" {
			t.Errorf("got %.80q, %d %s; want nothing", r.Out, r.Code, r.Err)
		}
		refused(t, before, "belongs to no system service")
	})
	for _, who := range []testbed.Account{testbed.Root, b.Accounts.Payroll} {
		t.Run("the service manager of "+who.Name, func(t *testing.T) {
			before := len(retrieves(t, b))
			if r := m.Command("systemctl", "start", fmt.Sprintf("user@%d.service", who.UID)); r.Code != 0 {
				t.Fatalf("start the manager: %s%s", r.Out, r.Err)
			}
			place := fmt.Sprintf("/run/user/%d", who.UID)
			r := m.Command("runuser", "-u", who.Name, "--", "env", "XDG_RUNTIME_DIR="+place, "systemctl", "--user", "start", "pay.service")
			out, err := os.ReadFile(m.Path(place + "/pay.out"))
			if strings.Contains(string(out), password) {
				t.Errorf("got %q, want nothing", out)
			}
			if who.UID == 0 { // it may connect, and is answered with nothing
				if err != nil || string(out) != "root\n" {
					t.Errorf("got %q, %v, want nothing: %s", out, err, r.Err)
				}
				refused(t, before, "belongs to no system service")
				return
			}
			if all := retrieves(t, b); r.Code == 0 || len(all) != before {
				t.Errorf("start: code %d, audited %v; want that it cannot connect", r.Code, all[before:])
			}
		})
	}
}
