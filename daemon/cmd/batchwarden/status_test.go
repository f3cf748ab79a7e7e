package main

import (
	"bytes"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"batchwarden/ipc/wire"
)

func online() condition {
	return condition{
		Status: wire.Status{
			State: wire.StateOnline, Machine: "db01", Version: "v1.2.3", Started: at(50 * time.Hour),
			Sync: wire.Sync{
				Outcome: "ok", Address: "https://vault.example.com:8200", LastSuccess: at(12 * time.Second),
				LastAttempt: at(12 * time.Second), NextAttempt: noon.Add(18 * time.Second), Changed: 2, Removed: 1,
			},
			BatchUsers: wire.BatchUserCount{Total: 2, Ready: 2},
			Policies: []wire.Policy{
				{Realm: "automic", Model: "automic", Version: 12, Scope: "groups/finance", AgeSeconds: 12, State: "active"},
				{Realm: "opcon", Model: "opcon", Version: 7, Scope: "machines/db01", AgeSeconds: 12, State: "active"},
			},
			Memory:     wire.Memory{Backend: "memfd_secret"},
			LocalVault: wire.LocalVault{Records: 13, Bytes: 20480, Key: "keyfile", KeyID: "9f86d081"},
			Launcher:   wire.Launcher{Connected: true, Since: at(50 * time.Hour), Version: "v1.2.3", Containment: "cgroup2"},
			Jobs:       wire.JobCount{Running: 3, Kept: 120, Oldest: at(95 * time.Minute), States: map[string]int{"running": 3, "exited": 117, "failed": 2, "lost": 1}},
		},
		Health: wire.Health{Healthy: true, State: wire.StateOnline},
		users: []wire.BatchUser{
			{Name: "ledger", Username: "svc_ledger", Domain: "CORP", State: "ready", Version: 3, AgeSeconds: 12, Rotates: noon.Add(26 * time.Hour)},
			{Name: "payroll", Username: "payroll", State: "ready", Version: 7, AgeSeconds: 12},
		},
	}
}

func offline() condition {
	s := online()
	s.State = wire.StateOffline
	s.Sync.Outcome, s.Sync.Detail = "vault.unreachable", "dial tcp 192.0.2.1:8200: connection refused."
	s.Sync.LastSuccess, s.Sync.LastAttempt = at(3*time.Hour+13*time.Minute), at(40*time.Second)
	s.Sync.OfflineSince = at(3*time.Hour + 12*time.Minute)
	s.BatchUsers = wire.BatchUserCount{Total: 3, Ready: 1, Stale: 1, Rejected: 1, Shared: 2}
	s.users = []wire.BatchUser{
		{Name: "ledger", Username: "ledger", State: "ready", Version: 3, AgeSeconds: 11580},
		{Name: "nightly", Username: "nightly", State: "stale", Version: 1, AgeSeconds: 400000},
		{Name: "payroll", Username: "payroll", State: "rejected", Version: 7, AgeSeconds: 11580},
	}
	s.Policies[0].State, s.Policies[0].Detail = "stale", "Vault last confirmed it too long ago"
	s.Problems = []wire.Finding{
		{Code: "vault.unreachable", Detail: "dial tcp 192.0.2.1:8200: connection refused", Path: "https://vault.example.com:8200"},
		{Code: wire.CredentialRejected, Detail: `version 7 of batch user "payroll" was reported as rejected`, Path: "machines/db01/batch_users/payroll"},
		{Code: "policy.stale", Detail: "Vault last confirmed it too long ago", Path: "automic"},
	}
	return s
}

func degraded() condition {
	s := online()
	s.Memory = wire.Memory{Backend: "memguard", Degraded: "memory may be swapped", Dumpable: true}
	s.LocalVault.Quarantined = 1
	s.Launcher = wire.Launcher{Detail: "connection refused", Since: at(time.Minute)}
	s.Jobs = wire.JobCount{}
	s.Problems = []wire.Finding{
		{Code: wire.LauncherUnavailable, Detail: "connection refused", Path: "/run/batchwarden-launcher/launcher.sock"},
		{Code: "config.name", Path: "clients.lsam.match.user", Detail: `user "opcon" does not exist; the entry matches nobody`},
		{Code: "odd", Detail: "an escape \x1b[31m and\na line end"},
	}
	s.Health = wire.Health{State: wire.StateOnline, Reasons: []wire.Finding{{Code: wire.LauncherUnavailable, Detail: "connection refused"}}}
	return s
}

func suspended() condition {
	s := online()
	s.Suspension = &wire.Suspension{Suspended: true, Since: at(time.Hour), By: "alice", Reason: "disks are moved"}
	f := wire.Finding{Code: wire.MachineSuspended, Detail: s.Suspension.Words()}
	s.Problems, s.Health = []wire.Finding{f}, wire.Health{State: wire.StateOnline, Reasons: []wire.Finding{f}}
	return s
}

func starting() condition {
	return condition{
		Status: wire.Status{
			State: wire.StateStarting, Machine: "db01", Version: "v1.2.3", Started: at(3 * time.Second),
			Sync:   wire.Sync{Outcome: "vault.login_refused", Detail: "invalid secret id"},
			Memory: wire.Memory{Backend: "memfd_secret"}, Launcher: wire.Launcher{Connected: true, Since: at(3 * time.Second)},
			Policies: []wire.Policy{{Realm: "opcon", Model: "opcon", State: "missing"}},
			Problems: []wire.Finding{{Code: "vault.login_refused", Detail: "invalid secret id"}, {Code: "policy.missing", Detail: "none has reached this machine", Path: "opcon"}},
		},
		Health: wire.Health{State: wire.StateStarting, Reasons: []wire.Finding{{Code: "state.starting", Detail: "nothing has been synced yet"}}},
	}
}

func many() condition {
	s := online()
	s.BatchUsers = wire.BatchUserCount{Total: 1000, Ready: 998}
	s.users, s.Problems = nil, nil
	for i := range 900 {
		u := wire.BatchUser{Name: fmt.Sprintf("user%03d", i), Username: "batch", State: "ready", Version: 1, AgeSeconds: 12}
		if i > 897 {
			u.State = "expired"
		}
		s.users = append(s.users, u)
	}
	for i := range 30 {
		s.Problems = append(s.Problems, wire.Finding{Code: "document.refused", Detail: "it has no username", Path: fmt.Sprintf("machines/db01/batch_users/bad%02d", i)})
	}
	return s
}

func TestStatusText(t *testing.T) {
	escapes := regexp.MustCompile("\x1b\\[[0-9;]*m")
	for name, s := range map[string]condition{
		"online": online(), "offline": offline(), "degraded": degraded(), "suspended": suspended(), "starting": starting(), "many": many(),
	} {
		plain := clocked().statusText(&s, false)
		golden(t, "status_"+name+".golden", plain)
		if lines := strings.Count(plain, "\n"); lines > 70 {
			t.Errorf("%s: %d lines are more than a screen", name, lines)
		}
		tinted := clocked().statusText(&s, true)
		if tinted == plain || escapes.ReplaceAllString(tinted, "") != plain {
			t.Errorf("%s: colours change more than colours:\n%s", name, tinted)
		}
	}
	s := offline()
	golden(t, "status_colours.golden", strings.ReplaceAll(clocked().statusText(&s, true), "\x1b", "^["))
}

// TestColours: only for a terminal, and not for whoever does not want them.
func TestColours(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	defer terminal.Close() // nothing was written
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "xterm")
	if a := (&app{out: terminal}); !bool(a.painter()) {
		t.Error("no colours on a terminal")
	}
	if a := (&app{out: new(bytes.Buffer)}); bool(a.painter()) {
		t.Error("colours in a file")
	}
	t.Setenv("NO_COLOR", "1")
	if a := (&app{out: terminal}); bool(a.painter()) {
		t.Error("colours in spite of NO_COLOR")
	}
	t.Setenv("NO_COLOR", "")
	t.Setenv("TERM", "dumb")
	if a := (&app{out: terminal}); bool(a.painter()) {
		t.Error("colours on a dumb terminal")
	}
}

// told is a writer that says when something was written.
type told struct {
	bytes.Buffer
	once chan struct{}
}

func (w *told) Write(b []byte) (int, error) {
	n, err := w.Buffer.Write(b)
	select {
	case w.once <- struct{}{}:
	default: // nobody waits any more
	}
	return n, err
}

// TestProgress: work that takes long says so and takes its words away; work that does not says nothing, nor does any
// where there is no terminal.
func TestProgress(t *testing.T) {
	w, end, ended := &told{once: make(chan struct{})}, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		progress(w, "Asking Vault", func() string { return ", 7 documents" }, time.Millisecond, end)
	}()
	<-w.once
	close(end)
	<-ended
	if got := w.String(); !strings.Contains(got, "Asking Vault … ") || !strings.Contains(got, ", 7 documents") || !strings.HasSuffix(got, "\r\x1b[K") {
		t.Errorf("got %q", got)
	}
	w, end = &told{}, make(chan struct{})
	close(end)
	progress(w, "Asking Vault", nil, time.Hour, end)
	var file bytes.Buffer
	(&app{errs: &file}).working("Asking Vault", nil)()
	if w.Len()+file.Len() > 0 {
		t.Errorf("got %q and %q", w.String(), file.String())
	}
}

// TestEveryProblemHasANextStep reads the codes of problems where they arise.
func TestEveryProblemHasANextStep(t *testing.T) {
	code := regexp.MustCompile(`"((?:vault|sync|local_vault|audit|memory|config|clock|policy|launcher|document|state)\.[a-z_]+)"`)
	found := 0
	for _, file := range []string{"../../broker/report.go", "../../broker/caller.go", "../../sync.go", "../../../vault/errand/errand.go", "../../../vault/refresh/refresh.go"} {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range code.FindAllStringSubmatch(string(text), -1) {
			if found++; nextByFinding[m[1]] == "" && nextByCode[m[1]] == "" {
				t.Errorf("%s: %s has no next step", file, m[1])
			}
		}
	}
	for _, state := range []string{"missing", "refused", "stale"} {
		if nextByFinding["policy."+state] == "" {
			t.Errorf("policy.%s has no next step", state)
		}
	}
	if found < 25 {
		t.Errorf("only %d codes were found", found)
	}
}

func TestVerifiedText(t *testing.T) {
	v := func(outcome, code, reason string, tried bool) string {
		verified := wire.Verified{Outcome: outcome, Code: code, Reason: reason, Version: 7, Username: "svcpay"}
		if tried {
			verified.Checked = noon
		}
		return verifiedText("payroll", &verified) + "\n"
	}
	golden(t, "verify.golden", v(wire.Accepted, "", "", true)+
		v(wire.Accepted, "", "version 7 was tried before, at 2026-03-04T12:00:00Z, and is not tried again", true)+
		v(wire.Rejected, wire.CredentialRejected, "pam: password: Authentication failure", true)+
		v(wire.NotChecked, wire.AccountLocked, "pam: locked: the account's password is locked", false)+
		v(wire.NotChecked, "launch.failed", `pam: there is no service "night" in /etc/pam.d`, false)+
		v(wire.NotChecked, wire.VerifyUnknown, "PAM may have tried the password, and what came of it is not known", true))
}
