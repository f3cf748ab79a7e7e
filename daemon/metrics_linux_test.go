package daemon_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// series is what GET /metrics answers, by series.
func series(t *testing.T, b *testbed.Bed) (map[string]float64, string) {
	t.Helper()
	a := call(t, b, testbed.Root, "GET", "/metrics", nil)
	if a.Status != 200 || !strings.HasPrefix(a.Header.Get("Content-Type"), "text/plain; version=0.0.4") {
		t.Fatalf("%d %s %s", a.Status, a.Header.Get("Content-Type"), a.Body)
	}
	return parsed(t, string(a.Body)), string(a.Body)
}

func parsed(t *testing.T, page string) map[string]float64 {
	t.Helper()
	all := map[string]float64{}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(strings.TrimSpace(line[at+1:]), 64)
		if err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if _, twice := all[line[:at]]; twice {
			t.Errorf("%s is there twice", line[:at])
		}
		all[line[:at]] = v
	}
	return all
}

// eventually waits until the series has the value.
func eventually(t *testing.T, b *testbed.Bed, name string, want float64) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		got, there := series(t, b)
		if got[name] == want && strings.Contains(there, name) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s is %v, want %v, in:\n%s", name, got[name], want, there)
		}
	}
}

// TestMetrics does one thing of each kind and wants each counted once.
func TestMetrics(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	want(t, call(t, b, b.Accounts.LSAM, "GET", "/metrics", nil), 403, wire.CallerForbidden)
	want(t, call(t, b, b.Accounts.Stranger, "GET", "/metrics", nil), 403, wire.CallerUnknown)

	before, _ := series(t, b)
	const secret = "marked-4711"
	job := read[wire.Job](t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(map[string]any{
		"id": "id-" + secret, "command": []string{"/bin/sh", "-c", "read line"}, "stdin": "one\n", "labels": map[string]string{"l": secret},
	})))
	ended(t, b, job.ID)
	want(t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(map[string]any{"subject": map[string]any{"user": "nobody-" + secret}})), 403, wire.PolicyDenied)
	want(t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(map[string]any{"realm": "realm-" + secret})), 400, wire.RealmUnknown)
	given, a := password(t, b)
	if a.Status != 200 {
		t.Fatalf("retrieve: %d", a.Status)
	}
	question := wire.Authorize{Realm: testbed.Realm, Subject: wire.Subject{User: testbed.User}, BatchUser: "payroll"}
	read[wire.Decision](t, call(t, b, b.Accounts.LSAM, "POST", "/v1/authorize", question))
	question.Subject.User = "nobody-" + secret
	read[wire.Decision](t, call(t, b, b.Accounts.LSAM, "POST", "/v1/authorize", question))
	for range 3 {
		want(t, call(t, b, b.Accounts.Stranger, "POST", "/v1/authorize", question), 403, wire.CallerUnknown)
	}
	synced(t, b)
	audited(t, b, map[string]string{"kind": "job.ended"})
	eventually(t, b, "batchwarden_jobs_kept", 1)
	eventually(t, b, "batchwarden_audit_unsynced_seconds", 0)

	after, page := series(t, b)
	for _, hidden := range []string{secret, given, testbed.User} {
		if strings.Contains(page, hidden) {
			t.Errorf("the page has %q", hidden)
		}
	}
	for name, n := range map[string]float64{
		`batchwarden_decisions_total{code="",kind="launch",realm="opcon",verdict="allow"}`:                 1,
		`batchwarden_decisions_total{code="policy.denied",kind="launch",realm="opcon",verdict="deny"}`:     1,
		`batchwarden_decisions_total{code="realm.unknown",kind="launch",realm="unknown",verdict="deny"}`:   1,
		`batchwarden_decisions_total{code="",kind="retrieve",realm="opcon",verdict="allow"}`:               1,
		`batchwarden_decisions_total{code="",kind="authorize",realm="opcon",verdict="allow"}`:              1,
		`batchwarden_decisions_total{code="policy.denied",kind="authorize",realm="opcon",verdict="deny"}`:  1,
		`batchwarden_decisions_total{code="caller.unknown",kind="authorize",realm="opcon",verdict="deny"}`: 3,
		`batchwarden_requests_total{call="launch",code=""}`:                                                1,
		`batchwarden_requests_total{call="launch",code="policy.denied"}`:                                   1,
		`batchwarden_requests_total{call="authorize",code="caller.unknown"}`:                               3,
		`batchwarden_request_seconds_count{call="launch"}`:                                                 3,
		`batchwarden_request_seconds_count{call="authorize"}`:                                              5,
		`batchwarden_request_seconds_count{call="retrieve"}`:                                               1,
		`batchwarden_request_seconds_bucket{call="retrieve",le="+Inf"}`:                                    1,
		`batchwarden_launch_step_seconds_count{step="caller"}`:                                             3,
		`batchwarden_launch_step_seconds_count{step="decide"}`:                                             3,
		`batchwarden_launch_step_seconds_count{step="start"}`:                                              1,
		`batchwarden_deliveries_total{outcome="delivered"}`:                                                1,
		`batchwarden_jobs_ended_total{code="",realm="opcon",state="exited"}`:                               1,
		`batchwarden_sync_attempts_total{outcome="ok"}`:                                                    1,
		`batchwarden_sync_seconds_count`:                                                                   1,
	} {
		if got := after[name] - before[name]; got != n {
			t.Errorf("%s grew by %v, want %v", name, got, n)
		}
	}
	for name, v := range map[string]float64{
		`batchwarden_state{state="online"}`:                                          1,
		`batchwarden_state{state="offline"}`:                                         0,
		`batchwarden_launcher_connected`:                                             1,
		`batchwarden_suspended`:                                                      0,
		`batchwarden_offline_seconds`:                                                0,
		`batchwarden_jobs_running`:                                                   0,
		`batchwarden_jobs_kept`:                                                      1,
		`batchwarden_audit_available`:                                                1,
		`batchwarden_audit_room_low`:                                                 0,
		`batchwarden_memory_slots_in_use`:                                            0,
		`batchwarden_batch_users_unlisted`:                                           0,
		`batchwarden_policy_state{model="opcon",realm="opcon",state="active"}`:       1,
		`batchwarden_policy_version{model="opcon",realm="opcon"}`:                    1,
		`batchwarden_batch_user_version{batch_user="payroll",scope="machines/db01"}`: 1,
		`batchwarden_batch_user_state{batch_user="payroll",scope="machines/db01",state="ready"}`: 1,
	} {
		if got, there := after[name]; !there || got != v {
			t.Errorf("%s is %v (there: %t), want %v", name, got, there, v)
		}
	}
	records, err := b.Audit()
	if err != nil {
		t.Fatal(err)
	}
	if got := after["batchwarden_audit_records_total"]; got != float64(len(records)) {
		t.Errorf("%v audit records, the log has %d", got, len(records))
	}
	if got := after["batchwarden_token_remaining_seconds"]; got <= 0 {
		t.Errorf("the token has %v s left", got)
	}

	t.Run("an outage", func(t *testing.T) {
		if err := b.StopVault(); err != nil {
			t.Fatal(err)
		}
		if s, err := b.Sync(); err != nil || s.Outcome == "ok" {
			t.Fatalf("sync without Vault: %+v, %v", s, err)
		}
		now, page := series(t, b)
		if now[`batchwarden_state{state="offline"}`] != 1 || now[`batchwarden_offline_seconds`] <= 0 ||
			now[`batchwarden_sync_attempts_total{outcome="ok"}`] != after[`batchwarden_sync_attempts_total{outcome="ok"}`] ||
			now[`batchwarden_sync_seconds_count`] != after[`batchwarden_sync_seconds_count`]+1 ||
			now[`batchwarden_problems{code="vault.unreachable"}`] != 1 || now[`batchwarden_sync_attempts_total{outcome="vault.unreachable"}`] != 1 {
			t.Errorf("offline:\n%s", page)
		}
		if err := b.ResumeVault(); err != nil {
			t.Fatal(err)
		}
		synced(t, b)
		if now, page := series(t, b); now[`batchwarden_state{state="online"}`] != 1 || now[`batchwarden_offline_seconds`] != 0 {
			t.Errorf("online again:\n%s", page)
		}
	})
	t.Run("a suspended machine without a launcher", func(t *testing.T) {
		call(t, b, testbed.Root, "POST", "/v1/suspend", nil)
		if err := b.Launcher.Stop(); err != nil {
			t.Fatal(err)
		}
		eventually(t, b, "batchwarden_launcher_connected", 0)
		if now, _ := series(t, b); now["batchwarden_suspended"] != 1 || now["batchwarden_suspended_seconds"] <= 0 || now[`batchwarden_problems{code="machine.suspended"}`] != 1 {
			t.Errorf("suspended: %v", now)
		}
		if err := b.StartLauncher(); err != nil {
			t.Fatal(err)
		}
		call(t, b, testbed.Root, "POST", "/v1/resume", nil)
		eventually(t, b, "batchwarden_launcher_connected", 1)
		eventually(t, b, "batchwarden_suspended", 0)
	})
	t.Run("the command", func(t *testing.T) {
		r := b.CLI(testbed.Root, "--socket", b.Socket, "metrics")
		if got := parsed(t, r.Out); r.Code != 0 || got["batchwarden_jobs_kept"] != 1 {
			t.Errorf("exit %d, %s%s", r.Code, r.Out, r.Err)
		}
		if r := b.CLI(testbed.Root, "--socket", b.Socket, "--json", "metrics"); r.Code != 0 || !strings.Contains(r.Out, `"batchwarden_jobs_kept": 1`) {
			t.Errorf("exit %d, %s%s", r.Code, r.Out, r.Err)
		}
		if r := b.CLI(b.Accounts.LSAM, "--socket", b.Socket, "metrics"); r.Code != 77 {
			t.Errorf("not an operator: exit %d, %s%s", r.Code, r.Out, r.Err)
		}
	})
	t.Run("documented", func(t *testing.T) { documented(t, page) })
	t.Run("the rules", func(t *testing.T) { ruled(t) })
	t.Run("promtool takes the page", func(t *testing.T) {
		r := b.CommandIn(testbed.Root, []byte(page), promtool(t), "check", "metrics")
		if r.Code != 0 || r.Out+r.Err != "" {
			t.Errorf("exit %d: %s%s", r.Code, r.Out, r.Err)
		}
	})
}

var (
	helped = regexp.MustCompile(`(?m)^# HELP (batchwarden_\w+) \S.*$`)
	typed  = regexp.MustCompile(`(?m)^# TYPE (batchwarden_\w+) (?:counter|gauge|histogram)$`)
	listed = regexp.MustCompile("(?m)^\\| `(batchwarden_\\w+)` \\|")
	named  = regexp.MustCompile(`batchwarden_\w+`)
)

// names are what the pattern's first group finds, and how often.
func names(pattern *regexp.Regexp, text string) map[string]int {
	all := map[string]int{}
	for _, m := range pattern.FindAllStringSubmatch(text, -1) {
		all[m[len(m)-1]]++
	}
	return all
}

// documented wants every metric described; that there is each that is described, package metrics shows.
func documented(t *testing.T, page string) {
	text, err := os.ReadFile("metrics/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	there, described, kinds := names(helped, page), names(listed, string(text)), names(typed, page)
	for name, n := range there {
		if n != 1 || kinds[name] != 1 {
			t.Errorf("%s has %d HELP and %d TYPE lines", name, n, kinds[name])
		}
		if described[name] != 1 {
			t.Errorf("METRICS.md describes %s %d times", name, described[name])
		}
	}
	for line := range parsed(t, page) {
		name := strings.SplitN(line, "{", 2)[0]
		for _, suffix := range []string{"", "_bucket", "_sum", "_count"} {
			if base, ok := strings.CutSuffix(name, suffix); ok && there[base] > 0 {
				name = ""
				break
			}
		}
		if name != "" {
			t.Errorf("%s has no HELP", line)
		}
	}
}

const rules = "../installer/linux/batchwarden.rules.yml"

// ruled wants every metric that an alert names to be described.
func ruled(t *testing.T) {
	text, err := os.ReadFile(rules)
	if err != nil {
		t.Fatal(err)
	}
	descriptions, err := os.ReadFile("metrics/METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	there := names(listed, string(descriptions))
	used := names(named, string(text))
	if len(used) < 10 {
		t.Errorf("the rules name %d metrics", len(used))
	}
	for name := range used {
		if there[name] == 0 && there[strings.TrimSuffix(name, "_bucket")] == 0 {
			t.Errorf("an alert needs %s, which METRICS.md does not describe", name)
		}
	}
}

// promtool is Prometheus's own checker.
func promtool(t *testing.T) string {
	t.Helper()
	if path, err := filepath.Abs("../build/tools/promtool"); err == nil && exec.Command(path, "--version").Run() == nil {
		return path
	}
	if path, err := exec.LookPath("promtool"); err == nil {
		return path
	}
	const how = "needs promtool; run: make promtool"
	if os.Getenv(testbed.NoSkip) == "1" {
		t.Fatal(how)
	}
	t.Skip(how)
	return ""
}

// TestAlertRules has Prometheus check the rules and their tests, and wants each alert tested and to say what to do.
func TestAlertRules(t *testing.T) {
	text, err := os.ReadFile(rules)
	if err != nil {
		t.Fatal(err)
	}
	tests, err := os.ReadFile(strings.TrimSuffix(rules, "yml") + "test.yml")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert       string
				Annotations struct{ Summary, Description string }
				Labels      struct{ Severity string }
			}
		}
	}
	if err := yaml.Unmarshal(text, &file); err != nil {
		t.Fatal(err)
	}
	for _, r := range file.Groups[0].Rules {
		a := r.Annotations
		if !strings.HasPrefix(a.Summary, "{{ $labels.instance }}: ") || len(a.Description) < 20 || r.Labels.Severity != "critical" && r.Labels.Severity != "warning" {
			t.Errorf("%s: %+v", r.Alert, r)
		}
		if !strings.Contains(string(tests), `{alertname="`+r.Alert+`"}`) {
			t.Errorf("%s has no test", r.Alert)
		}
	}
	for _, args := range [][]string{{"check", "rules", rules}, {"test", "rules", strings.TrimSuffix(rules, "yml") + "test.yml"}} {
		if out, err := exec.Command(promtool(t), args...).CombinedOutput(); err != nil {
			t.Errorf("promtool %q: %v\n%s", args, err, out)
		}
	}
}

// TestTextfile wants the page where node_exporter finds it, and to be told when it cannot be put there.
func TestTextfile(t *testing.T) {
	var file string
	b := testbed.New(t, testbed.Options{Edit: func(yaml string) string {
		root := strings.SplitN(strings.SplitN(yaml, "state_dir: ", 2)[1], "\n", 2)[0]
		file = filepath.Join(filepath.Dir(root), "collector", "batchwarden.prom")
		return yaml + "metrics: {textfile: " + file + "}\n"
	}})
	dir := filepath.Dir(file)
	await := func(what string, yes func() bool) {
		t.Helper()
		for deadline := time.Now().Add(60 * time.Second); !yes(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("not %s: %q", what, problems(t, b))
			}
		}
	}
	unwritable := func() bool { return strings.Contains(strings.Join(problems(t, b), " "), "metrics.unwritable") }

	await("told that there is no directory", unwritable)
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(dir, int(b.Accounts.Daemon.UID), int(b.Accounts.Daemon.GID)); err != nil {
		t.Fatal(err)
	}
	await("written", func() bool { _, err := os.Stat(file); return err == nil })
	await("told that it is written", func() bool { return !unwritable() })
	info, err := os.Stat(file)
	if err != nil || info.Mode() != 0o644 {
		t.Fatalf("%v, %v", info, err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	now, page := series(t, b)
	if got := parsed(t, string(text)); got[`batchwarden_state{state="online"}`] != 1 || len(got) == 0 {
		t.Errorf("the file has\n%s\nand not\n%s", text, page)
	}
	if age := now["batchwarden_page_timestamp_seconds"] - parsed(t, string(text))["batchwarden_page_timestamp_seconds"]; age < 0 || age > 60 {
		t.Errorf("the file is %v s old", age)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 {
		t.Errorf("beside it are %v, %v", entries, err)
	}
	if err := os.Chown(dir, 0, 0); err != nil {
		t.Fatal(err)
	}
	await("told that it cannot be written any more", unwritable)
	if _, err := os.Stat(file); err != nil {
		t.Errorf("the last page is gone: %v", err)
	}
	if health := call(t, b, testbed.Root, "GET", "/v1/health", nil); health.Status != 200 {
		t.Errorf("health: %d", health.Status)
	}
}
