package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// TestPAM: the services of clients and batch users, on real accounts.
func TestPAM(t *testing.T) {
	b := testbed.New(t, testbed.Options{Edit: func(yaml string) string {
		return strings.Replace(yaml, `    batch_users: ["*"]`, `    batch_users: ["*"]`+"\n    pam: bw-client", 1)
	}})
	dir := filepath.Join(b.Root, "pam")
	witness, lim := dir+"/witness", dir+"/limits"
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	tell := "session required pam_exec.so quiet " + dir + "/tell\n"
	for file, text := range map[string]string{ // /etc is the tests' own
		dir + "/tell":           "#!/bin/sh\necho $PAM_SERVICE $PAM_TYPE $PAM_USER $PAM_RUSER >>" + witness + "\n",
		lim:                     "* - nofile 400\n* - priority 7\n",
		"/etc/pam.d/bw-client":  "account required pam_unix.so\n" + tell + "session required pam_limits.so conf=" + lim + "\n",
		"/etc/pam.d/bw-user":    "account required pam_unix.so\n" + tell,
		"/etc/pam.d/bw-nologin": "account required pam_nologin.so file=" + dir + "/nologin\n",
		"/etc/pam.d/bw-endless": "account required pam_permit.so\nsession required pam_exec.so quiet " + dir + "/endless\n",
		dir + "/endless":        "#!/bin/sh\necho begun >>" + dir + "/begun\nexec sleep 600\n",
		dir + "/nologin":        "closed for the night\n",
	} {
		if err := os.WriteFile(file, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	var logins []string
	for name, document := range map[string]map[string]any{
		"theirs": {"username": b.Accounts.Payroll.Name, "pam": "bw-user"}, "night": {"username": b.Accounts.Payroll.Name, "pam": "bw-nologin"},
		"none": {"username": b.Accounts.Payroll.Name, "pam": "bw-none"}, "endless": {"username": b.Accounts.Payroll.Name, "pam": "bw-endless"},
		"reporter": {"username": b.Accounts.Reports.Name},
	} {
		document["kind"], document["names"] = "none", map[string]string{"opcon": "pam/" + name}
		if err := b.PutDocument(name, document); err != nil {
			t.Fatal(err)
		}
		logins = append(logins, "pam/"+name)
	}
	grant(t, b, logins...)
	told := func() string {
		text, err := os.ReadFile(witness)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(witness); err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	root := func(command ...string) {
		t.Helper()
		if r := b.Command(testbed.Root, command...); r.Code != 0 {
			t.Fatal(r.Err)
		}
	}
	sessions := func(service, user string) string {
		return fmt.Sprintf("%[1]s open_session %[2]s %[3]s\n%[1]s close_session %[2]s %[3]s\n", service, user, b.Accounts.LSAM.Name)
	}
	show := map[string]any{"command": []string{"/bin/sh", "-c", "ulimit -Hn; nice"}}

	if _, out := run(t, b, show); out != "400\n7\n" {
		t.Errorf("what the client's service sets: %q", out)
	}
	settle(t, func() bool { text, _ := os.ReadFile(witness); return strings.Count(string(text), "\n") == 2 })
	if got := told(); got != sessions("bw-client", b.Accounts.Payroll.Name) {
		t.Errorf("told %q", got)
	}
	run(t, b, map[string]any{"batch_user": "theirs"})
	settle(t, func() bool { text, _ := os.ReadFile(witness); return strings.Count(string(text), "\n") == 2 })
	if got := told(); got != sessions("bw-user", b.Accounts.Payroll.Name) {
		t.Errorf("told %q", got)
	}

	ownLimits(t, b, "max: {nofile: 300}")
	if _, out := run(t, b, show); out != "300\n7\n" {
		t.Errorf("within max: %q", out)
	}
	ownLimits(t, b, "")
	show["unix"] = map[string]any{"limits": map[string]any{"nofile": 200}, "nice": 3}
	if _, out := run(t, b, show); out != "200\n3\n" {
		t.Errorf("the request wins: %q", out)
	}
	show["unix"] = map[string]any{"limits": map[string]any{"nofile": 401}}
	if job := refusedJob(t, b, show); job.Code != wire.LimitsRefused || !strings.Contains(job.Reason, "nofile: 401 is above 400") {
		t.Errorf("above what PAM sets: %+v", job)
	}

	reports := b.Accounts.Reports.Name
	root("chage", "-E", "1", reports)
	expired := refusedJob(t, b, map[string]any{"batch_user": "reporter"})
	root("chage", "-E", "-1", reports)
	root("usermod", "-p", "!$6$abcdefgh$xyz", reports)
	locked := refusedJob(t, b, map[string]any{"batch_user": "reporter"})
	root("usermod", "-p", "*", reports)
	for _, c := range []struct {
		name  string
		job   wire.Job
		code  string
		words string
	}{
		{"expired", expired, wire.AccountExpired, "expired"},
		{"locked", locked, wire.AccountLocked, "locked"},
		{"nologin", refusedJob(t, b, map[string]any{"batch_user": "night"}), "logon.failed", "closed for the night"},
		{"no such service", refusedJob(t, b, map[string]any{"batch_user": "none"}), "launch.failed", `there is no service "bw-none"`},
	} {
		if c.job.Code != c.code || !strings.Contains(c.job.Reason, c.words) {
			t.Errorf("%s: got %+v, want %s with %q", c.name, c.job, c.code, c.words)
		}
		audited(t, b, map[string]string{"kind": "job.ended", "decision_id": c.job.DecisionID, "code": c.code})
	}

	// A module that does not end does not keep the launcher from ending.
	answered := make(chan testbed.Answer, 1)
	go func() { // ends with the answer, at the latest with that of a launcher that is not there
		a, _ := b.Call(b.Accounts.LSAM, "POST", "/v1/jobs", body(map[string]any{"id": "endless", "batch_user": "endless"}))
		answered <- a
	}()
	settle(t, func() bool { _, err := os.Stat(dir + "/begun"); return err == nil })
	begun := time.Now()
	if err := b.RestartLauncher(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(begun); took > 10*time.Second {
		t.Errorf("the launcher took %v to end and come back", took)
	}
	<-answered
	if job := ended(t, b, "endless"); job.State != wire.Failed || job.Code != "launch.failed" || !strings.Contains(job.Reason, "pam: ") {
		t.Errorf("got %+v", job)
	}
}

// refusedJob is run for a job that was granted and does not start.
func refusedJob(t *testing.T, b *testbed.Bed, change map[string]any) wire.Job {
	t.Helper()
	job := read[wire.Job](t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(change)))
	if job = ended(t, b, job.ID); job.State != wire.Failed || job.PID != 0 {
		t.Errorf("got %+v, want a job that did not start", job)
	}
	return job
}

// settle waits until it is so.
func settle(t *testing.T, so func() bool) {
	t.Helper()
	for until := time.Now().Add(10 * time.Second); !so(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("it does not come to be so")
		}
	}
}
