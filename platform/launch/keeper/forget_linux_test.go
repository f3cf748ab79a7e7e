package keeper

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"batchwarden/platform/launch"
)

// TestForgotten: an ended job is gone when Forget returns, also for the next launcher, and its id is free.
func TestForgotten(t *testing.T) {
	b := newBed(t)
	conn, _ := b.requester(agentUID)
	running, _, err := b.launcher.Start(b.ctx(), conn, spec("running", "/bin/sleep", "30"))
	if err != nil {
		t.Fatal(err)
	}
	refusal(t, b.launcher.Forget(b.ctx(), "lsam", "running", running.Serial), launch.CodeRunning)
	first := b.run(spec("first", "/bin/true"))
	job := b.run(spec("gone", "/bin/echo", "hello"))
	last := b.run(spec("last", "/bin/true"))

	refusal(t, b.launcher.Forget(b.ctx(), "other", "gone", job.Serial), launch.CodeUnknown)
	refusal(t, b.launcher.Forget(b.ctx(), "lsam", "gone", job.Serial+100), launch.CodeUnknown)
	if err := b.launcher.Forget(b.ctx(), "lsam", "gone", job.Serial); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(outputPath(b.config.StateDir, job.Serial)); !os.IsNotExist(err) {
		t.Errorf("its output: %v", err)
	}
	gone := func() {
		t.Helper()
		_, err := b.launcher.Job(b.ctx(), "lsam", "gone", 0)
		refusal(t, err, launch.CodeUnknown)
		ended, err := b.launcher.Ended(b.ctx(), 0)
		if err != nil || len(ended) < 2 || ended[0].Serial != first.Serial || ended[1].Serial != last.Serial {
			t.Errorf("ends: %+v, %v", ended, err)
		}
	}
	gone()
	refusal(t, b.launcher.Forget(b.ctx(), "lsam", "gone", job.Serial), launch.CodeUnknown)
	if _, err := b.launcher.Signal(b.ctx(), "lsam", "running", "KILL", 0); err != nil {
		t.Error(err)
	}
	b.wait("running")
	b.stopDaemon()
	b.stopKeeper()
	b.runKeeper()
	b.runDaemon()
	gone()
	if again := b.run(spec("gone", "/bin/echo", "anew")); again.Serial <= last.Serial {
		t.Errorf("got %+v", again)
	}
	want(t, "output", b.output("gone", launch.Stdout), "anew\n")
}

// TestChecks: all that a launch would be asked, and nothing comes of it.
func TestChecks(t *testing.T) {
	needRoot(t)
	c := configure(t)
	allow := c.Allow
	c.Allow = func(a Ask) error {
		for _, name := range a.Env {
			if name == "LD_PRELOAD" {
				return fmt.Errorf("allow_env: %q", name)
			}
		}
		return allow(a)
	}
	b := start(t, c)
	agent, _ := b.requester(agentUID)
	other, _ := b.requester(jobUID)
	ghost, forbidden := spec("x", "/bin/true"), spec("x", "/bin/true")
	ghost.Account, forbidden.Env = "no-such-account", map[string]string{"LD_PRELOAD": "/x"}
	late := spec("x", "/bin/true")
	late.Started = 1
	nowhere := spec("x", "/bin/true")
	nowhere.Dir = "/no/such/dir"
	uid, asAgent, asOther := func(n uint32) *uint32 { return &n }, uint32(agentUID), uint32(jobUID)
	const well = "launcher: requester: account: limits: dir: command:"
	for _, c := range []struct {
		name string
		own  bool
		as   *uint32
		s    launch.Spec
		want string
	}{
		{"all is well", true, nil, spec("x", "/bin/true"), well},
		{"not a requester", false, nil, spec("x", "/bin/true"), "launcher: requester: account: limits:limits.refused dir: command:"},
		{"as if a requester asked", false, uid(asAgent), spec("x", "/bin/true"), well},
		{"as if another asked", true, uid(asOther), spec("x", "/bin/true"), "launcher: requester: account: limits:limits.refused dir: command:"},
		{"no such account", true, nil, ghost, "launcher: requester: account:account.missing"},
		{"what the limits refuse", true, nil, forbidden, "launcher: requester: account: limits:limits.refused dir: command:"},
		{"another process", true, nil, late, "launcher: requester:caller.forbidden"},
		{"no such directory", true, nil, nowhere, "launcher: requester: account: limits: dir:chdir.failed command:"},
		{"no such command", true, nil, spec("x", "/no/such"), "launcher: requester: account: limits: dir: command:exec.not_found"},
		{"none of the name in PATH", true, nil, spec("x", "no-such-command"), "launcher: requester: account: limits: dir: command:exec.not_found"},
		{"a file that is no program", true, nil, spec("x", "/etc/passwd"), "launcher: requester: account: limits: dir: command:exec.forbidden"},
	} {
		conn := agent
		if !c.own {
			conn = other
		}
		checks, err := b.launcher.Check(b.ctx(), conn, c.s, c.as)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		var got []string
		for _, step := range checks {
			got = append(got, step.Step+":"+step.Code)
			if (step.Code == "") != (step.Reason == "") || (step.Code == "") != (step.Found != "") || step.Unseen {
				t.Errorf("%s: %+v", c.name, step)
			}
		}
		want(t, c.name, strings.Join(got, " "), c.want)
	}
	bad := spec("x", "/bin/true")
	bad.Dir = "relative"
	_, err := b.launcher.Check(b.ctx(), agent, bad, nil)
	refusal(t, err, launch.CodeInvalid)
	if jobs, err := b.launcher.Jobs(b.ctx(), ""); err != nil || len(jobs) > 0 {
		t.Errorf("jobs: %+v, %v", jobs, err)
	}
}
