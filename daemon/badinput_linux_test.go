package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// appendTo adds lines to one of the account files, which are the tests' own.
func appendTo(t *testing.T, file, lines string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append([]byte(strings.TrimRight(string(text), "\n")+"\n"), lines...), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.WriteFile(file, text, 0o644); err != nil {
			t.Error(err)
		}
	})
}

// TestBadInput: whatever cannot run has a clear code, and leaves nothing.
func TestBadInput(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	home := b.Accounts.Payroll.Home
	appendTo(t, "/etc/passwd", "bad-nohome:x:61001:61001:::/bin/sh\nbad-homeless:x:61002:61002::/nonexistent:/bin/sh\nbad-shell:x:61003:61003::/:/no/shell\n"+
		"bad-noshell:x:61004:61004::/:\nbad-high:x:3000000000:3000000000::/:/bin/sh\nbad-last:x:4294967295:4294967295::/:/bin/sh\nbad-over:x:4294967296:4294967296::/:/bin/sh\n"+
		"bad-minus:x:-1:-1::/:/bin/sh\nbad-gid:x:61005:4294967295::/:/bin/sh\nbad-zero:x:0:0::/:/bin/sh\n")
	appendTo(t, "/etc/group", "bad-nohome:x:61001:\nbad-high:x:3000000000:\n")
	var logins []string
	for _, name := range []string{"ghost", "nohome", "homeless", "shell", "noshell", "high", "last", "over", "minus", "gid", "zero"} {
		if err := b.PutDocument(name, map[string]any{"username": "bad-" + name, "kind": "none", "names": map[string]string{"opcon": "bad/" + name}}); err != nil {
			t.Fatal(err)
		}
		logins = append(logins, "bad/"+name)
	}
	if err := b.PutDocument("superuser", map[string]any{"username": "root", "kind": "none", "names": map[string]string{"opcon": "bad/superuser"}}); err != nil {
		t.Fatal(err)
	}
	grant(t, b, append(logins, "bad/superuser")...)
	if err := os.WriteFile(home+"/file", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	line := func(user string) map[string]any {
		return map[string]any{"batch_user": user, "command": nil, "command_line": "echo $0 $HOME $(id -u)"}
	}
	script := func(members map[string]any) map[string]any {
		return map[string]any{"command": nil, "script": members}
	}
	for _, c := range []struct {
		name   string
		change map[string]any
		status int // 201 for a job that failed or ran
		code   string
		words  string // in the detail, the reason or what the job wrote
	}{
		{"an account that does not exist", line("ghost"), 422, wire.AccountMissing, "bad-ghost"},
		{"one without a home", line("nohome"), 201, "chdir.failed", "chdir"},
		{"one whose home is not there", line("homeless"), 201, "chdir.failed", "chdir"},
		{"one whose shell is not there", line("shell"), 201, "exec.not_found", `"no"`},
		{"one without a shell", line("noshell"), 201, "", "sh / 61004\n"},
		{"a uid beyond 2^31", line("high"), 201, "", "sh / 3000000000\n"},
		{"the uid that means none", line("last"), 503, wire.LauncherUnavailable, "cannot be understood"},
		{"a uid beyond 2^32", line("over"), 422, wire.AccountMissing, "bad-over"},
		{"a uid below 0", line("minus"), 422, wire.AccountMissing, "bad-minus"},
		{"the gid that means none", line("gid"), 503, wire.LauncherUnavailable, "cannot be understood"},
		{"root", line("superuser"), 403, wire.LimitsRefused, "root"},
		{"root by another name", line("zero"), 403, wire.LimitsRefused, "uid 0"},

		{"no command", map[string]any{"command": nil}, 400, wire.RequestInvalid, "exactly one"},
		{"an empty command", map[string]any{"command": []string{}}, 400, wire.RequestInvalid, "exactly one"},
		{"a command without a name", map[string]any{"command": []string{"", "x"}}, 400, wire.RequestInvalid, "empty"},
		{"two things to run", map[string]any{"command_line": "x"}, 400, wire.RequestInvalid, "exactly one"},
		{"too many words", map[string]any{"command": strings.Split(strings.Repeat("x,", 5000), ",")}, 400, wire.RequestInvalid, "at most 4096"},
		{"a command that is not there", map[string]any{"command": []string{"/no/such"}}, 201, "exec.not_found", "no"},
		{"nor in PATH", map[string]any{"command": []string{"no-such"}}, 201, "exec.not_found", "PATH"},
		{"a command that is not executable", map[string]any{"command": []string{home + "/file"}}, 201, "exec.forbidden", "not executable"},
		{"a command that is a directory", map[string]any{"command": []string{"/usr/bin"}}, 201, "exec.forbidden", "not a regular file"},
		{"an interpreter that is not there", script(map[string]any{"text": "x", "interpreter": []string{"/no/such"}}), 201, "exec.not_found", "no"},
		{"one of #! that is not there", script(map[string]any{"text": "#!/no/such -x\nx"}), 201, "exec.not_found", "no"},
		{"an empty script", script(map[string]any{"text": ""}), 400, wire.RequestInvalid, "empty"},
		{"a script that is too large", script(map[string]any{"text": strings.Repeat("x", wire.MaxText+1)}), 400, wire.RequestInvalid, "at most 1048576"},
		{"an unknown member of a script", script(map[string]any{"text": "x", "shell": "y"}), 400, wire.RequestInvalid, "shell"},
		{"stdin that is too large", map[string]any{"stdin": strings.Repeat("x", wire.MaxText+1)}, 400, wire.RequestInvalid, "at most 1048576"},
		{"a file as directory", map[string]any{"dir": home + "/file"}, 201, "chdir.failed", "ENOTDIR"},
		{"a directory that is not absolute", map[string]any{"dir": "x"}, 400, wire.RequestInvalid, "absolute"},
		{"a NUL in an argument", map[string]any{"command": []string{"true", "a\x00b"}}, 400, wire.RequestInvalid, "NUL"},
		{"in a command line", map[string]any{"command": nil, "command_line": "a\x00b"}, 400, wire.RequestInvalid, "NUL"},
		{"in a script's argument", script(map[string]any{"text": "x", "args": []string{"\x00"}}), 400, wire.RequestInvalid, "NUL"},
		{"in #!", script(map[string]any{"text": "#!/bin/\x00sh\nx"}), 400, wire.RequestInvalid, "NUL"},
		{"in a variable", map[string]any{"env": map[string]string{"A": "\x00"}}, 400, wire.RequestInvalid, "NUL"},
		{"in a directory", map[string]any{"dir": "/\x00"}, 400, wire.RequestInvalid, "absolute"},
		{"a variable of 2 MiB", map[string]any{"env": map[string]string{"A": strings.Repeat("x", 2<<20)}}, 201, "launch.failed", "E2BIG"},
		{"an argument of 2 MiB", map[string]any{"command": []string{"true", strings.Repeat("x", 2<<20)}}, 201, "launch.failed", "E2BIG"},
		{"a body of more than 4 MiB", map[string]any{"env": map[string]string{"A": strings.Repeat("x", 5<<20)}}, 413, wire.RequestTooLarge, "octets"},
		{"a niceness that there is not", map[string]any{"unix": map[string]any{"nice": 20}}, 400, wire.RequestInvalid, "19"},
		{"a limit that there is not", map[string]any{"unix": map[string]any{"limits": map[string]any{"files": 1}}}, 400, wire.RequestInvalid, "nofile"},
		{"a limit below 0", map[string]any{"unix": map[string]any{"limits": map[string]any{"nofile": -1}}}, 400, wire.RequestInvalid, "number"},
		{"a umask that is none", map[string]any{"unix": map[string]any{"umask": "0999"}}, 400, wire.RequestInvalid, "octal"},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.change["id"] = "bad"
			a := call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(c.change))
			defer call(t, b, b.Accounts.LSAM, "DELETE", "/v1/jobs/bad", nil)
			if a.Status != 201 {
				if want(t, a, c.status, c.code); !strings.Contains(string(a.Body), c.words) {
					t.Errorf("got %s, want %q in it", a.Body, c.words)
				}
				want(t, call(t, b, b.Accounts.LSAM, "GET", "/v1/jobs/bad", nil), 404, wire.JobUnknown)
				return
			}
			job := ended(t, b, "bad")
			said := job.Reason + begunOutput(t, b, "bad")
			if c.status != 201 || job.Code != c.code || !strings.Contains(said, c.words) || (job.PID != 0) != (c.code == "") {
				t.Errorf("got %+v %q, want %s with %q", job, said, c.code, c.words)
			}
		})
	}
	if left := scripts(t, b); len(left) > 0 {
		t.Errorf("scripts: %q", left)
	}
	if s, err := b.Status(); err != nil || s.Jobs.Running != 0 {
		t.Errorf("running: %+v %v", s.Jobs, err)
	}
	if left, err := filepath.Glob(filepath.Join(b.Jobs, "jobs", "*")); err != nil || len(left) > 2 {
		t.Errorf("left of forgotten jobs: %q %v", left, err)
	}
}

// begunOutput is what a job wrote, if it began.
func begunOutput(t *testing.T, b *testbed.Bed, id string) string {
	t.Helper()
	a := call(t, b, b.Accounts.LSAM, "GET", "/v1/jobs/"+id+"/output/stdout", nil)
	if a.Status != 200 {
		return ""
	}
	return string(a.Body)
}

// TestManyAtOnce: more launches than may run get a code; those that were granted have an end, and each is known once.
func TestManyAtOnce(t *testing.T) {
	many, at := 2000, 64
	if testing.Short() {
		many = 300
	}
	b := testbed.New(t, testbed.Options{Edit: func(yaml string) string { return yaml + "jobs: {max_running: 20}\n" }})
	var (
		mu      sync.Mutex
		granted []string
		other   = map[string]int{}
	)
	next := make(chan int)
	var workers sync.WaitGroup
	for range at {
		workers.Go(func() {
			for i := range next {
				id := fmt.Sprintf("storm-%d", i)
				a, err := b.Call(b.Accounts.LSAM, "POST", "/v1/jobs", body(map[string]any{"id": id, "command": nil, "script": map[string]any{"text": "read a; echo $a\n"}, "stdin": id}))
				mu.Lock()
				switch {
				case err != nil:
					other[err.Error()]++
				case a.Status == 201:
					granted = append(granted, id)
				case a.Status != 429 || a.Code() != wire.Overloaded:
					other[fmt.Sprintf("%d %s", a.Status, a.Body)]++
				}
				mu.Unlock()
			}
		})
	}
	for i := range many {
		next <- i
	}
	close(next)
	workers.Wait()
	t.Logf("%d of %d launches were granted", len(granted), many)
	if len(other) > 0 || len(granted) == 0 {
		t.Errorf("%d granted, others %v", len(granted), other)
	}
	jobs := map[string]wire.Job{}
	for _, id := range granted {
		if job := ended(t, b, id); job.State != wire.Exited || job.ExitCode == nil || *job.ExitCode != 0 {
			t.Errorf("got %+v", job)
		}
	}
	for after := ""; ; {
		page := read[wire.Jobs](t, call(t, b, b.Accounts.LSAM, "GET", "/v1/jobs?limit=500"+after, nil)).Jobs
		for _, j := range page {
			jobs[j.ID] = j
			after = "&after=" + j.ID
		}
		if len(page) < 500 {
			break
		}
	}
	if len(jobs) != len(granted) {
		t.Errorf("%d jobs are known, %d were granted", len(jobs), len(granted))
	}
	if err := b.WaitAudited(); err != nil {
		t.Error(err)
	}
	if out := output(t, b, granted[0], "stdout"); out != granted[0]+"\n" {
		t.Errorf("%s wrote %q", granted[0], out)
	}
	if left := scripts(t, b); len(left) > 0 {
		t.Errorf("scripts: %q", left)
	}
}
