package daemon_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

func TestLaunch(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	payroll := b.Accounts.Payroll

	t.Run("the job runs as the batch user's account", func(t *testing.T) {
		job, out := run(t, b, map[string]any{"command": []string{"/bin/sh", "-c", "id -u; id -g; id -G; pwd; umask; cut -d' ' -f6 /proc/$$/stat; echo $$"}})
		got := strings.Fields(out)
		if len(got) < 7 {
			t.Fatalf("job %+v said %q and %q", job, out, output(t, b, job.ID, "stderr"))
		}
		for i, want := range []string{fmt.Sprint(payroll.UID), fmt.Sprint(payroll.GID)} {
			if got[i] != want {
				t.Errorf("id %d: got %s, want %s", i, got[i], want)
			}
		}
		if n := len(got); got[n-1] != got[n-2] {
			t.Errorf("session %s, pid %s: the job does not lead its own session", got[n-2], got[n-1])
		}
		if got[3] != payroll.Home {
			t.Errorf("working directory: got %s, want the account's home %s", got[3], payroll.Home)
		}
		if job.State != wire.Exited || job.ExitCode == nil || *job.ExitCode != 0 || job.User != payroll.Name || job.Client != "lsam" {
			t.Errorf("job: %+v", job)
		}
	})
	t.Run("exit code, signal and output are reported", func(t *testing.T) {
		job, out := run(t, b, map[string]any{"command": []string{"/bin/sh", "-c", "echo out; echo err >&2; exit 7"}})
		if job.ExitCode == nil || *job.ExitCode != 7 || out != "out\n" || output(t, b, job.ID, "stderr") != "err\n" {
			t.Errorf("job %+v, stdout %q", job, out)
		}
		job, _ = run(t, b, map[string]any{"command": []string{"/bin/sh", "-c", "kill -9 $$"}})
		if job.Signal != "KILL" || job.ExitCode != nil || job.State != wire.Exited {
			t.Errorf("killed job: %+v", job)
		}
	})
	t.Run("the environment is ours and the request's alone", func(t *testing.T) {
		_, out := run(t, b, map[string]any{"command": []string{"/usr/bin/env"}, "env": map[string]string{"PERIOD": "2026-11"}})
		for _, line := range lines(out) {
			name, _, _ := strings.Cut(line, "=")
			switch name {
			case "HOME", "USER", "LOGNAME", "SHELL", "PATH", "PERIOD":
			default:
				t.Errorf("the job has %q in its environment", line)
			}
		}
		if !strings.Contains(out, "PERIOD=2026-11\n") || !strings.Contains(out, "USER="+payroll.Name+"\n") {
			t.Errorf("environment: %q", out)
		}
	})
	t.Run("variables that steer the loader or shells are refused", func(t *testing.T) {
		a := call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(map[string]any{"env": map[string]string{"LD_PRELOAD": "/tmp/x.so"}}))
		want(t, a, 403, wire.LimitsRefused)
	})
	t.Run("what was granted but cannot start is a failed job", func(t *testing.T) {
		for command, code := range map[string]string{"/no/such/program": "exec.not_found", "/etc/passwd": "exec.forbidden"} {
			job := read[wire.Job](t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(map[string]any{"command": []string{command}})))
			if job = ended(t, b, job.ID); job.State != wire.Failed || job.Code != code {
				t.Errorf("%s: got state %s code %s (%s), want failed %s", command, job.State, job.Code, job.Reason, code)
			}
		}
		job := read[wire.Job](t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(map[string]any{"dir": "/no/such/directory"})))
		if job = ended(t, b, job.ID); job.Code != "chdir.failed" {
			t.Errorf("dir: got %+v, want chdir.failed", job)
		}
	})
	t.Run("the same id and body is the same job", func(t *testing.T) {
		once := body(map[string]any{"id": "lsam-000123", "command": []string{"/bin/sh", "-c", "echo x >> $HOME/once"}})
		first := call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", once)
		ended(t, b, "lsam-000123")
		second := call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", once)
		if first.Status != 201 || second.Status != 200 {
			t.Errorf("got %d then %d %s, want 201 then 200", first.Status, second.Status, second.Body)
		}
		if text, err := os.ReadFile(filepath.Join(payroll.Home, "once")); err != nil || string(text) != "x\n" {
			t.Errorf("the job ran %d times (%v), want once", len(text)/2, err)
		}
		once["command"] = []string{"/bin/false"}
		want(t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", once), 409, wire.IDConflict)
	})
	t.Run("a job of another client does not exist", func(t *testing.T) {
		run(t, b, map[string]any{"id": "mine"})
		want(t, call(t, b, b.Accounts.Stranger, "GET", "/v1/jobs/mine", nil), 403, wire.CallerUnknown)
		want(t, call(t, b, testbed.Root, "GET", "/v1/jobs/mine/output/stdout", nil), 403, wire.CallerForbidden)
	})
	t.Run("lists can be narrowed", func(t *testing.T) {
		for _, id := range []string{"list-1", "list-2", "list-3"} {
			run(t, b, map[string]any{"id": id, "labels": map[string]string{"batch": "night", "n": id}})
		}
		list := func(query string) (ids []string) {
			t.Helper()
			for _, j := range read[wire.Jobs](t, call(t, b, b.Accounts.LSAM, "GET", "/v1/jobs?"+query, nil)).Jobs {
				ids = append(ids, j.ID)
			}
			return ids
		}
		for query, want := range map[string]string{
			"label=batch=night":                      "[list-1 list-2 list-3]",
			"label=batch=night&label=n=list-2":       "[list-2]",
			"label=batch=night&limit=2":              "[list-1 list-2]",
			"label=batch=night&limit=2&after=list-2": "[list-3]",
			"label=batch=night&state=exited":         "[list-1 list-2 list-3]",
			"label=batch=night&state=running":        "[]",
			"since=2999-01-01T00:00:00Z":             "[]",
		} {
			if got := fmt.Sprint(list(query)); got != want {
				t.Errorf("%s: got %s, want %s", query, got, want)
			}
		}
		for _, query := range []string{"state=asleep", "since=yesterday", "limit=0", "label=batch", "after=no-such-job", "colour=red"} {
			want(t, call(t, b, b.Accounts.LSAM, "GET", "/v1/jobs?"+query, nil), 400, wire.RequestInvalid)
		}
	})
	t.Run("wait parks until the end", func(t *testing.T) {
		job := read[wire.Job](t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(map[string]any{"command": []string{"/bin/sleep", "1"}})))
		if job.State != wire.Running || job.PID == 0 {
			t.Errorf("just started: %+v", job)
		}
		begun := time.Now()
		job = read[wire.Job](t, call(t, b, b.Accounts.LSAM, "GET", "/v1/jobs/"+job.ID+"?wait=20s", nil))
		if took := time.Since(begun); !job.Done() || took > 10*time.Second {
			t.Errorf("after %s: %+v", took, job)
		}
	})
	t.Run("output can be followed while the job runs", func(t *testing.T) {
		job := read[wire.Job](t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs",
			body(map[string]any{"command": []string{"/bin/sh", "-c", "echo one; sleep 1; echo two"}})))
		a := call(t, b, b.Accounts.LSAM, "GET", "/v1/jobs/"+job.ID+"/output/stdout?follow=1", nil)
		if string(a.Body) != "one\ntwo\n" {
			t.Errorf("followed %q", a.Body)
		}
		a = call(t, b, b.Accounts.LSAM, "GET", "/v1/jobs/"+job.ID+"/output/stdout?offset=4&limit=3", nil)
		if string(a.Body) != "two" {
			t.Errorf("offset 4, limit 3: got %q", a.Body)
		}
	})
	t.Run("a descendant left behind is killed and counted", func(t *testing.T) {
		job, _ := run(t, b, map[string]any{"command": []string{"/bin/sh", "-c", "setsid sleep 300 >/dev/null 2>&1 & sleep 0.2"}})
		if job.Survivors == 0 {
			t.Errorf("survivors: %+v", job)
		}
	})
	t.Run("a job that takes too long is stopped", func(t *testing.T) {
		job, _ := run(t, b, map[string]any{"command": []string{"/bin/sleep", "300"}, "timeout": "1s"})
		if job.Code != "job.timeout" || job.Signal != "TERM" {
			t.Errorf("got %+v, want job.timeout by TERM", job)
		}
	})
	t.Run("a job that is canceled says so, however it ends", func(t *testing.T) {
		for text, signal := range map[string]string{"echo on; exec sleep 300": "TERM", "trap '' TERM; echo on; while :; do sleep 1; done": "KILL", "trap 'exit 0' TERM; echo on; while :; do sleep 0.1; done": ""} {
			job := read[wire.Job](t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(map[string]any{"command": []string{"/bin/sh", "-c", text}})))
			for until := time.Now().Add(10 * time.Second); len(call(t, b, b.Accounts.LSAM, "GET", "/v1/jobs/"+job.ID+"/output/stdout", nil).Body) == 0; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(until) {
					t.Fatalf("%s: not begun", text)
				}
			}
			want(t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs/"+job.ID+"/signal", `{"signal":"CANCEL","grace":"2s"}`), 200, "")
			job = read[wire.Job](t, call(t, b, b.Accounts.LSAM, "GET", "/v1/jobs/"+job.ID+"?wait=20s", nil))
			if job.State != wire.Failed || job.Code != "job.canceled" || job.Signal != signal || (job.ExitCode == nil) != (signal != "") {
				t.Errorf("%s: got %+v", text, job)
			}
		}
	})
}

func TestLaunchLimits(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	// Whatever Vault and the policy say, the host's owner has the last word (OC15).
	for name, account := range map[string]string{"superuser": "root", "system": "daemon"} {
		if err := b.PutDocument(name, map[string]any{"username": account, "kind": "none", "names": map[string]string{"opcon": "users/" + name}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.PutDocument("ghost", map[string]any{"username": "no-such-account", "kind": "none", "names": map[string]string{"opcon": "users/ghost"}}); err != nil {
		t.Fatal(err)
	}
	grant(t, b, "users/superuser", "users/system", "users/ghost")
	for name, code := range map[string]string{"superuser": wire.LimitsRefused, "system": wire.LimitsRefused, "ghost": wire.AccountMissing} {
		a := call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(map[string]any{"id": "refused-" + name, "batch_user": name}))
		status := 403
		if code == wire.AccountMissing {
			status = 422
		}
		want(t, a, status, code)
		want(t, call(t, b, b.Accounts.LSAM, "GET", "/v1/jobs/refused-"+name, nil), 404, wire.JobUnknown)
		audited(t, b, map[string]string{"kind": "launch.failed", "code": code, "batch_user": name})
	}
}

// OC17: the batch user's group becomes the primary one, if the account has it.
func TestPrimaryGroup(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	if r := b.Command(testbed.Root, "groupadd", "--gid", "4711", "oc17"); r.Code != 0 {
		t.Fatal(r.Err)
	}
	t.Cleanup(func() {
		if r := b.Command(testbed.Root, "groupdel", "oc17"); r.Code != 0 {
			t.Error(r.Err)
		}
	})
	if r := b.Command(testbed.Root, "usermod", "--append", "--groups", "oc17", b.Accounts.Payroll.Name); r.Code != 0 {
		t.Fatal(r.Err)
	}
	for name, account := range map[string]testbed.Account{"member": b.Accounts.Payroll, "outsider": b.Accounts.Reports} {
		if err := b.PutDocument(name, map[string]any{"username": account.Name, "group": "oc17", "kind": "none", "names": map[string]string{"opcon": "oc17/" + name}}); err != nil {
			t.Fatal(err)
		}
	}
	grant(t, b, "oc17/member", "oc17/outsider")
	_, out := run(t, b, map[string]any{"batch_user": "member", "command": []string{"/bin/sh", "-c", "id -g; id -u"}})
	if want := fmt.Sprintf("4711\n%d\n", b.Accounts.Payroll.UID); out != want {
		t.Errorf("ids %q, want %q", out, want)
	}
	a := call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(map[string]any{"batch_user": "outsider"}))
	want(t, a, 422, wire.AccountMissing)
}

func TestRestart(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	job := read[wire.Job](t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(map[string]any{"command": []string{"/bin/sleep", "2"}})))
	if err := b.RestartDaemon(); err != nil {
		t.Fatal(err)
	}
	if job = ended(t, b, job.ID); job.State != wire.Exited || job.ExitCode == nil || *job.ExitCode != 0 || job.BatchUser != "payroll" {
		t.Errorf("a job that the daemon's restart must not touch: %+v", job)
	}
	audited(t, b, map[string]string{"kind": "job.ended", "decision_id": job.DecisionID})
	if err := b.RestartLauncher(); err != nil {
		t.Fatal(err)
	}
	if again := ended(t, b, job.ID); again.State != wire.Exited {
		t.Errorf("after the launcher's restart: %+v", again)
	}
	if job, _ := run(t, b, nil); job.State != wire.Exited {
		t.Errorf("a new job after both restarts: %+v", job)
	}
}

func TestAuditBeforeAct(t *testing.T) {
	t.Run("one line before the job, one after it", func(t *testing.T) {
		b := testbed.New(t, testbed.Options{})
		job, out := run(t, b, map[string]any{"id": "seen", "command": []string{"/bin/sh", "-c", "echo $1", "sh", "argument-canary"}, "env": map[string]string{"X": "environment-canary"}})
		decision := audited(t, b, map[string]string{"kind": "launch", "verdict": "allow", "decision_id": job.DecisionID})
		audited(t, b, map[string]string{"kind": "job.ended", "decision_id": job.DecisionID})
		if decision.Text("rule") == "" || decision.Text("client") != "lsam" || decision.Text("batch_user") != "payroll" {
			t.Errorf("decision: %v", decision)
		}
		text, err := os.ReadFile(b.AuditFile())
		if err != nil {
			t.Fatal(err)
		}
		for _, secret := range append(b.Passwords(), "argument-canary", "environment-canary") {
			if strings.Contains(string(text), secret) {
				t.Errorf("the audit file holds %q (the job said %q)", secret, out)
			}
		}
	})
	t.Run("no audit, no launch, no password", func(t *testing.T) {
		b := testbed.New(t, testbed.Options{})
		disk := fullDisk(t, b)
		reconfigure(t, b, func(yaml string) string { return replaceLine(yaml, "audit:", "audit: {file: "+disk+"/audit.jsonl}") })
		if a := call(t, b, testbed.Root, "GET", "/v1/health", nil); a.Status != 503 {
			t.Errorf("health: %d %s", a.Status, a.Body)
		}
		a := call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(map[string]any{"id": "unaudited", "command": []string{"/bin/sh", "-c", "touch $HOME/unaudited"}}))
		want(t, a, 503, wire.AuditUnavailable)
		want(t, call(t, b, b.Accounts.LSAM, "GET", "/v1/jobs/unaudited", nil), 404, wire.JobUnknown)
		if _, err := os.Stat(filepath.Join(b.Accounts.Payroll.Home, "unaudited")); err == nil {
			t.Error("the job ran")
		}
		a = call(t, b, b.Accounts.LSAM, "POST", "/v1/batch-users/payroll/retrieve", map[string]any{"realm": "opcon", "subject": map[string]any{"user": testbed.User}})
		want(t, a, 503, wire.AuditUnavailable)
	})
}

// fullDisk mounts a file system that has no room left, in the tests' own mount
// namespace.
func fullDisk(t *testing.T, b *testbed.Bed) string {
	t.Helper()
	dir := filepath.Join(b.State, "full")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if r := b.Command(testbed.Root, "mount", "-t", "tmpfs", "-o", "size=16k,mode=777", "none", dir); r.Code != 0 {
		t.Fatal(r.Err)
	}
	t.Cleanup(func() {
		if err := b.Daemon.Stop(); err != nil {
			t.Error(err)
		}
		if r := b.Command(testbed.Root, "umount", dir); r.Code != 0 {
			t.Error(r.Err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "filler"), make([]byte, 1<<20), 0o644); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("the disk does not fill: %v", err)
	}
	return dir
}

// reconfigure stops the daemon, changes its configuration and starts it again;
// it need not become healthy, only answer.
func reconfigure(t *testing.T, b *testbed.Bed, edit func(string) string) {
	t.Helper()
	if err := b.Daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(b.ConfigFile())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.ConfigFile(), []byte(edit(string(text))), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := b.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(20 * time.Millisecond) {
		if s, err := b.Status(); err == nil && s.State == wire.StateOnline {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the daemon does not come back:\n%s", b.Logbook(20))
		}
	}
}

// replaceLine changes the line that begins so.
func replaceLine(text, begin, line string) string {
	var out strings.Builder
	for l := range strings.Lines(text) {
		if strings.HasPrefix(l, begin) {
			l = line + "\n"
		}
		out.WriteString(l)
	}
	return out.String()
}
