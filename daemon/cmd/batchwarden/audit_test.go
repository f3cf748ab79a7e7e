package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"batchwarden/daemon/audit"
)

// auditLog writes a log with a record of each kind.
func auditLog(t *testing.T) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	l, err := audit.Open(file, audit.Options{Sync: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	at := noon.Add(-time.Hour)
	jdoe, zero := &audit.Subject{User: "jdoe", Roles: []string{"ops"}, By: "boss"}, 0
	lsam := &audit.Peer{PID: 7, UID: 1001, GID: 1001, User: "opcon"}
	stranger := &audit.Peer{UID: 4711, GID: 4711}
	launch := audit.Record{Kind: audit.Launch, Verdict: audit.Allow, DecisionID: "D1", Client: "opcon-lsam", Peer: lsam, Realm: "opcon", Subject: jdoe,
		BatchUser: "payroll", Username: "pay", CredentialVersion: 7, Reason: "OC3", Job: &audit.Job{ID: "j-1"}}
	denied := launch
	denied.Verdict, denied.Code, denied.Reason, denied.Job = audit.Deny, "policy.denied", "no role grants it", nil
	for i, r := range []audit.Record{
		launch, denied,
		{Kind: audit.NotStarted, Verdict: audit.Deny, Client: "opcon-lsam", Realm: "opcon", BatchUser: "payroll", Code: "limits.refused", Reason: "uid 0", Job: &audit.Job{ID: "j-1"}},
		{Kind: audit.JobEnded, Client: "opcon-lsam", Realm: "opcon", Subject: jdoe, BatchUser: "payroll", Username: "payroll",
			Job: &audit.Job{ID: "j-1", State: "exited", ExitCode: &zero, Started: at, Ended: at.Add(90 * time.Second), Survivors: 2}},
		{Kind: audit.JobEnded, Client: "opcon-lsam", Code: "job.timeout", Reason: "its time was up", Job: &audit.Job{ID: "j-2", State: "failed", Signal: "KILL"}},
		{Kind: audit.Authorize, Verdict: audit.Allow, Client: "opcon-lsam", Realm: "opcon", Subject: jdoe, Action: "use", BatchUser: "payroll", Withheld: []string{"cred-2"}},
		{Kind: audit.Retrieve, Verdict: audit.Allow, Client: "opcon-lsam", Realm: "opcon", Subject: jdoe, BatchUser: "payroll", CredentialVersion: 7},
		{Kind: audit.Delivered, Verdict: audit.Allow, Client: "opcon-lsam", BatchUser: "payroll", CredentialVersion: 7, Code: "delivered"},
		{Kind: audit.Delivered, Verdict: audit.Allow, Client: "opcon-lsam", BatchUser: "payroll", CredentialVersion: 7, Code: "failed", Reason: "broken pipe"},
		{Kind: audit.Signal, Verdict: audit.Allow, Client: "opcon-lsam", Reason: "TERM", Job: &audit.Job{ID: "j-1"}},
		{Kind: audit.Signal, Verdict: audit.Deny, Client: "opcon-lsam", Code: "policy.denied", Job: &audit.Job{ID: "j-1"}},
		{Kind: audit.Output, Verdict: audit.Allow, Client: "opcon-lsam", Subject: jdoe, Job: &audit.Job{ID: "j-1"}},
		{Kind: audit.Forget, Verdict: audit.Allow, Client: "opcon-lsam", Job: &audit.Job{ID: "j-1"}},
		{Kind: audit.DryRun, Verdict: audit.Deny, Client: "opcon-lsam", Realm: "opcon", BatchUser: "payroll", Code: "caller.forbidden"},
		{Kind: audit.Suspend, Verdict: audit.Allow, Operator: true, Peer: &audit.Peer{User: "root"}},
		{Kind: audit.Resume, Verdict: audit.Deny, Peer: stranger, Code: "caller.unknown", Reason: "there are no client entries"},
		{Kind: audit.Refused, Verdict: audit.Deny, Peer: stranger, Code: "caller.unknown", Count: 4999, Since: at},
		{Kind: audit.Refused, Verdict: audit.Deny, Count: 1, Since: at, Reason: "by further users, more than are counted one by one"},
		{Kind: audit.Synced, Changed: []string{"machines/db01/batch_users/a", "b", "c"}, Removed: []string{"d", "e", "f"}},
		{Kind: audit.Report, Verdict: audit.Allow, Client: "opcon-lsam", BatchUser: "payroll", CredentialVersion: 7, Code: "rejected"},
		{Kind: audit.LocalVault, Code: "local_vault.went_back", Reason: "7 after 9"},
		{Kind: audit.PolicyState, Verdict: audit.Allow, Realm: "opcon", PolicyVersion: 3},
		{Kind: audit.PolicyState, Verdict: audit.Deny, Realm: "opcon", PolicyVersion: 4, Code: "policy.invalid", Reason: "line 1: x\x1b[31m\nis not y"},
		{Kind: audit.Rekey, Verdict: audit.Allow, Operator: true, Peer: &audit.Peer{User: "root"}, HostKey: &audit.HostKey{Kind: "tpm2", ID: "b", OldKind: "keyfile", OldID: "a"}},
		{Kind: "to.come", Verdict: audit.Deny, Client: "opcon-lsam"},
	} {
		r.Time = at.Add(time.Duration(i) * time.Minute)
		if err := l.Append(&r); err != nil {
			t.Fatal(err)
		}
	}
	return file
}

func TestAuditTail(t *testing.T) {
	file := auditLog(t)
	code, out, errs := command(t, "", "audit", "tail", "-n", "25", file)
	if code != 0 || errs != "" {
		t.Fatalf("%d %s", code, errs)
	}
	golden(t, "audit_tail.golden", out)

	for _, c := range []struct {
		args  string
		lines int
		has   string
	}{
		{"", 20, "to.come"},
		{"-n 3", 3, "policy.invalid"},
		{"-n 0", 0, ""},
		{"--job j-2", 1, "SIGKILL"},
		{"--job j-2 --client other", 0, ""},
		{"--batch-user payroll --verdict deny", 3, "no role grants it"},
		{"--subject boss --verdict allow", 4, "output of job j-1"},
		{"--until 2026-03-05 --since 37m30s", 2, "to.come"},
		{"--until 2026-03-05 --since 2026-03-04T11:00:30Z", 24, "limits.refused"},
		{"--until 2026-03-05 --since 2026-03-04", 25, "launch of job j-1"},
		{"--until 2026-03-06 --since 2026-03-05", 0, ""},
		{"--until 2026-03-04T11:01:00Z --since 2h", 2, "policy.denied"},
	} {
		code, out, errs := command(t, "", append(append([]string{"audit", "tail"}, strings.Fields(c.args)...), file)...)
		if code != 0 || errs != "" || strings.Count(out, "\n") != c.lines || !strings.Contains(out, c.has) {
			t.Errorf("%s: %d, %s\n%swant %d lines with %q", c.args, code, errs, out, c.lines, c.has)
		}
	}
	code, out, _ = command(t, "", "audit", "tail", "--json", "-n", "1", file)
	var r audit.Line
	if err := json.Unmarshal([]byte(out), &r); err != nil || code != 0 || r.Seq != 26 {
		t.Errorf("--json: %d %q %v", code, out, err)
	}
	for args, want := range map[string]string{
		"--verdict maybe": "neither allow nor deny", "--since yesterday": `--since "yesterday" is neither`, "-n -1": "fewer than 0", "--until -1h": "is neither a time",
	} {
		if code, _, errs := command(t, "", append(append([]string{"audit", "tail"}, strings.Fields(args)...), file)...); code != 64 || !strings.Contains(errs, want) {
			t.Errorf("%s: %d %s", args, code, errs)
		}
	}
	if code, _, errs := command(t, "", "audit", "tail", filepath.Join(t.TempDir(), "none")); code != 1 || !strings.Contains(errs, "no such file") {
		t.Errorf("no file: %d %s", code, errs)
	}
	if code, _, errs := command(t, "", "audit", "tail", "--config", filepath.Join(t.TempDir(), "none.yaml")); code != 78 || !strings.Contains(errs, "none.yaml") {
		t.Errorf("no configuration: %d %s", code, errs)
	}
}

func TestAuditVerify(t *testing.T) {
	file := auditLog(t)
	code, out, errs := command(t, "", "audit", "verify", file)
	if code != 0 || !strings.Contains(out, "26 records in 1 file, one unbroken chain.") || !strings.Contains(out, "cut off") {
		t.Errorf("%d %s%s", code, out, errs)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, bytes.Replace(text, []byte("no role grants it"), []byte("its role grants it"), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out, errs = command(t, "", "audit", "verify", file)
	if want := fmt.Sprintf("%s:4: record 3 is not what it was", file); code != 1 || errs != "" || !strings.Contains(out, want) {
		t.Errorf("%d %s%s, want %s", code, out, errs, want)
	}
	code, out, _ = command(t, "", "audit", "verify", "--json", file)
	var v struct {
		Sound bool
		Fault audit.Fault
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil || code != 1 || v.Sound || v.Fault.Seq != 3 || v.Fault.Line != 4 {
		t.Errorf("--json: %d %s %v", code, out, err)
	}
	if code, _, errs := command(t, "", "audit", "verify", filepath.Join(t.TempDir(), "none")); code != 1 || !strings.Contains(errs, "no such file") {
		t.Errorf("no file: %d %s", code, errs)
	}
	if code, _, errs := command(t, "", "audit", "verify", "--journal", "--config", filepath.Join(t.TempDir(), "none.yaml"), file); code != 78 || errs == "" {
		t.Errorf("no configuration: %d %s", code, errs)
	}
}

// TestAuditFollow: what is written while somebody looks is shown, until he has seen enough.
func TestAuditFollow(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	l, err := audit.Open(file, audit.Options{Sync: time.Hour, Rotate: 500})
	if err != nil {
		t.Fatal(err)
	}
	in, out := io.Pipe()
	a := &app{in: strings.NewReader(""), out: out, errs: out, now: time.Now}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan int, 1)
	go func() {
		ended <- a.run(ctx, []string{"audit", "tail", "-f", "-n", "1", "--client", "x", file})
		_ = out.Close() // a pipe in memory
	}()
	lines := bufio.NewScanner(in)
	for i := range 10 {
		for _, client := range []string{"y", "x"} {
			if err := l.Append(&audit.Record{Kind: audit.Forget, Verdict: audit.Allow, Client: client, Job: &audit.Job{ID: fmt.Sprint("job-", i)}}); err != nil {
				t.Fatal(err)
			}
		}
		if !lines.Scan() || !strings.HasSuffix(lines.Text(), fmt.Sprintf("allowed  x               forget job job-%d", i)) {
			t.Fatalf("record %d: got %q, %v", i, lines.Text(), lines.Err())
		}
	}
	stop()
	if code := <-ended; code != 0 || lines.Scan() {
		t.Errorf("ended with %d, and said %q", code, lines.Text())
	}
}
