package daemon_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// begin starts a job, which says its number first, and waits for that.
func begin(t *testing.T, b *testbed.Bed, id, script string, change map[string]any) wire.Job {
	t.Helper()
	what := body(change)
	what["id"], what["command"] = id, []string{"/bin/sh", "-c", "echo $$; " + script}
	job := read[wire.Job](t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", what))
	for deadline := time.Now().Add(10 * time.Second); !strings.HasSuffix(output(t, b, id, "stdout"), "\n"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("job %s says nothing: %+v", id, job)
		}
	}
	return job
}

func lookAt(t *testing.T, b *testbed.Bed, id string) wire.Job {
	t.Helper()
	return read[wire.Job](t, call(t, b, b.Accounts.LSAM, "GET", "/v1/jobs/"+id, nil))
}

func signal(t *testing.T, b *testbed.Bed, id, name, grace string) {
	t.Helper()
	what := map[string]any{"signal": name}
	if grace != "" {
		what["grace"] = grace
	}
	if a := call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs/"+id+"/signal", what); a.Status != 200 {
		t.Errorf("signal: %d %s", a.Status, a.Body)
	}
}

func gone(pid int) bool {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || strings.Contains(string(text), ") Z ")
}

// away ends launcher and daemon, does something, and starts both again.
func away(t *testing.T, b *testbed.Bed, kill bool, meanwhile func()) {
	t.Helper()
	for _, p := range []*testbed.Process{b.Daemon, b.Launcher} {
		if kill {
			p.Kill()
		} else if err := p.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	meanwhile()
	for _, start := range []func() error{b.StartLauncher, b.StartDaemon, b.WaitHealthy} {
		if err := start(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestSurvival: jobs do not notice that launcher and daemon end, in whatever way. The next ones go on with them: times,
// signals, output and the exact end, and what ended in between is lost and nothing of it is left.
func TestSurvival(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	for _, kill := range []bool{false, true} {
		name := map[bool]string{false: "stopped", true: "killed"}[kill]
		t.Run(name, func(t *testing.T) {
			id := func(s string) string { return name + "-" + s }
			const idle = "while :; do sleep 0.05; done"
			began := map[string]wire.Job{}
			for what, script := range map[string]string{
				"exits":    "trap 'echo bye; exit 7' TERM; " + idle,
				"signal":   idle,
				"between":  idle,
				"leaves":   "setsid sleep 600 & " + idle,
				"late":     idle,
				"stubborn": "trap '' TERM; " + idle,
				"orphan":   "trap 'exit 4' TERM; setsid sh -c 'sleep 600 & sleep 600' & " + idle,
				"large":    "trap 'head -c 3000000 /dev/zero; echo end; exit 0' TERM; " + idle,
			} {
				change := map[string]any{}
				if what == "late" {
					change["timeout"] = "4s"
				}
				began[what] = begin(t, b, id(what), script, change)
			}
			signal(t, b, id("stubborn"), "TERM", "3s")
			away(t, b, kill, func() {
				for _, what := range []string{"between", "leaves"} {
					if err := syscall.Kill(began[what].PID, syscall.SIGKILL); err != nil {
						t.Error(err)
					}
					for deadline := time.Now().Add(10 * time.Second); !gone(began[what].PID); time.Sleep(time.Millisecond) {
						if time.Now().After(deadline) {
							t.Fatal("it does not end")
						}
					}
				}
			})

			for _, what := range []string{"exits", "signal", "late", "stubborn", "orphan", "large"} {
				if job := lookAt(t, b, id(what)); job.State != wire.Running || job.PID != began[what].PID || !job.Started.Equal(began[what].Started) {
					t.Errorf("%s: got %+v, want it running as %+v", what, job, began[what])
				}
			}
			again := body(map[string]any{"id": id("exits"), "command": []string{"/bin/sh", "-c", "echo $$; trap 'echo bye; exit 7' TERM; " + idle}})
			if a := call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs", again); a.Status != 200 {
				t.Errorf("the same request: %d %s", a.Status, a.Body)
			}
			followed := make(chan string, 1)
			go func() {
				a, err := b.Call(b.Accounts.LSAM, "GET", "/v1/jobs/"+id("exits")+"/output/stdout?follow=1", nil)
				followed <- fmt.Sprint(string(a.Body), err)
			}()
			signal(t, b, id("exits"), "TERM", "")
			if job := ended(t, b, id("exits")); job.State != wire.Exited || job.ExitCode == nil || *job.ExitCode != 7 || job.Rusage == nil || job.Rusage.CPUSeconds <= 0 {
				t.Errorf("exits: %+v", job)
			}
			if got, want := <-followed, fmt.Sprintf("%d\nbye\n<nil>", began["exits"].PID); got != want {
				t.Errorf("followed %q, want %q", got, want)
			}
			signal(t, b, id("signal"), "USR1", "")
			if job := ended(t, b, id("signal")); job.State != wire.Exited || job.Signal != "USR1" {
				t.Errorf("signal: %+v", job)
			}
			signal(t, b, id("orphan"), "USR2", "") // all of them
			if job := ended(t, b, id("orphan")); job.State != wire.Exited || job.Signal != "USR2" {
				t.Errorf("orphan: %+v", job)
			}
			signal(t, b, id("large"), "TERM", "")
			if job := ended(t, b, id("large")); job.ExitCode == nil || *job.ExitCode != 0 || !strings.HasSuffix(output(t, b, id("large"), "stdout"), "\x00end\n") {
				t.Errorf("large: %+v", job)
			}
			job := ended(t, b, id("late"))
			if took := job.Ended.Sub(job.Started); job.State != wire.Failed || job.Code != "job.timeout" || job.Signal != "TERM" || took < 4*time.Second || took > 8*time.Second {
				t.Errorf("late: %+v after %v", job, took)
			}
			if job := ended(t, b, id("stubborn")); job.State != wire.Exited || job.Signal != "KILL" {
				t.Errorf("stubborn: %+v", job)
			}
			if job := ended(t, b, id("between")); job.State != wire.Lost || job.ExitCode != nil || job.Survivors > 1 { // its sleep
				t.Errorf("between: %+v", job)
			}
			if job := ended(t, b, id("leaves")); job.State != wire.Lost || job.Survivors == 0 || !strings.Contains(job.Reason, "have been ended") {
				t.Errorf("leaves: %+v", job)
			}
			if left := b.Command(testbed.Root, "pgrep", "-u", b.Accounts.Payroll.Name).Out; left != "" {
				t.Errorf("processes are left: %s", left)
			}
		})
	}
}

// TestUpgrade: another build of the launcher takes up the jobs of this one.
func TestUpgrade(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	top, err := testbed.Top()
	if err != nil {
		t.Fatal(err)
	}
	build := func(argv ...string) {
		t.Helper()
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir, cmd.Env = top, append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", argv, err, out)
		}
	}
	job := begin(t, b, "upgrade", "trap 'exit 9' TERM; while :; do sleep 0.05; done", nil)
	launcher, become := filepath.Join(b.Bin, "batchwarden-launcher"), filepath.Join(b.Bin, "batchwarden-become")
	build("go", "build", "-trimpath", "-ldflags", "-X batchwarden/daemon/version.Number=upgraded", "-o", launcher+".new", "./daemon/cmd/batchwarden-launcher")
	build("platform/launch/become/child/compile", become+".new")
	for _, program := range []string{launcher, become} { // as packages do it
		if err := os.Rename(program+".new", program); err != nil {
			t.Fatal(err)
		}
	}
	if err := b.RestartLauncher(); err != nil {
		t.Fatal(err)
	}
	if s, err := b.Status(); err != nil || s.Launcher.Version != "upgraded" || s.Jobs.Running != 1 {
		t.Errorf("status: %+v, %v", s.Launcher, err)
	}
	if now := lookAt(t, b, "upgrade"); now.State != wire.Running || now.PID != job.PID {
		t.Errorf("got %+v", now)
	}
	signal(t, b, "upgrade", "TERM", "")
	if end := ended(t, b, "upgrade"); end.ExitCode == nil || *end.ExitCode != 9 {
		t.Errorf("got %+v", end)
	}
	if job, _ := run(t, b, nil); job.ExitCode == nil || *job.ExitCode != 0 {
		t.Errorf("a job of the new one: %+v", job)
	}
}
