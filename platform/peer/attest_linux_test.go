package peer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const userUID, otherUID = 4100, 4101

// bothKernels runs the test as on this kernel and as on one before 6.5.
func bothKernels(t *testing.T, f func(t *testing.T, a *Attestor)) {
	t.Helper()
	for name, older := range map[string]bool{"pidfd": false, "older": true} {
		t.Run(name, func(t *testing.T) {
			a, err := NewAttestor()
			if err != nil {
				t.Fatal(err)
			}
			a.older = older
			f(t, a)
		})
	}
}

// program copies this binary to a place where every user can execute it.
func program(t *testing.T, mode os.FileMode, uid int) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != "/" && d != os.TempDir(); d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(dir, "program")
	self, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, self, 0o700); err != nil {
		t.Fatal(err)
	}
	if uid != os.Getuid() {
		if err := os.Chown(file, uid, uid); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Chmod(file, uint32(mode)); err != nil { // after chown, which takes the setuid bit away
		t.Fatal(err)
	}
	return file
}

// as is cmd run by another user, who can connect to the test's sockets.
func as(t *testing.T, uid uint32, cmd *exec.Cmd) *exec.Cmd {
	t.Helper()
	old := unix.Umask(0)
	t.Cleanup(func() { unix.Umask(old) })
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid, Groups: []uint32{4400, uid}}}
	return cmd
}

func sumOf(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(text)
	return hex.EncodeToString(sum[:])
}

var everything = Want{Program: true, SHA256: true}

func TestAttest(t *testing.T) {
	bothKernels(t, func(t *testing.T, a *Attestor) {
		file := program(t, 0o755, os.Getuid())
		c := call(t, exec.Command(file))
		at, err := a.Attest(context.Background(), c.conn, c.path, everything)
		if err != nil {
			t.Fatal(err)
		}
		if at.PID != c.cmd.Process.Pid || at.UID != uint32(os.Getuid()) || (at.Started != 0) != a.older || at.Exe != file || at.SHA256 != sumOf(t, file) || at.Inode == 0 || at.NoExe+at.NoSHA256 != "" {
			t.Errorf("got %+v", at)
		}
		p, err := older(c.conn)
		if err != nil {
			t.Fatal(err)
		}
		want := Want{Started: p.Started}
		if again, err := a.Attest(context.Background(), c.conn, c.path, want); err != nil || again.Started != p.Started || again.Exe+again.SHA256 != "" {
			t.Errorf("nothing but who it is: %+v, %v", again, err)
		}
		want.Started++
		if _, err := a.Attest(context.Background(), c.conn, c.path, want); !errors.Is(err, ErrChanged) {
			t.Errorf("another start: %v", err)
		}
		if _, err := a.Attest(context.Background(), c.conn, c.path+"x", Want{}); !errors.Is(err, ErrNotAccepted) {
			t.Errorf("another socket: %v", err)
		}
		c.end()
		if _, err := a.Attest(context.Background(), c.conn, c.path, Want{}); !errors.Is(err, ErrGone) {
			t.Errorf("after its end: %v", err)
		}
	})
}

// TestHeir: a client connects, hands its socket to a child and ends. The child is nobody.
func TestHeir(t *testing.T) {
	bothKernels(t, func(t *testing.T, a *Attestor) {
		c := call(t, exec.Command("/proc/self/exe"), roleEnv+"=heir")
		if _, err := c.stdin.Write([]byte{1}); err != nil {
			t.Fatal(err)
		}
		if err := unix.Waitid(unix.P_PID, c.cmd.Process.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
			t.Fatal(err)
		}
		for _, when := range []string{"as a zombie", "after it was waited for"} {
			if at, err := a.Attest(context.Background(), c.conn, c.path, everything); !errors.Is(err, ErrGone) {
				t.Errorf("%s: %+v, %v", when, at, err)
			}
			if p, err := older(c.conn); !errors.Is(err, ErrGone) {
				t.Errorf("%s: who connected: %+v, %v", when, p, err)
			}
			_, _ = c.cmd.Process.Wait()
		}
	})
}

// TestReplaced: a program that was replaced or deleted while it runs is at no path, but has its sum.
func TestReplaced(t *testing.T) {
	bothKernels(t, func(t *testing.T, a *Attestor) {
		file := program(t, 0o755, os.Getuid())
		sum := sumOf(t, file)
		c := call(t, exec.Command(file))
		next := file + ".new"
		if err := errors.Join(os.WriteFile(next, []byte("#!/bin/sh\n"), 0o755), os.Rename(next, file)); err != nil {
			t.Fatal(err)
		}
		check := func(when string) {
			t.Helper()
			at, err := a.Attest(context.Background(), c.conn, c.path, everything)
			if err != nil || at.Exe != "" || !strings.Contains(at.NoExe, "deleted or replaced") || at.SHA256 != sum {
				t.Errorf("%s: got %+v, %v, want no path and sum %s", when, at, err, sum)
			}
		}
		check("replaced")
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		check("deleted")
		if err := os.WriteFile(file+" (deleted)", nil, 0o755); err != nil { // the very path that /proc shows
			t.Fatal(err)
		}
		check("with a file of that name")
	})
}

// TestMoved: a program that was renamed while it runs is where it is now.
func TestMoved(t *testing.T) {
	bothKernels(t, func(t *testing.T, a *Attestor) {
		file := program(t, 0o755, os.Getuid())
		c := call(t, exec.Command(file))
		if err := errors.Join(os.Rename(file, file+" (deleted)"), os.Symlink(file+" (deleted)", file)); err != nil {
			t.Fatal(err)
		}
		at, err := a.Attest(context.Background(), c.conn, c.path, everything)
		if err != nil || at.Exe != file+" (deleted)" {
			t.Errorf("got %+v, %v", at, err)
		}
	})
}

// TestScript: of a script the interpreter is attested, wherever the script lies.
func TestScript(t *testing.T) {
	bothKernels(t, func(t *testing.T, a *Attestor) {
		file := program(t, 0o755, os.Getuid())
		script := filepath.Join(filepath.Dir(file), "script")
		if err := os.WriteFile(script, []byte("#!"+file+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
		c := call(t, exec.Command(script))
		at, err := a.Attest(context.Background(), c.conn, c.path, everything)
		if err != nil || at.Exe != file || at.SHA256 != sumOf(t, file) {
			t.Errorf("got %+v, %v, want %s", at, err, file)
		}
	})
}

// TestSetuid: a client executes a setuid program after it connected: it has two users' ids and is neither. One that
// executes an ordinary program is itself, with that program.
func TestSetuid(t *testing.T) {
	needRoot(t)
	bothKernels(t, func(t *testing.T, a *Attestor) {
		for name, test := range map[string]struct {
			mode os.FileMode
			want error
		}{"setuid": {unix.S_ISUID | 0o755, ErrChanged}, "setgid": {unix.S_ISGID | 0o755, ErrChanged}, "ordinary": {0o755, nil}} {
			file := program(t, test.mode, otherUID)
			c := call(t, as(t, userUID, exec.Command("/proc/self/exe")), execEnv+"="+file)
			before, err := a.Attest(context.Background(), c.conn, c.path, everything)
			if err != nil || before.UID != userUID || before.Exe == file {
				t.Fatalf("%s: before: %+v, %v", name, before, err)
			}
			if _, err := c.stdin.Write([]byte{1}); err != nil {
				t.Fatal(err)
			}
			c.ready(t)
			after, err := a.Attest(context.Background(), c.conn, c.path, Want{Program: true, Started: before.Started})
			if !errors.Is(err, test.want) || err == nil && (after.Exe != file || after.PID != before.PID) {
				t.Errorf("%s: after: %+v, %v", name, after, err)
			}
		}
	})
}

// TestRootless: without root, processes of others are not looked at, and that is no attestation.
func TestRootless(t *testing.T) {
	needRoot(t)
	cmd := as(t, otherUID, exec.Command(program(t, 0o755, 0), "-test.run=^TestAsRootless$"))
	c := call(t, as(t, userUID, exec.Command("/proc/self/exe")))
	f, err := c.conn.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd.Env, cmd.ExtraFiles = []string{"BATCHWARDEN_TEST_ROOTLESS=" + c.path}, []*os.File{f}
	cmd.Dir = "/"
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "CAP_SYS_PTRACE") {
		t.Errorf("%v, want a word of what it lacks\n%s", err, out)
	}
}

func TestAsRootless(t *testing.T) {
	path := os.Getenv("BATCHWARDEN_TEST_ROOTLESS")
	if path == "" {
		return // TestRootless runs it
	}
	a, err := NewAttestor()
	if err != nil {
		t.Fatal(err)
	}
	at, err := a.Attest(context.Background(), os.NewFile(3, "connection"), path, Want{})
	if err == nil {
		t.Errorf("got %+v", at)
	}
	t.Log(err)
	_, _ = os.Stdout.WriteString(err.Error() + "\n")
}
