package server

import (
	"os"
	"strings"
	"testing"

	"batchwarden/ipc/wire"
)

// TestExits: whatever a launch can be answered with has its place in the document for the schedulers' operators.
func TestExits(t *testing.T) {
	text, err := os.ReadFile("../EXITS.md")
	if err != nil {
		t.Fatal(err)
	}
	words := []string{
		wire.Starting, wire.Running, wire.Exited, wire.Failed, wire.Lost,
		"chdir.failed", "exec.not_found", "exec.forbidden", "logon.failed", "launch.failed", "job.timeout", "job.canceled", "job.host_rebooted",
	}
	for code := range wire.Codes() {
		words = append(words, code)
	}
	for _, w := range words {
		if !strings.Contains(string(text), "`"+w+"`") {
			t.Errorf("%s is not there", w)
		}
	}
}
