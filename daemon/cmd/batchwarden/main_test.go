package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with testdata/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant, as in %s:\n%s", got, file, want)
	}
}

// noon is when all tests run.
var noon = time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC)

// command runs the program with a socket that nobody listens at.
func command(t *testing.T, in string, args ...string) (code int, out, errs string) {
	t.Helper()
	var o, e bytes.Buffer
	a := &app{in: strings.NewReader(in), out: &o, errs: &e, now: func() time.Time { return noon }, socket: filepath.Join(t.TempDir(), "none", "none.sock")}
	code = a.run(t.Context(), args)
	return code, o.String(), e.String()
}

// TestUsage: what is wrong with the arguments is found before anybody is asked, and is exit code 64.
func TestUsage(t *testing.T) {
	run := func(args ...string) []string { return append([]string{"run", "--realm", "r", "--as", "p"}, args...) }
	for _, c := range []struct {
		args []string
		want string
	}{
		{nil, "no command is given"},
		{[]string{"nope"}, `unknown command "nope"`},
		{[]string{"status", "x"}, `unknown command "x"`},
		{[]string{"status", "--nope"}, "unknown flag: --nope"},
		{[]string{"jobs", "a", "b"}, "accepts at most 1 arg(s)"},
		{[]string{"output"}, "accepts 1 arg(s)"},
		{[]string{"jobs", "--forget"}, "--forget wants the id"},
		{[]string{"config"}, "config is not a command by itself"},
		{[]string{"config", "nope"}, `unknown command "nope"`},
		{[]string{"policy"}, "policy is not a command by itself"},
		{[]string{"policy", "eval"}, "no document is given"},
		{[]string{"run", "--as", "p", "--", "x"}, "no realm is given"},
		{[]string{"run", "--realm", "r", "--", "x"}, "no batch user is given"},
		{run(), "no command is given"},
		{run("--"), "no command is given"},
		{run("--", ""), "no command is given"},
		{run("--timeout", "8", "--", "x"), "invalid argument"},
		{run("--timeout", "-8h", "--", "x"), "--timeout -8h0m0s is negative"},
		{run("--env", "A", "--", "x"), `--env "A" is not a variable; write it as name=value`},
		{run("--env", "=b", "--", "x"), `--env "=b" is not a variable`},
		{run("--env", "A=1", "--env", "A=2", "--", "x"), "--env A is given twice"},
		{run("--object", "host", "--", "x"), `--object "host" is not a member; write it as name=value`},
		{run("--object", "=x", "--", "x"), `--object "=x" is not a member`},
		{run("--object", "a=1", "--object", "a=2", "--", "x"), "--object a is given twice"},
		{[]string{"authorize"}, "no realm is given"},
		{[]string{"explain", "--object", "x", "--realm", "r"}, `--object "x" is not a member`},
		{[]string{"explain", "--client", "c", "--realm", "r"}, "--client is for a whole launch"},
		{[]string{"explain", "--realm", "r", "--as", "p", "--env", "A", "--", "x"}, `--env "A" is not a variable`},
		{[]string{"explain", "--decision", "a b"}, "is not the id of a decision"},
		{[]string{"preflight"}, "accepts 1 arg(s)"},
		{[]string{"preflight", "/no/such/file"}, "no such file"},
		{[]string{"retrieve", "payroll"}, "no realm is given"},
		{[]string{"retrieve", "--realm", "r"}, "accepts 1 arg(s)"},
		{[]string{"retrieve", "--realm", "r", "--json", "payroll"}, "a password is not printed as JSON"},
	} {
		code, out, errs := command(t, "", c.args...)
		if code != 64 || out != "" || !strings.Contains(errs, c.want) || !strings.HasPrefix(errs, "batchwarden: ") {
			t.Errorf("batchwarden %q: got %d, %q, %q; want 64 and …%s…", c.args, code, out, errs, c.want)
		}
	}
}

// TestNobodyListens: each command that asks the service says that it does not answer, where, and what to do.
func TestNobodyListens(t *testing.T) {
	for _, args := range [][]string{
		{"status"}, {"whoami"}, {"sync"}, {"suspend"}, {"resume"}, {"jobs", "--forget", "1"}, {"batch-users"}, {"batch-users", "payroll"}, {"verify", "payroll"}, {"jobs"}, {"jobs", "1"},
		{"output", "1"}, {"output", "-f", "--stderr", "1"},
		{"run", "--realm", "r", "--as", "p", "--", "x"},
		{"run", "--realm", "r", "--as", "p", "--dry-run", "--", "x"},
		{"run", "--realm", "r", "--as", "p", "--subject", "u", "--detach", "x", "-y"},
		{"authorize", "--realm", "r"}, {"explain", "--realm", "r", "--as", "p", "--subject", "u", "--id", "1", "--", "x"},
		{"retrieve", "--realm", "r", "--subject", "u", "payroll"}, {"preflight", "-"},
	} {
		code, out, errs := command(t, "", args...)
		if code != 69 || out != "" || !strings.Contains(errs, "none.sock") || !strings.Contains(errs, "Is batchwardend running?") {
			t.Errorf("batchwarden %q: got %d, %q, %q; want 69, the socket and what to do", args, code, out, errs)
		}
	}
}

func TestSocket(t *testing.T) {
	var errs bytes.Buffer
	a := &app{in: strings.NewReader(""), out: &errs, errs: &errs, now: time.Now}
	if a.root(); a.socket != "/run/batchwarden/batchwarden.sock" {
		t.Errorf("got socket %q, want the default", a.socket)
	}
	other := filepath.Join(t.TempDir(), "other.sock")
	if code := a.run(t.Context(), []string{"status", "--socket", other}); code != 69 || !strings.Contains(errs.String(), other) {
		t.Errorf("got %d and %q, want 69 and the socket of --socket", code, &errs)
	}
}

func TestHelp(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"run", "--help"}, {"help", "config", "check"}, {"completion", "bash"}} {
		code, out, errs := command(t, "", args...)
		if code != 0 || out == "" || errs != "" {
			t.Errorf("batchwarden %q: got %d, %d octets and %q; want 0 and a text on stdout", args, code, len(out), errs)
		}
	}
}

func TestVersion(t *testing.T) {
	code, out, _ := command(t, "", "version")
	if code != 0 || !strings.HasPrefix(out, "batchwarden ") || !strings.Contains(out, "go1.") {
		t.Errorf("got %d and %q, want a version", code, out)
	}
	code, out, _ = command(t, "", "version", "--json")
	if code != 0 || !strings.Contains(out, `"go": "go1.`) || !strings.Contains(out, `"date": "`) {
		t.Errorf("got %d and %q, want a version as JSON", code, out)
	}
}

// TestProblems holds exit codes and advice against every code that the service has.
func TestProblems(t *testing.T) {
	var b strings.Builder
	for _, code := range sortedCodes() {
		p := wire.NewProblem(code, "")
		next := advice(p)
		if next == "" {
			t.Errorf("%s: there is no advice", code)
		}
		b.WriteString(strings.Join([]string{code, " ", string(rune('0' + codeOf(p)/10)), string(rune('0' + codeOf(p)%10)), " ", next, "\n"}, ""))
	}
	golden(t, "problems.golden", b.String())
	for code := range nextByCode {
		if _, known := wire.Codes()[code]; !known {
			t.Errorf("there is advice for %q, which is no code", code)
		}
	}
}

func TestCodeOf(t *testing.T) {
	for _, c := range []struct {
		err  error
		want int
	}{
		{wire.NewProblem(wire.CallerUnknown, ""), 77},
		{wire.NewProblem(wire.CallerForbidden, ""), 77},
		{wire.NewProblem(wire.PolicyDenied, ""), 1},
		{wire.NewProblem(wire.Internal, ""), 1},
		{wire.Invalid("subject.user", "is empty"), 64},
		{client.ErrUnreachable, 69},
		{context.Canceled, 130},
		{errors.New("disk full"), 1},
	} {
		if got := codeOf(c.err); got != c.want {
			t.Errorf("%v: got %d, want %d", c.err, got, c.want)
		}
	}
}
