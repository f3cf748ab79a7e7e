package daemon_test

import (
	"strings"
	"testing"

	"batchwarden/installer/testbed"
)

// TestStatusScreen: what status says of the running service, and its exit code by health.
func TestStatusScreen(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	says := func(when string, code int, words ...string) {
		t.Helper()
		r := b.CLI(testbed.Root, "status")
		if r.Code != code || r.Err != "" {
			t.Errorf("%s: %d %s", when, r.Code, r.Err)
		}
		for _, w := range words {
			if !strings.Contains(r.Out, w) {
				t.Errorf("%s: no %q in\n%s", when, w, r.Out)
			}
		}
		if strings.Contains(r.Out, "\x1b") {
			t.Errorf("%s: colours in a pipe", when)
		}
	}
	run(t, b, map[string]any{"id": "short"})
	want(t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(map[string]any{"id": "long", "command": []string{"/bin/sleep", "300"}})), 201, "")
	says("healthy", 0, testbed.Machine+" is online: ", "payroll", "ready", "1 running, the oldest for ", "; 1 exited", "active", "connected for ")

	if r := b.Command(testbed.Root, "env", "TERM=xterm", "NO_COLOR=", "script", "-qec", b.Bin+"/batchwarden --socket "+b.Socket+" status", "/dev/null"); r.Code != 0 || !strings.Contains(r.Out, "\x1b[32m") {
		t.Errorf("on a terminal: %d %q %s", r.Code, r.Out, r.Err)
	}
	if r := b.Command(testbed.Root, "env", "TERM=xterm", "NO_COLOR=1", "script", "-qec", b.Bin+"/batchwarden --socket "+b.Socket+" status", "/dev/null"); r.Code != 0 || strings.Contains(r.Out, "\x1b") {
		t.Errorf("NO_COLOR: %d %q %s", r.Code, r.Out, r.Err)
	}

	if r := b.CLI(testbed.Root, "suspend", "--reason", "night off"); r.Code != 0 {
		t.Fatal(r.Err)
	}
	says("suspended", 1, "It starts no jobs: ", "by root: night off", "-> batchwarden resume")
	if r := b.CLI(testbed.Root, "resume"); r.Code != 0 {
		t.Fatal(r.Err)
	}
	want(t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs/long/signal", map[string]any{"signal": "KILL"}), 200, "")
	ended(t, b, "long")

	if err := b.StopVault(); err != nil {
		t.Fatal(err)
	}
	if r := b.CLI(testbed.Root, "sync"); r.Code != 1 || r.Err != "" {
		t.Errorf("sync without Vault: %d %s%s", r.Code, r.Out, r.Err)
	}
	says("offline", 0, " is offline since ", "It serves what Vault last said ", "vault.", "-> ", "2 exited")
	if err := b.ResumeVault(); err != nil {
		t.Fatal(err)
	}
	synced(t, b)

	if err := b.Launcher.Stop(); err != nil {
		t.Fatal(err)
	}
	settle(t, func() bool { s, err := b.Status(); return err == nil && !s.Launcher.Connected })
	says("no launcher", 1, "It cannot serve: launcher.unavailable", "-> Start batchwarden-launcher", "not connected for ")
}
