package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"batchwarden/daemon/audit"
	"batchwarden/ipc/wire"
)

func payroll() *wire.Launch {
	return &wire.Launch{Realm: "opcon", Subject: wire.Subject{User: "jdoe"}, BatchUser: "payroll", Command: []string{"/opt/pay/run.sh", "--secret"}}
}

// wouldStart is a dry run in which every step is passed, one of them unseen.
func wouldStart() *wire.DryRun {
	return &wire.DryRun{
		Start: true, DecisionID: "D7",
		Checks: []wire.Check{
			{Step: "caller", OK: true, Detail: `client "opcon-lsam" may launch`},
			{Step: "document", OK: true, Detail: "version 3 of machines/db01, confirmed by Vault 12s ago (at most 24h)"},
			{Step: "batch_user", OK: true, Detail: `"payroll", which the realm calls "users/payroll": account "svc-pay"; password version 7, confirmed by Vault 12s ago (at most 72h)`},
			{Step: "policy", OK: true, Detail: "OC5: a role of the subject grants the batch user"},
			{Step: "command", OK: true, Unseen: true, Detail: "not looked at: the file system does not answer"},
		},
		Explained: &wire.Explains{
			Peer: wire.Peer{UID: 0, User: "root", Attested: true, Exe: "/usr/bin/batchwarden"}, Operator: true, Client: "opcon-lsam", Supposed: true, Account: "opcon",
			Entry: "/etc/batchwarden/batchwarden.yaml:29", Config: "/nonexistent/batchwarden.yaml", Machine: "db01", Model: "opcon", Agent: "DB01_LSAM", RealmName: "users/payroll",
			BatchUser: &wire.BatchUser{Name: "payroll", Username: "svc-pay", Scope: "machines/db01", Version: 7},
			Policy:    &wire.Policy{Realm: "opcon", Scope: "machines/db01", Version: 3, State: "active"},
			Decision:  &wire.Decision{Allowed: true, Rule: "OC5", TraceText: "* rule     OC5: granted \x1b[31m\nallowed by OC5: so it is\n"},
		},
	}
}

// refused is the same with one step that is not passed.
func refused(step, code, detail string) *wire.DryRun {
	d := wouldStart()
	d.Start, d.Code = false, code
	for i := range d.Checks {
		if d.Checks[i].Step == step {
			d.Checks[i] = wire.Check{Step: step, Code: code, Detail: detail}
			return d
		}
	}
	d.Checks = append(d.Checks, wire.Check{Step: step, Code: code, Detail: detail})
	return d
}

func withFix(place, value, text string) *wire.DryRun {
	d := refused("policy", wire.PolicyDenied, "no role grants it")
	d.Explained.Decision.Trace = json.RawMessage(fmt.Sprintf(`{"would_allow":{"place":%q,"value":%s,"text":%q}}`, place, value, text))
	return d
}

func TestExplainText(t *testing.T) {
	screen := func(d *wire.DryRun) string {
		x := explained{d, remedyFor(d, payroll())}
		return x.text(payroll())
	}
	twice := withFix("roles.payroll-ops.batch_users.unix", `"users/payroll"`, `adding "users/payroll" to roles.payroll-ops.batch_users.unix`)
	twice.Checks = append(twice.Checks, wire.Check{Step: "dir", Code: "chdir.failed", Detail: `the directory "/no" is not there`})
	bare := &wire.DryRun{Code: wire.CallerUnknown, Checks: []wire.Check{{Step: "caller", Code: wire.CallerUnknown}}}
	golden(t, "explain_launch.golden", strings.Join([]string{screen(wouldStart()), screen(twice), screen(bare)}, "-----\n"))
}

// TestRemedies: what to change for each way in which a launch can be refused.
func TestRemedies(t *testing.T) {
	stale, missing, faulty := refused("document", wire.PolicyStale, "too old"), refused("document", wire.PolicyInvalid, "none"), refused("document", wire.PolicyInvalid, "faulty")
	stale.Explained.Policy.State, missing.Explained.Policy.State, faulty.Explained.Policy.State = "stale", "missing", "refused"
	var b strings.Builder
	for _, d := range []*wire.DryRun{
		stale, missing, faulty,
		refused("launcher", wire.LauncherUnavailable, "it does not answer"), refused("launcher", wire.Overloaded, "2000 jobs are running"),
		refused("batch_user", wire.BatchUserAmbiguous, "two"), refused("batch_user", wire.CredentialRejected, "version 7 was reported as rejected"),
		refused("account", wire.AccountLocked, "locked"), refused("account", wire.AccountExpired, "expired"), refused("account", wire.AccountChanged, "changed"),
		refused("requester", wire.CallerForbidden, "another process"),
		refused("limits", wire.LimitsRefused, `limits.yaml: requesters: "svc-pay" is a requester, and those are never targets`),
		refused("limits", wire.LimitsRefused, `limits.yaml: min_gid: "svc-pay" is in group 99, below 100`),
		refused("limits", wire.LimitsRefused, "/etc/batchwarden/limits.yaml: is not root's"),
		refused("limits", wire.LimitsRefused, "limits.yaml: to_come: something new"),
		withFix("users.jdoe.roles", `"payroll-ops"`, `adding "payroll-ops" to users.jdoe.roles`),
		withFix("users.JDOE/DEPT.rows", `{"grp":"1","type":"LOGIN","name":"LOGIN.PAY"}`, "adding the row"),
		withFix("users.JDOE/DEPT.rows", `{"grp":"1","type":"JOBS","name":"PAY.RUN"}`, "adding the row"),
		withFix("users.alice.permissions", `{"type":"Credential","name":"SF*"}`, "adding it"),
		withFix("", "null", "no single grant; host.black_list names the batch user"),
		refused("policy", "code.to_come", "something new"),
	} {
		r := remedyFor(d, payroll())
		first, _ := refusals(d)
		fmt.Fprintf(&b, "%s: %s: %s\n%s\n", first.Step, first.Code, first.Detail, r.text())
		if r.Who == "" || r.What == "" || strings.Contains(r.short(), "\n") {
			t.Errorf("%s: %+v", first.Code, r)
		}
	}
	golden(t, "remedies.golden", b.String())
	if r := remedyFor(wouldStart(), payroll()); r != nil {
		t.Errorf("nothing is refused, and %+v would change that", r)
	}
	for in, want := range map[string]string{"plain-1.x": "plain-1.x", "": "''", "JDOE/DEPT": "JDOE/DEPT", "a b": "'a b'", "it's": `'it'\''s'`, "$(x)": "'$(x)'"} {
		if got := word(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func TestPreflightText(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out}
	job := "/opt/pay/run.sh as payroll for jdoe in opcon"
	for _, f := range []flight{
		{Line: 1, OK: true, ID: "j-1", Job: job}, {Line: 2, OK: true, Job: job, Dim: 2},
		{Line: 3, Job: job, Step: "batch_user", Code: wire.CredentialStale, Why: "Vault\x1b was\nnot heard of", Fix: &remedy{Who: "an operator", What: "sync", Where: "here", Command: "batchwarden sync"}},
		{Line: 4, Code: wire.RequestInvalid, Why: "the line is not JSON"},
	} {
		if err := a.tellFlight(&f); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []tally{{}, {Jobs: 2, OK: 2}, {Jobs: 4, OK: 2, Codes: map[string]int{"b": 1, "a": 1}}} {
		if err := a.sumUp(&s); (err != nil) != (s.OK < s.Jobs) {
			t.Errorf("%+v: %v", s, err)
		}
	}
	golden(t, "preflight.golden", out.String())
}

// TestLines: no line is too long to be passed over, and every one keeps its number.
func TestLines(t *testing.T) {
	in := "a\n\n  \nbb\r\n" + strings.Repeat("x", 300_000) + "\n" + strings.Repeat("y", 100_000) + "\nlast"
	var got []string
	err := eachLine(strings.NewReader(in), 100_000, func(n int, line []byte, long bool) bool {
		got = append(got, fmt.Sprintf("%d:%d:%v", n, len(line), long))
		return true
	})
	if want := "1:1:false 4:2:false 5:0:true 6:100000:false 7:4:false"; err != nil || strings.Join(got, " ") != want {
		t.Errorf("got %v, %v, want %s", got, err, want)
	}
	if err := eachLine(io.MultiReader(strings.NewReader("a\nb"), failingReader{}), 10, func(int, []byte, bool) bool { return true }); err == nil {
		t.Error("a reader that fails is taken for the end")
	}
}

type failingReader struct{}

func (failingReader) Read([]byte) (int, error) { return 0, fmt.Errorf("the disk is gone") }

func TestLaunchIn(t *testing.T) {
	for line, want := range map[string]string{
		`{"a":1,"a":2}`:           `{"a":1,"a":2} ""`, // the service says what is wrong with that
		`{"client":"c","b":[1 ]}`: `{"b":[1]} "c"`,
		`{"client":7}`:            "client is not the name",
		`{"client":""}`:           "client is not the name",
		`[1]`:                     "not a JSON object",
		`null`:                    "not a JSON object",
		`{"a":`:                   "not JSON: octet 5",
		`{"a":1} {"b":2}`:         "not JSON",
	} {
		body, client, err := launchIn([]byte(line))
		got := fmt.Sprintf("%s %q", body, client)
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, want) {
			t.Errorf("%s: got %s, want %s", line, got, want)
		}
	}
}

func TestDecisionStory(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	l, err := audit.Open(file, audit.Options{Sync: time.Hour, Rotate: 1500}) // over several files
	if err != nil {
		t.Fatal(err)
	}
	at, three := noon.Add(-time.Hour), 3
	jdoe, lsam := &audit.Subject{User: "jdoe"}, &audit.Peer{PID: 7, UID: 1001, GID: 1001, User: "opcon", Exe: "/opt/opcon/lsam", Unit: "lsam.service"}
	job := &audit.Job{ID: "j-1"}
	launch := audit.Record{Kind: audit.Launch, Verdict: audit.Allow, Client: "opcon-lsam", Peer: lsam, Realm: "opcon", Subject: jdoe, BatchUser: "payroll",
		Username: "svc-pay", CredentialVersion: 7, PolicyVersion: 3, Rule: "OC5", Reason: "a role grants it", Job: job}
	of := func(kind, decision, client, code, reason string) audit.Record {
		return audit.Record{Kind: kind, Verdict: audit.Allow, DecisionID: decision, Client: client, Realm: "opcon", BatchUser: "payroll", Username: "svc-pay", Code: code, Reason: reason, Job: job}
	}
	ended := func(decision, code, reason string) audit.Record {
		r := of(audit.JobEnded, decision, "opcon-lsam", code, reason)
		r.Verdict, r.Job = "", &audit.Job{ID: "j-1", State: "exited", ExitCode: &three, PID: 12, Started: at.Add(time.Minute), Ended: at.Add(2 * time.Minute)}
		return r
	}
	named := func(decision, verdict, code string) audit.Record {
		r := launch
		r.DecisionID, r.Verdict, r.Code = decision, verdict, code
		return r
	}
	byRoot := of(audit.Signal, "S2", "", "", "TERM")
	byRoot.Operator, byRoot.Peer = true, &audit.Peer{User: "root"}
	supposed := named("Q1", audit.Deny, wire.PolicyDenied)
	supposed.Kind, supposed.Client, supposed.ForClient, supposed.Operator, supposed.Job = audit.DryRun, "", "opcon-lsam", true, nil
	for i, r := range []audit.Record{
		named("OLD", audit.Allow, ""), ended("OLD", "", ""),
		named("D1", audit.Allow, ""), of(audit.Signal, "S1", "another", "", "HUP"), of(audit.Output, "O1", "opcon-lsam", "", ""), byRoot, ended("D1", "", ""),
		of(audit.Forget, "F1", "opcon-lsam", "", ""),
		named("NEW", audit.Allow, ""), of(audit.NotStarted, "NEW", "opcon-lsam", wire.LimitsRefused, `limits.yaml: allow_users: "svc-pay" is not among them`),
		named("NO", audit.Deny, wire.CallerForbidden), supposed,
	} {
		r.Time = at.Add(time.Duration(i) * time.Minute)
		if err := l.Append(&r); err != nil {
			t.Fatal(err)
		}
	}
	var screens []string
	for _, id := range []string{"D1", "NEW", "NO", "Q1"} {
		s, err := tellDecision(t.Context(), file, id)
		if err != nil || s == nil {
			t.Fatal(id, s, err)
		}
		screens = append(screens, s.text())
	}
	golden(t, "decision_told.golden", strings.Join(screens, "-----\n"))
	if s, err := tellDecision(t.Context(), file, "D2"); s != nil || err != nil {
		t.Errorf("a decision that is not there: %+v, %v", s, err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := tellDecision(gone, file, "D1"); err == nil {
		t.Error("Ctrl-C is not heard")
	}
}

func TestUsedText(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	l, err := audit.Open(file, audit.Options{Sync: time.Hour, Rotate: 2000})
	if err != nil {
		t.Fatal(err)
	}
	add := func(ago time.Duration, kind, verdict, user, who string, version int64, job string) {
		t.Helper()
		r := audit.Record{Time: noon.Add(-ago), Kind: kind, Verdict: verdict, Client: "opcon-lsam", Realm: "opcon", Subject: &audit.Subject{User: who}, BatchUser: user, CredentialVersion: version}
		if job != "" {
			r.Job = &audit.Job{ID: job}
		}
		if err := l.Append(&r); err != nil {
			t.Fatal(err)
		}
	}
	const day = 24 * time.Hour
	add(40*day, audit.Launch, audit.Allow, "payroll", "ancient", 1, "j-0")
	for i := range 20 {
		add(time.Duration(29-i)*day, audit.Launch, audit.Allow, "payroll", "jdoe", int64(2+i/2), fmt.Sprint("j-", i))
	}
	add(3*day, audit.Launch, audit.Deny, "payroll", "mallory", 7, "")
	add(2*day, audit.Launch, audit.Allow, "payroll2", "other", 7, "")
	add(day, audit.Retrieve, audit.Allow, "payroll", "pay\x1b", 11, "")
	add(day, audit.Delivered, audit.Allow, "payroll", "", 11, "")
	u, err := uses(t.Context(), file, "payroll", noon.Add(-usedSince))
	if err != nil {
		t.Fatal(err)
	}
	v := usedUser{Used: u}
	nobody, err := uses(t.Context(), file, "nobody", noon.Add(-usedSince))
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "batch_user_used.golden", v.text(clocked())+(&usedUser{Used: nobody}).text(clocked())+(&usedUser{Unknown: "Who used it is not shown: " + logIsTheirs}).text(clocked()))
	if _, err := clocked().usesOf(t.Context(), filepath.Join(t.TempDir(), "none.yaml"), "payroll"); err == nil || !strings.Contains(err.Error(), "where the audit log lies") {
		t.Errorf("no configuration: %v", err)
	}
}
