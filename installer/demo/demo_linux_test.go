package main

import (
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"batchwarden/installer/testbed"
)

// As outer or inner process of a demo the test binary behaves like the program.
func TestMain(m *testing.M) {
	switch {
	case os.Getenv(innerEnv) != "" || os.Getenv(outerEnv) != "":
		main()
	default:
		os.Exit(testbed.Main(m))
	}
}

// outerEnv makes the test binary a demo.
const outerEnv = "DEMO_TEST_OUTER"

func TestPlaygroundCommandsWork(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	shell := strings.Join(environment(b), "\n") + "\n"
	for _, c := range tries(b) {
		t.Run(c.what, func(t *testing.T) {
			r := b.Command(testbed.Root, "/bin/sh", "-c", shell+c.command)
			if r.Code != c.code {
				t.Errorf("%s: exit code %d, want %d\n%s%s", c.command, r.Code, c.code, r.Out, r.Err)
			}
			if !strings.Contains(r.Out, c.says) {
				t.Errorf("%s: nothing of %q in %q %q", c.command, c.says, r.Out, r.Err)
			}
		})
	}
}

// What is shown without root works as anybody.
func TestDemoWithoutRoot(t *testing.T) {
	if err := unprivileged(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestDemoComesOutAndLeavesNothing(t *testing.T) {
	testbed.NeedRoot(t)
	d := startDemo(t)
	d.await(t, " 1  ")
	inner := d.inner()
	if err := d.cmd.Wait(); err != nil {
		t.Errorf("demo: %v", err)
	}
	text := d.text()
	t.Logf("%s", text)
	for _, want := range []string{"all 11 steps came out", "nothing is left behind"} {
		if !strings.Contains(text, want) {
			t.Errorf("the demo did not say %q", want)
		}
	}
	d.nothingLeft(t, inner)
}

func TestDemoInterruptedLeavesNothing(t *testing.T) {
	testbed.NeedRoot(t)
	for _, c := range []struct {
		name string
		hit  func(d *demo)
	}{
		{"Ctrl-C", func(d *demo) { _ = d.cmd.Process.Signal(os.Interrupt) }},
		{"SIGTERM", func(d *demo) { _ = d.cmd.Process.Signal(syscall.SIGTERM) }},
		{"kill -9 of the process that does the work", func(d *demo) { _ = syscall.Kill(d.inner(), syscall.SIGKILL) }},
		{"kill -9 of the process that looks after it", func(d *demo) { _ = d.cmd.Process.Kill() }},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := startDemo(t)
			d.await(t, " 3  ")
			inner := d.inner()
			if inner == 0 {
				t.Fatalf("no inner process\n%s", d.text())
			}
			c.hit(d)
			if err := d.cmd.Wait(); err == nil {
				t.Error("an interrupted demo ended as if nothing had been")
			}
			for deadline := time.Now().Add(20 * time.Second); syscall.Kill(inner, 0) == nil; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(deadline) {
					t.Fatalf("the inner process lives on\n%s", d.text())
				}
			}
			d.nothingLeft(t, inner)
		})
	}
}

// A demo is one that runs as a process, with what it says in a file.
type demo struct {
	cmd *exec.Cmd
	out *os.File
}

func startDemo(t *testing.T) *demo {
	t.Helper()
	out, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"demo"}
	cmd.Env = append(os.Environ(), outerEnv+"=1")
	cmd.Stdout, cmd.Stderr = out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return &demo{cmd, out}
}

func (d *demo) text() string {
	text, err := io.ReadAll(io.NewSectionReader(d.out, 0, 1<<20))
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// await waits until the demo has said something.
func (d *demo) await(t *testing.T, what string) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !strings.Contains(d.text(), what); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the demo did not say %q\n%s", what, d.text())
		}
	}
}

// inner returns the pid of the demo's child, or 0.
func (d *demo) inner() int {
	pids, err := testbed.Children(d.cmd.Process.Pid)
	if err != nil || len(pids) != 1 {
		return 0
	}
	return pids[0]
}

// nothingLeft checks as the demo itself does, and for the accounts by name.
func (d *demo) nothingLeft(t *testing.T, inner int) {
	t.Helper()
	if left := testbed.Leftovers(prefix(false), inner); len(left) > 0 {
		t.Errorf("left: %v\n%s", left, d.text())
	}
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(passwd, []byte(prefix(false)+"-")) {
		t.Errorf("accounts are left:\n%s", passwd)
	}
}
