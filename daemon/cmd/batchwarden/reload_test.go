package main

import (
	"path/filepath"
	"testing"
	"time"

	"batchwarden/daemon/audit"
	"batchwarden/ipc/wire"
)

func TestReloadText(t *testing.T) {
	text := ""
	for _, r := range []wire.Reload{
		{Outcome: wire.ReloadUnchanged},
		{Outcome: wire.ReloadChanged, Changed: []string{"clients.lsam", "log.level"}},
		{Outcome: wire.ReloadChanged, Changed: []string{"realms.opcon"}, RestartNeeded: []string{"machine", "audit.file"}, Warnings: []string{"client x matches nobody"}},
		{Outcome: wire.ReloadChanged},
		{Outcome: wire.ReloadUnchanged, RestartNeeded: []string{"socket"}},
		{Outcome: wire.ReloadRefused, Faults: []wire.ConfigFault{
			{File: "/etc/batchwarden/batchwarden.yaml", Line: 3, Column: 1, Place: "machin", Text: "is unknown; did you mean machine?"},
			{File: "/etc/batchwarden/clients.d/x.yaml", Text: "does not exist\x1b[2J"},
		}},
	} {
		text += reloadText(&r) + "--\n"
	}
	golden(t, "reload.golden", text)
}

// TestServiceInAudit: what the audit says of the service itself, in people's words.
func TestServiceInAudit(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	l, err := audit.Open(file, audit.Options{Sync: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range []audit.Record{
		{Kind: audit.Started, Service: &audit.Service{Version: "1.0.0"}, Config: &audit.Config{SHA256: "a1a1a1a1a1a1a1a1"}},
		{Kind: audit.ConfigChanged, Config: &audit.Config{SHA256: "b2", Old: "a1a1a1a1a1a1a1a1", By: audit.BySignal,
			Changed: []string{"clients.a", "clients.b", "clients.c", "clients.d", "log.level"}, Restart: []string{"machine"}}},
		{Kind: audit.ConfigChanged, Config: &audit.Config{SHA256: "b3", Old: "b2", By: audit.ByFile}},
		{Kind: audit.ConfigRefused, Operator: true, Peer: &audit.Peer{User: "root"},
			Config: &audit.Config{SHA256: "c3", Old: "b2", By: audit.ByOperator, Faults: []string{"/etc/batchwarden/batchwarden.yaml:3:1: machin"}}},
		{Kind: audit.Reload, Verdict: audit.Deny, Client: "opcon-lsam", Code: "caller.forbidden"},
		{Kind: audit.Stopped, Service: &audit.Service{Version: "1.0.0"}, Reason: "it was asked to"},
	} {
		r.Time = noon.Add(time.Duration(i) * time.Minute)
		if err := l.Append(&r); err != nil {
			t.Fatal(err)
		}
	}
	code, out, errs := command(t, "", "audit", "tail", "-n", "6", file)
	if code != 0 || errs != "" {
		t.Fatalf("%d %s", code, errs)
	}
	golden(t, "audit_service.golden", out)
}
