package daemon_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// TestExamples runs the agents that authors begin from: each asks who it is and whether it may, launches and waits; and
// then, when it was killed while it waited and the service was restarted too, finds its job again.
func TestExamples(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	dir := filepath.Join(b.Root, "examples") // where the agent's own account can run them
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, argv := range map[string][]string{
		"curl":    {"/bin/sh", example(t, dir, "agent.sh")},
		"python3": {"python3", example(t, dir, "agent.py")},
		"cc":      {filepath.Join(dir, "agent")},
	} {
		t.Run(name, func(t *testing.T) {
			tool := needs(t, name)
			switch name {
			case "python3":
				argv[0] = tool
			case "cc":
				if out, err := exec.Command(tool, "-Wall", "-Werror", "-o", argv[0], example(t, dir, "agent.c")).CombinedOutput(); err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
			}
			agent := func(id string, command ...string) testbed.Result {
				args := append(argv, b.Socket, "opcon", testbed.User, "payroll", name+"-"+id)
				return b.Command(b.Accounts.LSAM, append(args, command...)...)
			}
			r := agent("once", "/bin/sh", "-c", `test "$0" = "a \"quoted\" word"`, `a "quoted" word`)
			if job := last(t, r); r.Code != 0 || job.ExitCode == nil || *job.ExitCode != 0 || job.BatchUser != "payroll" || job.ID != name+"-once" {
				t.Errorf("exit %d, %+v\n%s%s", r.Code, job, r.Out, r.Err)
			}
			if !strings.Contains(r.Out, `"allowed":`) || !strings.Contains(r.Out, b.Accounts.LSAM.Name) {
				t.Errorf("it did not ask who it is, or whether it may: %s", r.Out)
			}
			if r := agent("no", "/bin/false"); r.Code != 1 {
				t.Errorf("a job that ended with 1: exit %d, %s%s", r.Code, r.Out, r.Err)
			}

			count := filepath.Join(b.Accounts.Payroll.Home, name)
			script := fmt.Sprintf("echo x >> %s; sleep 3", count)
			args := append([]string{"timeout", "-s", "KILL", "1"}, append(argv, b.Socket, "opcon", testbed.User, "payroll", name+"-again", "/bin/sh", "-c", script)...)
			if r := b.Command(b.Accounts.LSAM, args...); r.Code != 137 {
				t.Fatalf("the agent was not killed: exit %d, %s%s", r.Code, r.Out, r.Err)
			}
			if err := b.RestartDaemon(); err != nil {
				t.Fatal(err)
			}
			r = agent("again", "/bin/sh", "-c", script)
			if job := last(t, r); r.Code != 0 || job.State != wire.Exited {
				t.Errorf("exit %d, %+v\n%s%s", r.Code, job, r.Out, r.Err)
			}
			if text, err := os.ReadFile(count); err != nil || string(text) != "x\n" {
				t.Errorf("the job ran %q, %v, want once", text, err)
			}
		})
	}
}

// needs finds a program that is there for an account without a home.
func needs(t *testing.T, name string) string {
	t.Helper()
	for _, dir := range []string{"/usr/bin", "/bin", "/usr/local/bin"} {
		if path := filepath.Join(dir, name); exec.Command(path, "--version").Run() == nil {
			return path
		}
	}
	text := fmt.Sprintf("needs %s; as root: apt-get install curl python3 gcc libc6-dev", name)
	if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
		t.Fatal(text)
	}
	t.Skip(text)
	return ""
}

func example(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "ipc", "client", "examples", name))
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(dir, name)
	if err := os.WriteFile(to, text, 0o755); err != nil {
		t.Fatal(err)
	}
	return to
}

// last is the job that the agent wrote at its end.
func last(t *testing.T, r testbed.Result) (job wire.Job) {
	t.Helper()
	all := strings.Split(strings.TrimSpace(r.Out), "\n")
	if err := json.Unmarshal([]byte(all[len(all)-1]), &job); err != nil {
		t.Fatalf("%v in %s%s after %v", err, r.Out, r.Err, r.Took.Round(time.Millisecond))
	}
	return job
}
