package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
)

func sortedCodes() []string { return slices.Sorted(maps.Keys(wire.Codes())) }

func TestBody(t *testing.T) {
	q := &question{realm: "opcon", as: "payroll", objects: []string{"machine=DB01", "references=3", "services=[\"a\"]"}}
	l := &launch{id: "7", dir: "/srv", env: []string{"A=1", "B=x=y", "C="}, timeout: 8 * time.Hour}
	body, err := l.body(q, []string{"/opt/pay/run.sh", "-x"})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.fill(&body, []string{"/opt/pay/run.sh", "-x"}, nil); err != nil {
		t.Fatal(err)
	}
	got, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"id":"7","realm":"opcon","subject":{},"object":{"machine":"DB01","references":3,"services":["a"]},"batch_user":"payroll",` +
		`"command":["/opt/pay/run.sh","-x"],"dir":"/srv","env":{"A":"1","B":"x=y","C":""},"timeout":"8h0m0s","stdio":"capture"}`
	if string(got) != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// TestOwnID: without --id each run is a job of its own, and its id is known before the service answers.
func TestOwnID(t *testing.T) {
	q, l := &question{realm: "r", as: "p"}, &launch{}
	one, err := l.body(q, []string{"x"})
	if err != nil {
		t.Fatal(err)
	}
	two, err := l.body(q, []string{"x"})
	if err != nil {
		t.Fatal(err)
	}
	if one.ID == two.ID || !strings.HasPrefix(one.ID, "cli-") || len(one.ID) > wire.MaxID {
		t.Errorf("got ids %q and %q, want two", one.ID, two.ID)
	}
	if one.Object != nil {
		t.Errorf("got object %s, want none", one.Object)
	}
}

func TestAsJSON(t *testing.T) {
	for value, want := range map[string]string{
		"":             `""`,
		"PAY.RUN":      `"PAY.RUN"`,
		"true":         `"true"`,
		"null":         `"null"`,
		"7":            `7`,
		"-1.5e3":       `-1.5e3`,
		"007":          `"007"`,
		"7 up":         `"7 up"`,
		"-":            `"-"`,
		`["a","b"]`:    `["a","b"]`,
		"[a]":          `"[a]"`,
		`{"name":"x"}`: `{"name":"x"}`,
		"{x":           `"{x"`,
		`"7"`:          `"7"`,
		`say "hi"`:     `"say \"hi\""`,
		"a\tb":         `"a\tb"`,
	} {
		if got := string(asJSON(value)); got != want {
			t.Errorf("%q: got %s, want %s", value, got, want)
		}
	}
}

// TestEnd: a job's end is the command's end.
func TestEnd(t *testing.T) {
	zero, seven := 0, 7
	for _, c := range []struct {
		job  wire.Job
		code int
		text string
	}{
		{wire.Job{State: wire.Exited, ExitCode: &zero}, 0, ""},
		{wire.Job{State: wire.Exited, ExitCode: &seven}, 7, ""},
		{wire.Job{ID: "j", State: wire.Exited, Signal: "KILL"}, 137, "job j was ended by KILL"},
		{wire.Job{ID: "j", State: wire.Exited, Signal: "SIGSEGV", CoreDumped: true}, 139, "job j was ended by SIGSEGV and left a core"},
		{wire.Job{ID: "j", State: wire.Exited, Signal: "TERM", Code: "job.timeout", Reason: "after 8h"}, 143, "job j was ended by TERM (job.timeout: after 8h)"},
		{wire.Job{ID: "j", State: wire.Exited, Signal: "34"}, 162, "job j was ended by 34"},
		{wire.Job{ID: "j", State: wire.Failed, Code: "exec.not_found", Reason: `"/x" does not exist`}, 125, `not started: job j: exec.not_found: "/x" does not exist`},
		{wire.Job{ID: "j", State: wire.Lost, Code: "job.host_rebooted"}, 1, "job j is lost: how it ended cannot be known: job.host_rebooted"},
		{wire.Job{ID: "j", State: wire.Exited}, 1, "job j is exited without an exit code"},
	} {
		code, text := end(&c.job)
		if code != c.code || text != c.text {
			t.Errorf("%+v: got %d %q, want %d %q", c.job, code, text, c.code, c.text)
		}
		var out, errs bytes.Buffer
		a := &app{out: &out, errs: &errs}
		if got := exitCode(a.ended(&c.job)); got != c.code || out.Len() > 0 {
			t.Errorf("%+v: got exit code %d and %q, want %d and nothing", c.job, got, &out, c.code)
		}
		a.json = true
		if got := exitCode(a.ended(&c.job)); got != c.code || !json.Valid(out.Bytes()) {
			t.Errorf("%+v: got exit code %d and %q, want %d and the job as JSON", c.job, got, &out, c.code)
		}
	}
}

func TestNotStarted(t *testing.T) {
	for _, c := range []struct {
		err  error
		code int
		want string
	}{
		{wire.NewProblem(wire.PolicyDenied, "OC5: no role grants it"), 125, "not started: policy.denied: OC5: no role grants it"},
		{wire.NewProblem(wire.CallerUnknown, "nobody"), 125, "not started: caller.unknown: nobody"},
		{context.Canceled, 130, "interrupted; whether job j was started, batchwarden jobs j tells"},
		{client.ErrUnreachable, 69, "the same command with --id j starts the job at most once"},
	} {
		err := notStarted("j", c.err)
		if f, is := errors.AsType[*failure](err); is && f.code != c.code || !is && codeOf(err) != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: got %v, want %d and …%s…", c.err, err, c.code, c.want)
		}
	}
}

func TestStillRunning(t *testing.T) {
	err := stillRunning("j", context.Canceled)
	if exitCode(err) != 130 || !strings.HasPrefix(err.Error(), "interrupted: job j goes on; batchwarden jobs j shows") {
		t.Errorf("got %d %v, want 130 and that the job goes on", exitCode(err), err)
	}
	if err := stillRunning("j", client.ErrUnreachable); codeOf(err) != 69 || !strings.Contains(err.Error(), "; job j goes on;") {
		t.Errorf("got %d %v, want 69 and that the job goes on", codeOf(err), err)
	}
}

// TestSignalNumber holds the table against numbers that everybody knows.
func TestSignalNumber(t *testing.T) {
	for name, want := range map[string]int{"HUP": 1, "KILL": 9, "SIGKILL": 9, "SEGV": 11, "TERM": 15, "CHLD": 17, "XCPU": 24, "SYS": 31, "64": 64, "NOPE": 0, "0": 0, "": 0} {
		if got := signalNumber(name); got != want {
			t.Errorf("%s: got %d, want %d", name, got, want)
		}
	}
}

func TestOnTerminal(t *testing.T) {
	file, err := os.Create(t.TempDir() + "/f")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if onTerminal(file) || onTerminal(null) || onTerminal(&bytes.Buffer{}) {
		t.Error("a file, the null device or a buffer is taken for a terminal")
	}
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0) // one end of a terminal
	if err != nil {
		tty, err = os.OpenFile("/dev/zero", os.O_WRONLY, 0) // a character device at least
	}
	if err != nil {
		t.Fatal(err)
	}
	defer tty.Close()
	if !onTerminal(tty) {
		t.Errorf("%s is not taken for a terminal", tty.Name())
	}
	var errs bytes.Buffer
	a := &app{in: tty, out: tty, errs: &errs, now: time.Now, socket: t.TempDir() + "/none/none.sock"}
	if code := a.run(t.Context(), []string{"retrieve", "--realm", "r", "payroll"}); code != 64 || !strings.Contains(errs.String(), "give --force") {
		t.Errorf("got %d, %q; want 64 and that --force is needed", code, &errs)
	}
	if code := a.run(t.Context(), []string{"retrieve", "--realm", "r", "--subject", "u", "--force", "payroll"}); code != 69 {
		t.Errorf("with --force: got %d, want 69: it was tried", code)
	}
}

// TestWhat: what runs, from flags, arguments and files.
func TestWhat(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"s.sh": "#!/bin/sh\n", "in": "a\nb\n", "latin1": "\xe9", "large": strings.Repeat("x", wire.MaxText+1)} {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		w     what
		args  []string
		stdio string
		want  string // the body, or in the error
	}{
		{w: what{commandLine: "a | b", login: true}, want: `"command_line":"a | b","login":true`},
		{w: what{script: dir + "/s.sh", stdin: dir + "/in"}, args: []string{"x"}, want: `"script":{"text":"#!/bin/sh\n","args":["x"]},"stdin":"a\nb\n"`},
		{w: what{script: "-"}, want: `"script":{"text":"own"}`},
		{w: what{stdin: "-"}, args: []string{"cat"}, want: `"command":["cat"],"stdin":"own"`},
		{w: what{nice: 5, limits: []string{"nofile=99", "core=unlimited"}}, args: []string{"x"}, want: `"unix":{"nice":5,"limits":{"core":18446744073709551615,"nofile":99}}`},
		{w: what{}, want: "no command is given"},
		{w: what{commandLine: "a", script: "b"}, want: "two things"},
		{w: what{commandLine: "a"}, args: []string{"b"}, want: "two things"},
		{w: what{script: "-", stdin: "-"}, want: "both"},
		{w: what{stdin: dir + "/in"}, args: []string{"x"}, stdio: "passed", want: "the job itself reads"},
		{w: what{script: dir + "/none"}, want: "none: no such file"},
		{w: what{script: dir + "/latin1"}, want: "not UTF-8"},
		{w: what{script: dir + "/large"}, want: "more than 1048576"},
		{w: what{limits: []string{"nofile"}}, args: []string{"x"}, want: "--limit"},
		{w: what{limits: []string{"nofile=1", "nofile=2"}}, args: []string{"x"}, want: "twice"},
	} {
		var body wire.Launch
		err := c.w.check(c.args, c.stdio)
		if err == nil {
			err = c.w.fill(&body, c.args, strings.NewReader("own"))
		}
		got, _ := json.Marshal(body)
		if err != nil {
			got = []byte(err.Error())
		}
		if !strings.Contains(string(got), c.want) {
			t.Errorf("%+v %q: got %s, want %s", c.w, c.args, got, c.want)
		}
		if f, is := errors.AsType[*failure](err); err != nil && (!is || f.code != exitUsage) {
			t.Errorf("%+v: got %v, want a usage error", c.w, err)
		}
	}
}
