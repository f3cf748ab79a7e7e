package testbed

import (
	"context"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) { os.Exit(Main(m)) }

func TestSandboxHasItsOwnEtcAndRun(t *testing.T) {
	NeedRoot(t)
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{" /etc ", " /run ", " /proc "} {
		if n := strings.Count(string(mounts), want); n < 1 {
			t.Errorf("no mount of our own on%s", want)
		}
	}
	if exe, err := os.Readlink("/proc/1/exe"); err != nil || exe != mustReadlink(t, "/proc/self/exe") {
		t.Errorf("process 1 is %q, %v; want this program", exe, err)
	}
}

func mustReadlink(t *testing.T, path string) string {
	t.Helper()
	s, err := os.Readlink(path)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAccountsAreRealAndGoAway(t *testing.T) {
	NeedRoot(t)
	a, err := NewAccounts("bwx", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	for _, want := range a.All() {
		out, err := exec.Command("id", "-u", want.Name).Output()
		if err != nil || strings.TrimSpace(string(out)) != strconv.Itoa(int(want.UID)) {
			t.Errorf("id -u %s: %s %v, want %d", want.Name, out, err, want.UID)
		}
	}
	if a.Payroll.UID < 1000 || a.Daemon.UID >= 1000 {
		t.Errorf("payroll is %d, daemon %d: want an ordinary and a system account", a.Payroll.UID, a.Daemon.UID)
	}
	if _, err := NewAccounts("bwx", t.TempDir()); err == nil || !strings.Contains(err.Error(), "still runs") {
		t.Errorf("a second set with the prefix: %v, want a refusal", err)
	}
	sleep := exec.Command("sleep", "60")
	sleep.SysProcAttr = &syscall.SysProcAttr{Credential: a.Payroll.credential()}
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if err := sleep.Wait(); err == nil || err.Error() != "signal: killed" {
		t.Errorf("what ran as payroll: %v, want it killed", err)
	}
	if left := AccountsLeft("bwx"); left != nil {
		t.Errorf("left: %v", left)
	}
	if err := a.Close(); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

func TestStaleAccountsAreRemovedAndOthersAreNot(t *testing.T) {
	NeedRoot(t)
	dead := exec.Command("true")
	if err := dead.Run(); err != nil {
		t.Fatal(err)
	}
	comment := mark + " " + strconv.Itoa(dead.Process.Pid) + " 12345"
	for name, comment := range map[string]string{"bwy-payroll": comment, "bwy-old": comment, "bwz-daemon": "somebody's own"} {
		if err := run("useradd", "--system", "--no-log-init", "--comment", comment, name); err != nil {
			t.Fatal(err)
		}
	}
	a, err := NewAccounts("bwy", t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	if got := AccountsLeft("bwy"); slices.Contains(got, "bwy-old") || !slices.Contains(got, "bwy-payroll") {
		t.Errorf("accounts: %v, want the stale one gone and the new one there", got)
	}
	if err := a.Close(); err != nil {
		t.Error(err)
	}
	if _, err := NewAccounts("bwz", t.TempDir()); err == nil || !strings.Contains(err.Error(), "not touching it") {
		t.Errorf("an account that is not ours: %v, want a refusal", err)
	}
	if got := AccountsLeft("bwz"); !slices.Contains(got, "bwz-daemon") {
		t.Errorf("accounts: %v, want somebody's own untouched", got)
	}
}

func TestDialedConnectionIsTheAccounts(t *testing.T) {
	NeedRoot(t)
	users, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	path := "/run/dial.sock"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Chmod(path, 0o666); err != nil {
		t.Fatal(err)
	}
	b := &Bed{Socket: path, dialers: map[string]*dialer{}}
	defer func() {
		for _, d := range b.dialers {
			d.close()
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for _, as := range []Account{users.LSAM, Root, users.LSAM, users.Stranger} {
		near, err := b.Dial(ctx, as)
		if err != nil {
			t.Fatal(err)
		}
		far, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		raw, err := far.(*net.UnixConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var got *syscall.Ucred
		if ctlErr := raw.Control(func(fd uintptr) {
			got, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
		}); ctlErr != nil || err != nil {
			t.Fatal(ctlErr, err)
		}
		if got.Uid != as.UID || got.Gid != as.GID || got.Pid == int32(os.Getpid()) {
			t.Errorf("as %s: peer is %+v, want uid %d, gid %d in another process", as.Name, *got, as.UID, as.GID)
		}
		if _, err := near.Write([]byte("x")); err != nil {
			t.Error(err)
		}
		if err := near.Close(); err != nil {
			t.Error(err)
		}
		text := make([]byte, 2)
		if n, _ := far.Read(text); n != 1 {
			t.Errorf("read %d octets, want the one", n)
		}
		if n, err := far.Read(text); n != 0 || err == nil {
			t.Errorf("read %d, %v; want the end: nobody else holds the connection", n, err)
		}
		far.Close()
	}
	if _, err := b.DialTo(ctx, users.LSAM, "/run/none.sock"); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("no socket there: %v", err)
	}
}

func TestSandboxPassesTheExitCode(t *testing.T) {
	NeedRoot(t)
	if os.Getenv("TESTBED_EXIT") != "" {
		os.Exit(7)
	}
	t.Setenv("TESTBED_EXIT", "7")
	code, err := Sandbox([]string{"-test.run=^TestSandboxPassesTheExitCode$"})
	if code != 7 || err != nil {
		t.Errorf("exit code %d, %v; want 7", code, err)
	}
}

func TestCgroupEndsAndGoes(t *testing.T) {
	NeedRoot(t)
	const prefix = "batchwarden-inner-test-"
	dir, err := newCgroup("inner-test-1", "x")
	if err != nil {
		t.Fatal(err)
	}
	if dir == "" {
		t.Log("no cgroup2 here that is ours to divide: that half is not tested")
	} else {
		sleep := exec.Command("sleep", "60")
		f, err := os.Open(dir + "/x")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		sleep.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(f.Fd())}
		if err := sleep.Start(); err != nil {
			t.Fatal(err)
		}
		if err := removeCgroups(prefix); err != nil {
			t.Error(err)
		}
		if err := sleep.Wait(); err == nil {
			t.Error("the process in the cgroup lived on")
		}
		if left := CgroupsLeft(prefix); left != nil {
			t.Errorf("left: %v", left)
		}
	}
}
