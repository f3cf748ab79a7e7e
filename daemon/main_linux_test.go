package daemon_test

import (
	"encoding/json"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

func TestMain(m *testing.M) { os.Exit(testbed.Main(m)) }

// body is a launch that the usual bed allows, with some members changed; a
// nil value takes the member away.
func body(change map[string]any) map[string]any {
	all := map[string]any{
		"realm": "opcon", "subject": map[string]any{"user": testbed.User}, "batch_user": "payroll", "command": []string{"/bin/true"},
	}
	maps.Copy(all, change)
	maps.DeleteFunc(all, func(_ string, v any) bool { return v == nil })
	return all
}

// call makes one request; a failure to make it fails the test.
func call(t *testing.T, b *testbed.Bed, as testbed.Account, method, path string, body any) testbed.Answer {
	t.Helper()
	a, err := b.Call(as, method, path, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return a
}

// want fails unless the answer has the status and, for a problem, the code.
func want(t *testing.T, a testbed.Answer, status int, code string) {
	t.Helper()
	if a.Status != status || a.Code() != code {
		t.Errorf("got %d %s, want %d %q", a.Status, a.Body, status, code)
	}
}

// read parses an answer of 200 or 201.
func read[T any](t *testing.T, a testbed.Answer) (v T) {
	t.Helper()
	if a.Status != 200 && a.Status != 201 {
		t.Fatalf("got %d %s", a.Status, a.Body)
	}
	if err := json.Unmarshal(a.Body, &v); err != nil {
		t.Fatalf("answer %q: %v", a.Body, err)
	}
	return v
}

// run launches as the bed's LSAM and waits for the end.
func run(t *testing.T, b *testbed.Bed, change map[string]any) (job wire.Job, stdout string) {
	t.Helper()
	job = read[wire.Job](t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(change)))
	job = ended(t, b, job.ID)
	return job, output(t, b, job.ID, "stdout")
}

// ended waits until the LSAM's job is done.
func ended(t *testing.T, b *testbed.Bed, id string) wire.Job {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; {
		job := read[wire.Job](t, call(t, b, b.Accounts.LSAM, "GET", "/v1/jobs/"+id+"?wait=10s", nil))
		if job.Done() {
			return job
		}
		if time.Now().After(deadline) {
			t.Fatalf("job %s is still %s", id, job.State)
		}
	}
}

func output(t *testing.T, b *testbed.Bed, id, stream string) string {
	t.Helper()
	a := call(t, b, b.Accounts.LSAM, "GET", "/v1/jobs/"+id+"/output/"+stream, nil)
	if a.Status != 200 {
		t.Fatalf("output: %d %s", a.Status, a.Body)
	}
	return string(a.Body)
}

// audited waits until the audit file has a record with these members and
// returns the first one.
func audited(t *testing.T, b *testbed.Bed, members map[string]string) testbed.AuditRecord {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		records, err := b.Audit()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			fits := true
			for name, value := range members {
				fits = fits && r.Text(name) == value
			}
			if fits {
				return r
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("no audit record with %v among %v", members, records)
		}
	}
}

// synced makes the daemon sync and fails unless that succeeded.
func synced(t *testing.T, b *testbed.Bed) wire.Sync {
	t.Helper()
	s, err := b.Sync()
	if err != nil || s.Outcome != "ok" {
		t.Fatalf("sync: %+v, %v", s, err)
	}
	return s
}

func batchUsers(t *testing.T, b *testbed.Bed) map[string]wire.BatchUser {
	t.Helper()
	list := read[wire.BatchUsers](t, call(t, b, testbed.Root, "GET", "/v1/batch-users", nil))
	byName := map[string]wire.BatchUser{}
	for _, u := range list.BatchUsers {
		byName[u.Name] = u
	}
	return byName
}

func lines(text string) []string { return slices.Collect(strings.Lines(text)) }
