package daemon_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"testing"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// withClients replaces the client entries.
func withClients(b *testbed.Bed, clients string) func(string) string {
	return func(yaml string) string {
		head, _, _ := strings.Cut(yaml, "clients:")
		_, tail, _ := strings.Cut(yaml, "operators:")
		names := strings.NewReplacer("{lsam}", b.Accounts.LSAM.Name, "{stranger}", b.Accounts.Stranger.Name, "{bin}", b.Bin)
		return head + "clients:\n" + names.Replace(clients) + "operators:" + tail
	}
}

func whoami(t *testing.T, b *testbed.Bed, as testbed.Account) wire.Whoami {
	t.Helper()
	return read[wire.Whoami](t, call(t, b, as, "GET", "/v1/whoami", nil))
}

// The program that dials for the LSAM is this test; the CLI is another one.
func TestEntriesByProgram(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	reconfigure(t, b, withClients(b, fmt.Sprintf(`
  - {name: service, match: {user: {lsam}, unit: lsam.service}, realms: [opcon], may: [launch]}
  - {name: other, match: {user: {stranger}}, realms: [opcon], may: [launch]}
  - {name: cli, match: {user: {lsam}, exe: "{bin}/batchwarden"}, realms: [opcon], may: [authorize]}
  - {name: wrong-sum, match: {user: {lsam}, exe: %q, sha256: "%s"}, realms: [opcon], may: [launch]}
  - {name: right-sum, match: {user: {lsam}, exe: %q, sha256: "%s"}, realms: [opcon], may: [authorize, launch], subjects: {users: ["*"]}, batch_users: ["*"]}
  - {name: after, match: {user: {lsam}}, realms: [opcon], may: []}
`, self, strings.Repeat("00", 32), self, hex.EncodeToString(sum[:]))))

	w := whoami(t, b, b.Accounts.LSAM)
	if w.Client != "right-sum" || !w.Peer.Attested || w.Peer.Exe != self || w.Peer.SHA256 != hex.EncodeToString(sum[:]) || w.Peer.PID == 0 {
		t.Errorf("got %+v", w)
	}
	var looked []string
	for _, e := range w.Entries {
		looked = append(looked, e.Client)
		if e.Matched != (e.Reason == "") {
			t.Errorf("%+v", e)
		}
	}
	if got := fmt.Sprint(looked); got != "[service other cli wrong-sum right-sum]" {
		t.Errorf("looked at %s", got)
	}
	if job, _ := run(t, b, nil); job.State != wire.Exited || job.Client != "right-sum" {
		t.Errorf("got %+v", job)
	}
	if r := b.CLI(b.Accounts.LSAM, "whoami"); r.Code != 0 || !strings.Contains(r.Out, "Client entry  cli") ||
		!strings.Contains(r.Out, "not service: unit: ") || !strings.Contains(r.Out, "not other: user: ") || !strings.Contains(r.Out, b.Bin+"/batchwarden") {
		t.Errorf("got %d %s%s", r.Code, r.Out, r.Err)
	}

	// Without the launcher nothing is known of the program.
	if err := b.Launcher.Stop(); err != nil {
		t.Fatal(err)
	}
	w = whoami(t, b, b.Accounts.LSAM)
	if w.Client != "after" || w.Peer.Attested || w.Peer.Exe != "" {
		t.Errorf("without the launcher: %+v", w)
	}
	if w = whoami(t, b, b.Accounts.Stranger); w.Client != "other" {
		t.Errorf("without the launcher: %+v", w)
	}
	if w = whoami(t, b, testbed.Root); !w.Operator {
		t.Errorf("without the launcher: %+v", w)
	}
}

// Root in a namespace of its own looks like root to the kernel's look at a socket.
func TestCallersInOtherNamespaces(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	status := []string{b.Bin + "/batchwarden", "--socket", b.Socket, "status"}
	if r := b.Command(testbed.Root, status...); r.Code != 0 {
		t.Fatalf("got %d %s%s", r.Code, r.Out, r.Err)
	}
	for name, unshare := range map[string][]string{
		"user": {"unshare", "--user", "--map-root-user"}, "pid": {"unshare", "--pid", "--fork"},
	} {
		r := b.Command(testbed.Root, append(unshare, status...)...)
		if r.Code != 77 || !strings.Contains(r.Err, wire.CallerUnknown) || !strings.Contains(r.Err, "namespace") {
			t.Errorf("%s: got %d %s%s", name, r.Code, r.Out, r.Err)
		}
	}
}

func TestForget(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	lsam := b.Accounts.LSAM
	running := read[wire.Job](t, call(t, b, lsam, "POST", "/v1/jobs", body(map[string]any{"id": "runs", "command": []string{"/bin/sleep", "30"}})))
	want(t, call(t, b, lsam, "DELETE", "/v1/jobs/"+running.ID, nil), 409, wire.JobRunning)
	job, _ := run(t, b, map[string]any{"id": "once", "command": []string{"/bin/echo", "hello"}})
	want(t, call(t, b, testbed.Root, "DELETE", "/v1/jobs/once", nil), 403, wire.CallerForbidden)
	want(t, call(t, b, b.Accounts.Stranger, "DELETE", "/v1/jobs/once", nil), 403, wire.CallerUnknown)
	if a := call(t, b, lsam, "DELETE", "/v1/jobs/once", nil); a.Status != 204 || len(a.Body) > 0 {
		t.Errorf("got %d %s", a.Status, a.Body)
	}
	want(t, call(t, b, lsam, "DELETE", "/v1/jobs/once", nil), 404, wire.JobUnknown)
	want(t, call(t, b, lsam, "GET", "/v1/jobs/once", nil), 404, wire.JobUnknown)
	want(t, call(t, b, lsam, "GET", "/v1/jobs/once/output/stdout", nil), 404, wire.JobUnknown)
	audited(t, b, map[string]string{"kind": "job.ended", "decision_id": job.DecisionID})
	audited(t, b, map[string]string{"kind": "forget", "verdict": "allow", "client": "lsam"})
	if err := b.RestartLauncher(); err != nil {
		t.Fatal(err)
	}
	want(t, call(t, b, lsam, "GET", "/v1/jobs/once", nil), 404, wire.JobUnknown)
	if again, out := run(t, b, map[string]any{"id": "once", "command": []string{"/bin/echo", "anew"}}); out != "anew\n" {
		t.Errorf("%+v wrote %q", again, out)
	}
}

func TestDryRun(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	lsam := b.Accounts.LSAM
	dry := func(as testbed.Account, change map[string]any) (wire.DryRun, map[string]string) {
		t.Helper()
		d := read[wire.DryRun](t, call(t, b, as, "POST", "/v1/jobs?dry_run=1", body(change)))
		codes := map[string]string{}
		for _, c := range d.Checks {
			if c.OK != (c.Code == "") {
				t.Errorf("%+v", c)
			}
			codes[c.Step] = c.Code
		}
		return d, codes
	}
	d, steps := dry(lsam, map[string]any{"id": "dry"})
	if !d.Start || d.Code != "" || d.DecisionID == "" {
		t.Errorf("got %+v", d)
	}
	for _, step := range []string{"caller", "request", "id", "machine", "realm", "document", "subject", "batch_user", "policy", "launcher", "requester", "account", "limits"} {
		if code, there := steps[step]; !there || code != "" {
			t.Errorf("step %s: %v %q", step, there, code)
		}
	}
	want(t, call(t, b, lsam, "GET", "/v1/jobs/dry", nil), 404, wire.JobUnknown)
	audited(t, b, map[string]string{"kind": "dry_run", "verdict": "allow", "decision_id": d.DecisionID})

	for _, c := range []struct {
		name, step, code string
		change           map[string]any
	}{
		{"a subject without the right", "policy", wire.PolicyDenied, map[string]any{"subject": map[string]any{"user": "mallory"}}},
		{"no such batch user", "batch_user", wire.BatchUserUnknown, map[string]any{"batch_user": "nobody"}},
		{"no such realm", "realm", wire.RealmUnknown, map[string]any{"realm": "atlantis"}},
		{"an environment that the host's owner forbids", "limits", wire.LimitsRefused, map[string]any{"env": map[string]string{"LD_PRELOAD": "/x.so"}}},
		{"no command", "request", wire.RequestInvalid, map[string]any{"command": nil}},
	} {
		d, steps := dry(lsam, c.change)
		if d.Start || d.Code != c.code || steps[c.step] != c.code {
			t.Errorf("%s: got %+v", c.name, d)
		}
	}
	if d, steps := dry(testbed.Root, nil); d.Start || steps["caller"] != wire.CallerForbidden || steps["policy"] != "" {
		t.Errorf("an operator: %+v", d)
	}
	want(t, call(t, b, b.Accounts.Stranger, "POST", "/v1/jobs?dry_run=1", body(nil)), 403, wire.CallerUnknown)
	r := b.CLI(lsam, "run", "--realm", "opcon", "--subject", testbed.User, "--as", "payroll", "--dry-run", "--", "/bin/true")
	if r.Code != 0 || !strings.Contains(r.Out, "The job would be started.") {
		t.Errorf("got %d %s%s", r.Code, r.Out, r.Err)
	}
}

func TestSuspend(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	lsam := b.Accounts.LSAM
	before := read[wire.Job](t, call(t, b, lsam, "POST", "/v1/jobs", body(map[string]any{"id": "before", "command": []string{"/bin/sleep", "1"}})))
	want(t, call(t, b, lsam, "POST", "/v1/suspend", nil), 403, wire.CallerForbidden)
	want(t, call(t, b, testbed.Root, "POST", "/v1/suspend", `{"why":"x"}`), 400, wire.RequestInvalid)
	want(t, call(t, b, testbed.Root, "POST", "/v1/suspend", wire.Suspend{Reason: "two\nlines"}), 400, wire.RequestInvalid)
	want(t, call(t, b, testbed.Root, "POST", "/v1/suspend", wire.Suspend{Reason: strings.Repeat("x", wire.MaxReason+1)}), 400, wire.RequestInvalid)
	at := events(t, b, testbed.Root, "").Next
	if r := b.CLI(testbed.Root, "suspend", "--reason", "disks are moved"); r.Code != 0 || !strings.Contains(r.Out, "suspended on this machine since") {
		t.Fatalf("got %d %s%s", r.Code, r.Out, r.Err)
	}
	refused := func() {
		t.Helper()
		a := call(t, b, lsam, "POST", "/v1/jobs", body(map[string]any{"id": "after"}))
		want(t, a, 503, wire.MachineSuspended)
		if a.Header.Get("Retry-After") == "" {
			t.Error("no Retry-After")
		}
		if !strings.Contains(string(a.Body), "by root: disks are moved") {
			t.Errorf("nobody is named: %s", a.Body)
		}
		if a := call(t, b, testbed.Root, "GET", "/v1/health", nil); a.Status != 503 || !strings.Contains(string(a.Body), wire.MachineSuspended) {
			t.Errorf("health: %d %s", a.Status, a.Body)
		}
	}
	refused()
	audited(t, b, map[string]string{"kind": "suspend", "verdict": "allow", "reason": "disks are moved"})
	told := func(kind, detail string) {
		t.Helper()
		for _, e := range events(t, b, testbed.Root, fmt.Sprintf("after=%d", at)).Events {
			if e.Type == kind && e.Detail == detail {
				return
			}
		}
		t.Errorf("no event %s %q", kind, detail)
	}
	audited(t, b, map[string]string{"kind": "launch", "verdict": "deny", "code": wire.MachineSuspended, "client": "lsam"})
	told(wire.EventSuspended, "root: disks are moved")
	// Once is enough, and the first word counts.
	if again := read[wire.Suspension](t, call(t, b, testbed.Root, "POST", "/v1/suspend", wire.Suspend{Reason: "another"})); again.By != "root" || again.Reason != "disks are moved" {
		t.Errorf("again: %+v", again)
	}
	// What ran goes on, and asking for it again is no launch.
	if again := call(t, b, lsam, "POST", "/v1/jobs", body(map[string]any{"id": "before", "command": []string{"/bin/sleep", "1"}})); again.Status != 200 {
		t.Errorf("again: %d %s", again.Status, again.Body)
	}
	if job := ended(t, b, before.ID); job.State != wire.Exited || *job.ExitCode != 0 {
		t.Errorf("got %+v", job)
	}
	if a := call(t, b, lsam, "POST", "/v1/authorize", question("jdoe")); a.Status != 200 {
		t.Errorf("authorize: %d %s", a.Status, a.Body)
	}
	if err := b.Daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := b.StartDaemon(); err != nil {
		t.Fatal(err)
	}
	if err := b.WaitAnswer(); err != nil {
		t.Fatal(err)
	}
	refused()
	if s, err := b.Status(); err != nil || s.Suspension == nil || s.Suspension.By != "root" || s.Suspension.Reason != "disks are moved" || s.Suspension.Since.IsZero() {
		t.Errorf("status: %+v, %v", s.Suspension, err)
	}
	if r := b.CLI(testbed.Root, "resume"); r.Code != 0 {
		t.Fatalf("got %d %s%s", r.Code, r.Out, r.Err)
	}
	if err := b.WaitHealthy(); err != nil {
		t.Fatal(err)
	}
	at = 0 // the daemon was started again
	told(wire.EventResumed, "root")
	audited(t, b, map[string]string{"kind": "resume", "verdict": "allow"})
	if job, _ := run(t, b, map[string]any{"id": "after"}); job.State != wire.Exited {
		t.Errorf("got %+v", job)
	}
}
