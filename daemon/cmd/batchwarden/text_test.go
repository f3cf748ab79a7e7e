package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"batchwarden/ipc/wire"
)

// at is a moment so long before noon.
func at(before time.Duration) time.Time { return noon.Add(-before) }

func clocked() *app { return &app{now: func() time.Time { return noon }} }

// TestStatusJSON: what the API says is there under the API's names, and health beside it.
func TestStatusJSON(t *testing.T) {
	var out bytes.Buffer
	a := &app{out: &out, json: true}
	s := degraded()
	s.State = wire.StateOffline
	if err := a.show(&s, "text"); err != nil {
		t.Fatal(err)
	}
	golden(t, "status_json.golden", out.String())
	var got map[string]any
	if err := json.Unmarshal(out.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if got["state"] != "offline" || got["machine"] != "db01" || got["health"].(map[string]any)["healthy"] != false {
		t.Errorf("got %s", &out)
	}
}

func TestWhoamiText(t *testing.T) {
	known := &wire.Whoami{
		Peer: wire.Peer{PID: 4711, UID: 990, GID: 990, Groups: []uint32{990, 4}, User: "opcon",
			Attested: true, Exe: "/opt/opcon/lsam", NoSHA256: "the file is too large", Unit: "lsam.service"},
		Entries: []wire.Match{{Client: "first", Reason: `exe: "/opt/opcon/lsam" is not "/opt/other"`}, {Client: "opcon-lsam", Matched: true}},
		Client:  "opcon-lsam", May: []string{"authorize", "launch"}, Realms: []string{"opcon"},
		Version: "v1.2.3", API: 1, Features: []string{"launch", "retrieve"},
	}
	stranger := &wire.Whoami{
		Peer: wire.Peer{PID: 4712, UID: 4000}, Operator: true,
		Entries: []wire.Match{{Client: "opcon-lsam", Reason: "user: uid 4000 is not opcon (990)"}},
		Reason:  "none of 2 client entries matches uid 4000", Version: "v1.2.3", API: 1,
	}
	golden(t, "whoami.golden", whoamiText(known)+"\n"+whoamiText(stranger))
}

func TestDryRunText(t *testing.T) {
	would := &wire.DryRun{Start: true, Checks: []wire.Check{{Step: "caller", OK: true}, {Step: "limits", OK: true}}}
	not := &wire.DryRun{Code: wire.LimitsRefused, Checks: []wire.Check{
		{Step: "caller", OK: true}, {Step: "limits", Code: wire.LimitsRefused, Detail: "limits.yaml: min_uid: 2 is less than 1000"}}}
	golden(t, "dry_run.golden", dryRunText(would)+"\n"+dryRunText(not))
}

func TestSyncText(t *testing.T) {
	a := clocked()
	golden(t, "sync.golden",
		a.syncText(&wire.Sync{Outcome: "ok", Address: "https://vault:8200", Changed: 1})+
			a.syncText(&wire.Sync{Outcome: "vault.sealed", Faults: []wire.Finding{{Code: "x", Path: "machines/a", Detail: "y"}}}))
}

func TestDecisionText(t *testing.T) {
	golden(t, "decision.golden", strings.Join([]string{
		decisionText(&wire.Decision{Allowed: true, DecisionID: "d1"}),
		decisionText(&wire.Decision{Code: "policy.denied", DecisionID: "d2"}),
		decisionText(&wire.Decision{
			Code: "policy.denied", Rule: "OC5", Reason: "no role grants it", DecisionID: "d3", Withheld: []string{"A", "B"},
			TraceText: "  subject  jdoe has role payroll-ops\n  grant    \x1b]0;title\adenies\ndenied by OC5: no role grants it\n",
		}),
	}, "\n"))
}

func jobs() []wire.Job {
	zero := 0
	return []wire.Job{
		{
			ID: "lsam-1", Client: "opcon-lsam", Realm: "opcon", Subject: wire.Subject{User: "jdoe", Roles: []string{"ops"}, By: "sched"},
			BatchUser: "payroll", State: wire.Running, PID: 812, User: "svc-pay", Started: at(90 * time.Second),
		},
		{
			ID: "cli-2", Client: "tests", Realm: "opcon", Subject: wire.Subject{User: "jdoe"}, BatchUser: "payroll", State: wire.Exited,
			User: "svc-pay", ExitCode: &zero, Started: at(time.Hour), Ended: at(time.Hour - 1500*time.Millisecond),
			Rusage: &wire.Rusage{CPUSeconds: 0.25, MaxRSS: 3 << 20}, Survivors: 2, CredentialVersion: 7,
			CommandSHA256: "9f86d081884c7d65", Withheld: []string{"v1"}, DecisionID: "d7",
		},
		{
			ID: "cli-3", Client: "tests", Realm: "opcon", Subject: wire.Subject{User: "jdoe"}, BatchUser: "batch", State: wire.Exited,
			User: "svc", Signal: "KILL", CoreDumped: true, Started: at(time.Hour), Ended: at(30 * time.Minute), Code: "job.timeout", Reason: "after 30m",
		},
		{ID: "cli-4", Client: "tests", Realm: "opcon", BatchUser: "batch", State: wire.Failed, Code: "exec.not_found", Reason: "/x does not exist"},
		{ID: "cli-5", Client: "tests", Realm: "opcon", BatchUser: "batch", State: wire.Lost, Code: "job.host_rebooted", Started: at(time.Hour)},
	}
}

func TestJobsText(t *testing.T) {
	a := clocked()
	all := jobs()
	text := a.jobsText(all)
	for i := range all {
		text += "\n" + a.jobText(&all[i])
	}
	golden(t, "jobs.golden", text)
	if got := a.jobsText(nil); got != "There are no jobs that you can see.\n" {
		t.Errorf("got %q", got)
	}
}

func TestBatchUsersText(t *testing.T) {
	a := clocked()
	users := []wire.BatchUser{
		{Name: "payroll", Username: "svc-pay", Group: "pay", Platform: "unix", Scope: "machines/db01", Names: map[string]string{"opcon": "users/payroll", "automic": "LOGIN.PAY"},
			Kind: "password", Version: 7, AgeSeconds: 12, State: "ready", Launch: true, Retrieve: true, Expires: noon.Add(72 * time.Hour)},
		{Name: "old", Username: "svc", Domain: "CORP", Platform: "windows", Scope: "platforms/windows", Kind: "none", Version: 1,
			AgeSeconds: 400000, State: "expired", Expires: at(time.Hour), Fault: "expired"},
	}
	text := batchUsersText(users)
	for i := range users {
		text += "\n" + a.batchUserText(&users[i])
	}
	golden(t, "batch_users.golden", text)
	if got := batchUsersText(nil); got != "There are no batch users that you can see.\n" {
		t.Errorf("got %q", got)
	}
}

func TestSpan(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Second: "0 ms", 0: "0 ms", 1500 * time.Microsecond: "1 ms", 59 * time.Second: "59 s", 61 * time.Second: "1 min 1 s",
		3*time.Hour + 12*time.Minute: "3 h 12 min", 47 * time.Hour: "47 h 0 min", 50 * time.Hour: "2 days 2 h",
	} {
		if got := span(d); got != want {
			t.Errorf("%v: got %q, want %q", d, got, want)
		}
	}
}

func TestOctets(t *testing.T) {
	for n, want := range map[int64]string{0: "0 B", 1023: "1023 B", 1024: "1.0 KiB", 1 << 20: "1.0 MiB", 5 << 29: "2.5 GiB", 1 << 50: "1024.0 TiB"} {
		if got := octets(n); got != want {
			t.Errorf("%d: got %q, want %q", n, got, want)
		}
	}
}

// TestClean: a name from elsewhere cannot steer the terminal.
func TestClean(t *testing.T) {
	for in, want := range map[string]string{
		"plain\n\tü":      "plain\n\tü",
		"\x1b[2J":         "<1B>[2J",
		"a\rb\x00\u202ec": "a<0D>b<00><202E>c",
		"\u009b31m":       "<9B>31m",
	} {
		if got := clean(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
	if got := cell("a\nb\tc"); got != "a b c" {
		t.Errorf("got %q, want one line", got)
	}
}
