package daemon_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

func hexSum(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:])
}

// scripts are the files of scripts that are there now.
func scripts(t *testing.T, b *testbed.Bed) []string {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(filepath.Dir(b.Socket), "scripts", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// TestWays: a command line, a script, a login, and what a job is given to read.
func TestWays(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	payroll := b.Accounts.Payroll
	profile := filepath.Join(payroll.Home, ".profile")
	if err := os.WriteFile(profile, []byte("PERIOD=from-profile; export PERIOD\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(profile) })

	text := "#!/bin/sh -e\nprintf '%s\\n' \"$#\" \"$@\" \"${0##*/}\"; stat -c '%a %u' \"$0\"; cat \"$0\" | sha256sum | cut -c1-64\n"
	for _, c := range []struct {
		name   string
		change map[string]any
		out    string
	}{
		{"a command line is the shell's", map[string]any{"command_line": "echo $0 a  b; echo $((6*7)) | cat"}, "sh a b\n42\n"},
		{"and a login's", map[string]any{"command_line": "echo $0 $PERIOD", "login": true}, "-sh from-profile\n"},
		{"a command line without login reads no profile", map[string]any{"command_line": "echo $PERIOD."}, ".\n"},
		{"a command after the profiles, word for word", map[string]any{"command": []string{"/bin/sh", "-c", `printf '%s|' "$@" $PERIOD`, "sh", "a b", "$HOME", "", "'"}, "login": true}, "a b|$HOME||'|from-profile|"},
		{"a command found by a login's PATH", map[string]any{"command": []string{"echo", "x"}, "login": true}, "x\n"},
		{"a script without #! is the shell's", map[string]any{"script": map[string]any{"text": "echo hello $1\n", "args": []string{"you all"}}}, "hello you all\n"},
		{"its interpreter", map[string]any{"script": map[string]any{"text": "hello\n", "interpreter": []string{"/usr/bin/env", "cat"}}}, "hello\n"},
		{"an interpreter wins over #!", map[string]any{"script": map[string]any{"text": "#!/bin/false\n", "interpreter": []string{"cat"}}}, "#!/bin/false\n"},
		{"a script after the profiles", map[string]any{"script": map[string]any{"text": "#!/bin/sh\necho $PERIOD $1", "args": []string{"x y"}}, "login": true}, "from-profile x y\n"},
		{"what it reads", map[string]any{"command": []string{"/bin/cat"}, "stdin": "one\ntwo\x00three"}, "one\ntwo\x00three"},
		{"what a script reads", map[string]any{"script": map[string]any{"text": "read a; echo got $a; cat"}, "stdin": "first\nrest\n"}, "got first\nrest\n"},
		{"a full MiB", map[string]any{"command": []string{"sha256sum"}, "stdin": strings.Repeat("<\u2028", 1<<18)}, hexSum(strings.Repeat("<\u2028", 1<<18)) + "  -\n"},
		{"nothing to read", map[string]any{"command": []string{"/bin/cat"}}, ""},
		{"stdin is there again by its name", map[string]any{"command_line": "cat /dev/stdin; cat /proc/self/fd/0", "stdin": "x"}, "xx"},
		{"stdin cannot be written", map[string]any{"command_line": "echo y 2>/dev/null >/proc/self/fd/0 || cat", "stdin": "x"}, "x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, is := c.change["command"]; !is {
				c.change["command"] = nil
			}
			job, out := run(t, b, c.change)
			if out != c.out || job.State != wire.Exited || job.ExitCode == nil || *job.ExitCode != 0 {
				t.Errorf("got %q, want %q; stderr %q; %+v", out, c.out, output(t, b, job.ID, "stderr"), job)
			}
		})
	}
	t.Run("a script's file is its user's alone, and gone at the end", func(t *testing.T) {
		job, out := run(t, b, map[string]any{"command": nil, "script": map[string]any{"text": text, "args": []string{"a b", ""}}})
		got := lines(out)
		if len(got) != 6 || strings.Join(got[:3], "") != "2\na b\n\n" || got[4] != fmt.Sprintf("400 %d\n", payroll.UID) || got[5] != hexSum(text)+"\n" {
			t.Errorf("got %q; %+v %s", got, job, output(t, b, job.ID, "stderr"))
		}
		if left := scripts(t, b); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
		if job.ScriptSHA256 != hexSum(text) || job.CommandSHA256 != hexSum("a b\x00\x00") {
			t.Errorf("sums: %+v", job)
		}
		for _, kind := range []string{"launch", "job.ended"} {
			r := audited(t, b, map[string]string{"kind": kind, "decision_id": job.DecisionID})
			if told, _ := r["job"].(map[string]any); told["script_sha256"] != hexSum(text) || told["command_sha256"] != hexSum("a b\x00\x00") {
				t.Errorf("%s: %v", kind, r)
			}
		}
		line, _ := run(t, b, map[string]any{"command": nil, "command_line": "true"})
		if line.CommandSHA256 != hexSum("true\x00") || line.ScriptSHA256 != "" {
			t.Errorf("sums: %+v", line)
		}
	})
	t.Run("nobody else reads it", func(t *testing.T) {
		job := read[wire.Job](t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(map[string]any{"command": nil, "script": map[string]any{"text": "exec sleep 30"}})))
		file := scripts(t, b)
		if len(file) != 1 {
			t.Fatalf("scripts: %q", file)
		}
		for _, other := range []testbed.Account{b.Accounts.Reports, b.Accounts.LSAM} {
			if r := b.Command(other, "cat", file[0]); r.Code == 0 || !strings.Contains(r.Err, "Permission denied") {
				t.Errorf("%s: %+v", other.Name, r)
			}
			if r := b.Command(other, "ls", filepath.Dir(file[0])); r.Code == 0 {
				t.Errorf("%s: %+v", other.Name, r)
			}
		}
		if r := b.Command(payroll, "cat", file[0]); r.Out != "exec sleep 30" {
			t.Errorf("its user: %+v", r)
		}
		call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs/"+job.ID+"/signal", map[string]any{"signal": "KILL"})
		ended(t, b, job.ID)
		if left := scripts(t, b); len(left) > 0 {
			t.Errorf("left: %q", left)
		}
	})
	t.Run("the id stands for all of it", func(t *testing.T) {
		all := map[string]any{
			"id": "whole", "command": nil, "script": map[string]any{"text": "cat", "interpreter": []string{"sh"}, "args": []string{"x"}},
			"login": true, "stdin": "in", "unix": map[string]any{"nice": 3, "limits": map[string]any{"nofile": 99}},
		}
		first, _ := run(t, b, all)
		again := call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(all))
		if again.Status != 200 || read[wire.Job](t, again).DecisionID != first.DecisionID {
			t.Errorf("the same: %d %s", again.Status, again.Body)
		}
		for name, other := range map[string]any{
			"login": nil, "stdin": "other", "unix": map[string]any{"nice": 4, "limits": map[string]any{"nofile": 99}},
			"script": map[string]any{"text": "cat ", "interpreter": []string{"sh"}, "args": []string{"x"}},
		} {
			changed := body(all)
			if changed[name] = other; other == nil {
				delete(changed, name)
			}
			a := call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", changed)
			if want(t, a, 409, wire.IDConflict); t.Failed() {
				t.Errorf("with another %s", name)
			}
		}
	})
}

// TestScriptOutlivesLauncher: a script stays while somebody runs it, whatever happens to the launcher, and not longer.
func TestScriptOutlivesLauncher(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	again := filepath.Join(b.Accounts.Payroll.Home, "go")
	text := "while [ ! -e $HOME/go ]; do sleep 0.05; done; cp \"$0\" $HOME/copy"
	read[wire.Job](t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", body(map[string]any{"id": "long", "command": nil, "script": map[string]any{"text": text}})))
	b.Launcher.Kill()
	if err := b.RestartLauncher(); err != nil {
		t.Fatal(err)
	}
	if left := scripts(t, b); len(left) != 1 {
		t.Fatalf("while it runs: %q", left)
	}
	if r := b.Command(b.Accounts.Payroll, "touch", again); r.Code != 0 {
		t.Fatal(r.Err)
	}
	if job := ended(t, b, "long"); job.State != wire.Exited && job.State != wire.Lost {
		t.Errorf("got %+v", job)
	}
	if copied, err := os.ReadFile(filepath.Join(b.Accounts.Payroll.Home, "copy")); err != nil || string(copied) != text {
		t.Errorf("its file: %q, %v", copied, err)
	}
	if left := scripts(t, b); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
	// One that a launcher could not remove is removed by the next.
	stale := filepath.Join(filepath.Dir(b.Socket), "scripts", "4711")
	if err := os.WriteFile(stale, nil, 0o400); err != nil {
		t.Fatal(err)
	}
	if err := b.RestartLauncher(); err != nil {
		t.Fatal(err)
	}
	if left := scripts(t, b); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}
