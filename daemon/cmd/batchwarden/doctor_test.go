package main

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"batchwarden/daemon/config"
	"batchwarden/daemon/doctor"
)

func diagnosed() *report {
	return &report{
		Problems: 2, Unknown: 3, Machine: "db01", Version: "v1.2.3",
		Checks: []doctor.Check{
			ok("configuration", "/etc/batchwarden/batchwarden.yaml: 2 clients"),
			problem("limits.permissions", "/etc/batchwarden/limits.yaml: mode 0644: must be 0600 or less; every launch is refused",
				"chown root:root /etc/batchwarden/limits.yaml; chmod 0600 /etc/batchwarden/limits.yaml"),
			problem("vault.reachable", "https://vault.example.com:8200: dial tcp 192.0.2.1:8200: connect: connection refused. What was synced 3 h 12 min ago stays in force: batch users for 2 days 20 h more, policies for 20 h 48 min more",
				"is the server up, and the way to it open? curl -sS https://vault.example.com:8200/v1/sys/health; mend vault.address, the firewall, or the server"),
			unknown("vault.tls", "Vault does not answer", "mend that first"),
			unknown("vault.health", "Vault does not answer", "mend that first"),
			unknown("audit", "only root and the service's user can read /var/lib/batchwarden/audit.jsonl", asRoot),
			note("kernel.memfd_secret", "it is not there (function not implemented): "+lost["memfd_secret"]),
			ok("account.payroll", "an escape \x1b[31m and\na line end"),
		},
	}
}

func TestDoctorText(t *testing.T) {
	golden(t, "doctor.golden", diagnosed().text())
	well := &report{Healthy: true, Machine: "db01", Version: "v1.2.3", Checks: []doctor.Check{ok("configuration", "one file"), ok("clock", "it agrees with Vault's")}}
	golden(t, "doctor_well.golden", well.text())
	one := &report{Problems: 1, Checks: []doctor.Check{problem("configuration", "batchwarden.yaml:2:1: machin: is not known", "mend it")}}
	golden(t, "doctor_one.golden", one.text())
}

// TestDoctorJSON: names and results stay as they are.
func TestDoctorJSON(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out, json: true}
	if err := a.show(diagnosed(), "text"); err != nil {
		t.Fatal(err)
	}
	golden(t, "doctor_json.golden", out.String())
}

// TestDoctorOfAnEmptyMachine: where nothing is set up yet, what sets it up is named.
func TestDoctorOfAnEmptyMachine(t *testing.T) {
	code, out, _ := command(t, "", "doctor", "--config", filepath.Join(t.TempDir(), "batchwarden.yaml"))
	if code != exitNo || !strings.Contains(out, "mend: batchwarden setup install writes one") {
		t.Errorf("exit code %d: %s", code, out)
	}
}

// A process is ours when it was started with the configuration that is looked at.
func TestConfigOf(t *testing.T) {
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"batchwardend"}, config.DefaultFile},
		{nil, config.DefaultFile},
		{[]string{"batchwardend", "--config", "/a"}, "/a"},
		{[]string{"batchwardend", "-config", "/a", "--limits", "/b"}, "/a"},
		{[]string{"batchwardend", "--limits", "/b", "--config=/a"}, "/a"},
		{[]string{"batchwardend", "--config"}, config.DefaultFile},
		{[]string{"batchwardend", "--configuration", "/a"}, config.DefaultFile},
	} {
		if got := configOf(c.args); got != c.want {
			t.Errorf("%q: got %q, want %q", c.args, got, c.want)
		}
	}
}
