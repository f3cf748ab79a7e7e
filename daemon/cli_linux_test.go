package daemon_test

import (
	"os"
	"strings"
	"testing"

	"batchwarden/installer/testbed"
)

// The command line against the running service: scripts live by its exit codes.
func TestCommandLine(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	lsam, stranger := b.Accounts.LSAM, b.Accounts.Stranger
	sh := func(script string, flags ...string) []string {
		return append(append([]string{"run", "--realm", "opcon", "--subject", testbed.User, "--as", "payroll"}, flags...), "--", "/bin/sh", "-c", script)
	}
	what := func(flags ...string) []string {
		return append([]string{"run", "--realm", "opcon", "--subject", testbed.User, "--as", "payroll"}, flags...)
	}
	hello := b.Root + "/hello.sh"
	if err := os.WriteFile(hello, []byte("echo hello $1; cat\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		as   testbed.Account
		args []string
		code int
		out  string // in stdout
		err  string // in stderr
	}{
		{"a job's output and success", lsam, sh("echo hello; echo oops >&2"), 0, "hello\n", "oops\n"},
		{"a job's own exit code", lsam, sh("exit 7"), 7, "", ""},
		{"128 and the signal", lsam, sh("kill -9 $$"), 137, "", "KILL"},
		{"stopped at its timeout, with what it wrote", lsam, sh("echo begun; exec sleep 300", "--timeout", "1s"), 143, "begun\n", "job.timeout"},
		{"the batch user by the realm's name", lsam, []string{"run", "--realm", "opcon", "--subject", testbed.User, "--as", "users/payroll", "--", "/bin/true"}, 0, "", ""},
		{"a command line", lsam, what("--command-line", "echo $0 $((6*7)) | cat", "--login"), 0, "-sh 42\n", ""},
		{"a script and what it reads", lsam, what("--script", hello, "--stdin", hello, "--", "you all"), 0, "hello you all\necho hello $1; cat\n", ""},
		{"nice and limits", lsam, what("--nice", "3", "--limit", "nofile=99", "--command-line", "nice; ulimit -n"), 0, "3\n99\n", ""},
		{"a limit that there is not", lsam, what("--limit", "files=99", "--", "true"), 125, "", "nofile"},
		{"two things to run", lsam, what("--command-line", "x", "--", "true"), 64, "", "two things"},
		{"denied", lsam, []string{"run", "--realm", "opcon", "--subject", testbed.Nobody, "--as", "payroll", "--", "/bin/true"}, 125, "", "policy.denied"},
		{"could not be started", lsam, []string{"run", "--realm", "opcon", "--subject", testbed.User, "--as", "payroll", "--", "/no/such"}, 125, "", "exec.not_found"},
		{"a stranger", stranger, sh("true"), 125, "", "caller.unknown"},
		{"authorize: yes", lsam, []string{"authorize", "--realm", "opcon", "--subject", testbed.User, "--as", "payroll"}, 0, "", ""},
		{"authorize: no", lsam, []string{"authorize", "--realm", "opcon", "--subject", testbed.Nobody, "--as", "payroll"}, 1, "", ""},
		{"explain, by an operator for anybody", testbed.Root, []string{"explain", "--realm", "opcon", "--subject", testbed.Nobody, "--as", "payroll"}, 1, "payroll-ops", ""},
		{"status", testbed.Root, []string{"status"}, 0, "online", ""},
		{"status by a stranger", stranger, []string{"status"}, 77, "", "caller.unknown"},
		{"whoami", stranger, []string{"whoami"}, 0, stranger.Name, ""},
		{"sync", testbed.Root, []string{"sync"}, 0, "", ""},
		{"sync by a client", lsam, []string{"sync"}, 77, "", "caller.forbidden"},
		{"retrieve into a pipe", lsam, []string{"retrieve", "--realm", "opcon", "--subject", testbed.User, "payroll"}, 0, b.Passwords()[0], ""},
		{"an unknown flag", lsam, []string{"run", "--colour", "red"}, 64, "", "colour"},
		{"nobody there", lsam, []string{"--socket", b.Root + "/run/none.sock", "whoami"}, 69, "", "none.sock"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := b.CLI(c.as, c.args...)
			if r.Code != c.code || !strings.Contains(r.Out, c.out) || !strings.Contains(r.Err, c.err) {
				t.Errorf("exit %d, want %d\nstdout %q, want %q in it\nstderr %q, want %q in it", r.Code, c.code, r.Out, c.out, r.Err, c.err)
			}
		})
	}
}
