package daemon_test

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// ends counts the records of each job's end.
func ends(t *testing.T, b *testbed.Bed) map[string]int {
	t.Helper()
	records, err := b.Audit()
	if err != nil {
		t.Fatal(err)
	}
	n := map[string]int{}
	for _, r := range records {
		if job, _ := r["job"].(map[string]any); r.Text("kind") == "job.ended" {
			n[testbed.AuditRecord(job).Text("id")]++
		}
	}
	return n
}

func TestAuditIsWhole(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	verify := func(code int, says string, flags ...string) {
		t.Helper()
		r := b.CLI(testbed.Root, append([]string{"audit", "verify", "--config", b.ConfigFile()}, flags...)...)
		if r.Code != code || !strings.Contains(r.Out, says) || r.Err != "" {
			t.Errorf("verify %v: got %d %s%s, want %d and %q", flags, r.Code, r.Out, r.Err, code, says)
		}
	}

	// Whenever the daemon is killed, and wherever jobs end meanwhile, each end is written once.
	for i := range 4 {
		for j := range 5 {
			want(t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(map[string]any{
				"id": fmt.Sprintf("%d-%d", i, j), "command": []string{"/bin/sleep", fmt.Sprint(float64(j) * 0.05)},
			})), 201, "")
		}
		b.Daemon.Kill()
		time.Sleep(time.Duration(i) * 50 * time.Millisecond) // how far the jobs are is another matter each time
		if err := b.StartDaemon(); err != nil {
			t.Fatal(err)
		}
		if err := b.WaitHealthy(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 4 {
		for j := range 5 {
			ended(t, b, fmt.Sprintf("%d-%d", i, j))
		}
	}
	if err := b.WaitAudited(); err != nil {
		t.Fatal(err)
	}
	if n := ends(t, b); len(n) != 20 || slices.Max([]int{n["0-0"], n["0-4"], n["1-1"], n["2-2"], n["3-3"], n["3-4"]}) != 1 {
		t.Errorf("ends: %v, want one of each of 20 jobs", n)
	}
	verify(0, "one unbroken chain")
	verify(0, "The launcher's journal agrees: 20 jobs of it", "--journal")
	if r := b.CLI(testbed.Root, "audit", "tail", "--config", b.ConfigFile(), "--job", "3-4"); r.Code != 0 ||
		!strings.Contains(r.Out, "allowed  lsam            launch of job 3-4 as payroll") || !strings.Contains(r.Out, "ended    lsam            job 3-4") {
		t.Errorf("tail: %d %s%s", r.Code, r.Out, r.Err)
	}
	if r := b.CLI(b.Accounts.Stranger, "audit", "verify", "--config", b.ConfigFile()); r.Code != 77 || !strings.Contains(r.Err, "can be read by root") {
		t.Errorf("a stranger's verify: %d %s%s", r.Code, r.Out, r.Err)
	}
	if r := b.CLI(b.Accounts.Stranger, "audit", "verify", "--journal", "--config", b.ConfigFile()); r.Code != 77 || !strings.Contains(r.Err, "root alone") {
		t.Errorf("a stranger's verify --journal: %d %s%s", r.Code, r.Out, r.Err)
	}

	// A tail that was cut off shows in the journal alone, and stays to be seen when the service has gone on.
	if err := b.Daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(b.AuditFile())
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(text, []byte(`"id":"3-4"`))
	cut := text[:bytes.LastIndexByte(text[:at], '\n')+1]
	if err := os.WriteFile(b.AuditFile(), cut, 0o600); err != nil {
		t.Fatal(err)
	}
	verify(0, "one unbroken chain")
	verify(1, "job 3-4 of lsam (serial 20): the journal has its start, the log no granted launch", "--journal")
	if err := b.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := b.WaitHealthy(); err != nil {
		t.Fatal(err)
	}
	audited(t, b, map[string]string{"kind": "job.ended"})
	verify(1, "the log no granted launch", "--journal")
}

// Strangers may ask as often as they like: they cost a record a minute.
func TestStrangersDoNotFillTheAudit(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	count := func() (n int) {
		t.Helper()
		records, err := b.Audit()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if r.Text("code") == wire.CallerUnknown {
				n++
			}
		}
		return n
	}
	for range 100 {
		want(t, call(t, b, b.Accounts.Stranger, "POST", "/v1/jobs", body(nil)), 403, wire.CallerUnknown)
	}
	if n := count(); n != 1 {
		t.Errorf("%d records of 100 refusals", n)
	}
	if err := b.Daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	if n := count(); n != 2 {
		t.Errorf("%d records in the end, want the first and a count", n)
	}
	records, err := b.Audit()
	if err != nil {
		t.Fatal(err)
	}
	last := records[len(records)-1]
	if peer, _ := last["peer"].(map[string]any); last.Text("kind") != "refused" || last["count"] != 99.0 || peer["uid"] != float64(b.Accounts.Stranger.UID) {
		t.Errorf("got %v, want a count of 99", last)
	}
}

func TestAuditTellsArguments(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	job := map[string]any{"command": []string{"/bin/echo", "an argument"}, "env": map[string]string{"LANG": "C"}}
	run(t, b, job)
	reconfigure(t, b, func(yaml string) string {
		return replaceLine(yaml, "audit:", "audit: {file: "+b.AuditFile()+", argv: true}")
	})
	done, _ := run(t, b, job)
	records, err := b.Audit()
	if err != nil {
		t.Fatal(err)
	}
	told := 0
	for _, r := range records {
		job, _ := r["job"].(map[string]any)
		if job["argv"] == nil && job["env"] == nil {
			continue
		}
		told++
		if got := fmt.Sprint(job["argv"], job["env"]); got != "[/bin/echo an argument] map[LANG:C]" || r.Text("decision_id") != done.DecisionID || job["command_sha256"] == nil {
			t.Errorf("got %v", r)
		}
	}
	if told != 1 {
		t.Errorf("%d records tell arguments, want that of the second launch", told)
	}
}
