package peer

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestNamespace runs playNamespace as the first process of a pid namespace, where it can choose pids, and connects to
// it from outside.
func TestNamespace(t *testing.T) {
	needRoot(t)
	dir := t.TempDir()
	cmd := exec.Command("/proc/self/exe", dir)
	cmd.Env = []string{roleEnv + "=namespace"}
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWPID, Unshareflags: syscall.CLONE_NEWNS}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := false
	t.Cleanup(func() {
		if !ended {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	lines := bufio.NewScanner(stdout)
	for lines.Scan() && lines.Text() != "listening" {
		t.Log(lines.Text())
	}
	c, err := net.Dial("unix", filepath.Join(dir, "outside"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for lines.Scan() {
		t.Log(lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	ended = true
}

// playNamespace says what it did, and ends with 1 when something was wrong.
func playNamespace() int {
	err := errors.Join(unix.Mount("none", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount("proc", "/proc", "proc", 0, ""))
	if err == nil {
		err = reuse(filepath.Join(os.Args[1], "inside"))
	}
	if err == nil {
		err = above(filepath.Join(os.Args[1], "outside"))
	}
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// above: who connects from the namespace above has no number here.
func above(path string) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	fmt.Println("listening")
	c, err := l.AcceptUnix()
	if err != nil {
		return err
	}
	if p, err := Of(c); !errors.Is(err, ErrForeign) {
		return fmt.Errorf("from above: %+v, %w", p, err)
	}
	return nil
}

// reuse: a client leaves its connection to a child and ends; another process of the same user's gets its pid.
func reuse(path string) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	first := exec.Command("/proc/self/exe")
	first.Env = []string{connectEnv + "=" + path, roleEnv + "=heir"}
	give, err := first.StdinPipe()
	if err != nil {
		return err
	}
	if err := first.Start(); err != nil {
		return err
	}
	c, err := l.AcceptUnix()
	if err != nil {
		return err
	}
	a, err := NewAttestor()
	if err != nil {
		return err
	}
	before, err := older(c) // what the daemon has of it from the beginning
	if err != nil {
		return err
	}
	attested, err := a.Attest(context.Background(), c, path, Want{Started: before.Started})
	if err != nil || attested.Started != before.Started || before.Started == 0 {
		return fmt.Errorf("before: %+v, %w, started at %d", attested, err, before.Started)
	}
	_, err = give.Write([]byte{1})
	if state, waitErr := first.Process.Wait(); err != nil || waitErr != nil || !state.Success() {
		return errors.Join(fmt.Errorf("the client did not end well: %v", state), err, waitErr)
	}
	second, err := withPID(before.PID)
	if err != nil {
		return err
	}
	defer second.end()
	fmt.Println("pid", before.PID, "is another process now")

	for _, old := range []bool{false, true} {
		a.older = old
		want := ErrGone
		if old {
			want = ErrChanged
		}
		if at, err := a.Attest(context.Background(), c, path, Want{Started: before.Started}); !errors.Is(err, want) {
			return fmt.Errorf("older kernel %v: %+v, %w", old, at, err)
		}
		err := control(c, func(fd int) error {
			_, err := running(fd, before, old)
			return err
		})
		if !errors.Is(err, ErrGone) {
			return fmt.Errorf("older kernel %v: alive: %w", old, err)
		}
	}
	// On an older kernel, who was first looked at after another process of the same user's had its pid is that one.
	if at, err := a.Attest(context.Background(), c, path, Want{}); err != nil || at.PID != before.PID || at.Started == before.Started {
		return fmt.Errorf("older kernel, without knowing when it started: %+v, %w", at, err)
	}
	return nil
}

// withPID starts a process of that number.
func withPID(pid int) (*caller, error) {
	for range 100 {
		if err := os.WriteFile("/proc/sys/kernel/ns_last_pid", []byte(strconv.Itoa(pid-1)), 0); err != nil {
			return nil, err
		}
		cmd := exec.Command("/proc/self/exe")
		cmd.Env = []string{connectEnv + "=none"}
		stdin, err := cmd.StdinPipe()
		if err != nil {
			return nil, err
		}
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		c := &caller{cmd: cmd, stdin: stdin}
		if cmd.Process.Pid == pid {
			return c, nil
		}
		c.end() // one of our own threads was faster
	}
	return nil, fmt.Errorf("no process got pid %d", pid)
}
