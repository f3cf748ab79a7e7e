package daemon_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// ownLimits replaces what the host's owner says; it holds from the next launch on.
func ownLimits(t *testing.T, b *testbed.Bed, yaml string) {
	t.Helper()
	text := fmt.Sprintf("version: 1\nrequesters: [%s]\n%s\n", b.Accounts.LSAM.Name, yaml)
	if err := os.WriteFile(b.LimitsFile(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// agreed wants the launch to be refused, the reason to have the words, and a dry run to say the same.
func agreed(t *testing.T, b *testbed.Bed, change map[string]any, status int, code, words string) {
	t.Helper()
	a := call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(change))
	if want(t, a, status, code); !strings.Contains(string(a.Body), words) {
		t.Errorf("got %s, want %q in it", a.Body, words)
	}
	dry := read[wire.DryRun](t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs?dry_run=1", body(change)))
	said := fmt.Sprint(dry.Checks)
	if dry.Start || dry.Code != code || !strings.Contains(said, words) {
		t.Errorf("dry run: got %s %s, want %s with %q", dry.Code, said, code, words)
	}
}

// TestResources: what a job may use is what it asks for, up to what the host's owner says.
func TestResources(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	ownLimits(t, b, "max: {nofile: 500, core: 0}")
	show := []string{"/bin/bash", "-c", "ulimit -Sn; ulimit -Hn; ulimit -Hc; nice"}
	for _, c := range []struct {
		name string
		unix map[string]any
		out  string
	}{
		{"no job has more than max", nil, "500\n500\n0\n0\n"},
		{"as asked", map[string]any{"limits": map[string]any{"nofile": 99}, "nice": 5}, "99\n99\n0\n5\n"},
		{"up to max", map[string]any{"limits": map[string]any{"nofile": 500}, "nice": 19}, "500\n500\n0\n19\n"},
	} {
		if _, out := run(t, b, map[string]any{"command": show, "unix": c.unix}); out != c.out {
			t.Errorf("%s: got %q, want %q", c.name, out, c.out)
		}
	}
	for _, c := range []struct {
		unix  map[string]any
		words string
	}{
		{map[string]any{"limits": map[string]any{"nofile": 501}}, "max.nofile: 501 is above 500"},
		{map[string]any{"limits": map[string]any{"core": 1}}, "max.core"},
		{map[string]any{"limits": map[string]any{"memlock": 1 << 50}}, "max.memlock is not set"},
		{map[string]any{"nice": -1}, "max.nice"},
	} {
		agreed(t, b, map[string]any{"id": "above", "unix": c.unix}, 403, wire.LimitsRefused, c.words)
	}
	want(t, call(t, b, b.Accounts.LSAM, "GET", "/v1/jobs/above", nil), 404, wire.JobUnknown)

	ownLimits(t, b, "max: {nice: 25}")
	agreed(t, b, map[string]any{"unix": map[string]any{"nice": -6}}, 403, wire.LimitsRefused, "nice -6 is below -5")
	if job, out := run(t, b, map[string]any{"command": []string{"nice"}, "unix": map[string]any{"nice": -5}}); out != "-5\n" && !strings.Contains(job.Reason, "EACCES") {
		t.Errorf("nice -5: %q %+v", out, job)
	}
	// Every limit that is known by name is one of the kernel's.
	values := map[string]any{
		"as": 1 << 40, "core": 0, "cpu": 100, "data": 1 << 40, "fsize": 1 << 20, "memlock": 65536, "msgqueue": 1000, "nice": 0,
		"nofile": 64, "nproc": 4000, "rtprio": 0, "rttime": 1000000, "sigpending": 100, "stack": 1 << 20,
	}
	_, out := run(t, b, map[string]any{"command": []string{"cat", "/proc/self/limits"}, "unix": map[string]any{"limits": values}})
	for _, line := range []string{"Max cpu time 100 100", "Max file size 1048576 1048576", "Max open files 64 64", "Max stack size 1048576 1048576", "Max pending signals 100 100"} {
		if !strings.Contains(strings.Join(strings.Fields(out), " "), line) {
			t.Errorf("no %q in %s", line, out)
		}
	}
}

// TestAllowedPrograms: a shell, an interpreter and a login are programs too.
func TestAllowedPrograms(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	line := map[string]any{"command": nil, "command_line": "true"}
	script := func(interpreter ...string) map[string]any {
		return map[string]any{"command": nil, "script": map[string]any{"text": "#!/usr/bin/env sh\n", "interpreter": interpreter}}
	}
	ownLimits(t, b, "allow_commands: [{path: /usr/bin/true}, {path: /usr/bin/cat}]\nallow_env: [PERIOD]")
	for name, change := range map[string]map[string]any{
		"a command": {"command": []string{"/usr/bin/true"}}, "with a variable": {"command": []string{"true"}, "env": map[string]string{"PERIOD": "1"}},
		"an interpreter": script("cat"),
	} {
		if job, _ := run(t, b, change); job.ExitCode == nil || *job.ExitCode != 0 {
			t.Errorf("%s: %+v", name, job)
		}
	}
	agreed(t, b, line, 403, wire.LimitsRefused, "dash")
	agreed(t, b, map[string]any{"command": []string{"/usr/bin/true"}, "login": true}, 403, wire.LimitsRefused, "dash")
	agreed(t, b, script(), 403, wire.LimitsRefused, "/usr/bin/env")
	agreed(t, b, script("sh"), 403, wire.LimitsRefused, "dash")
	agreed(t, b, map[string]any{"command": []string{"true"}, "env": map[string]string{"LANG": "C"}}, 403, wire.LimitsRefused, "LANG")
	ownLimits(t, b, "allow_commands: [{path: /bin/sh}]")
	for _, change := range []map[string]any{line, script("sh"), {"command": []string{"true"}, "login": true}} {
		if job, _ := run(t, b, change); job.ExitCode == nil || *job.ExitCode != 0 {
			t.Errorf("%v: %+v", change, job)
		}
	}
	agreed(t, b, map[string]any{"command": []string{"true"}}, 403, wire.LimitsRefused, "/usr/bin/true")
}
