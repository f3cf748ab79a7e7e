package peer

import (
	"bufio"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// TestMain lets this binary be a client that connects and stays until its stdin ends.
func TestMain(m *testing.M) {
	if path := os.Getenv("BATCHWARDEN_TEST_CONNECT"); path != "" {
		if _, err := net.Dial("unix", path); err != nil {
			os.Exit(1)
		}
		_, _ = os.Stdout.WriteString("ready\n")
		_, _ = os.Stdin.Read(make([]byte, 1))
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func listen(t *testing.T) (*net.UnixListener, string) {
	t.Helper()
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	for ; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) { // lets every user in
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l, path
}

// client is a process with its connection as the server has it; end ends the process.
func client(t *testing.T, attr *syscall.SysProcAttr) (c *net.UnixConn, path string, pid int, end func()) {
	t.Helper()
	l, path := listen(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{"BATCHWARDEN_TEST_CONNECT=" + path}
	cmd.SysProcAttr = attr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end = func() { _ = stdin.Close(); _ = cmd.Wait() }
	t.Cleanup(end)
	if !bufio.NewScanner(stdout).Scan() {
		t.Fatal("the client did not connect")
	}
	if c, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c, path, cmd.Process.Pid, end
}

func TestOf(t *testing.T) {
	c, path, pid, end := client(t, nil)
	p, err := Of(c)
	if err != nil {
		t.Fatal(err)
	}
	if p.PID != pid || p.UID != uint32(os.Getuid()) || p.GID != uint32(os.Getgid()) || !slices.Contains(p.Groups, p.GID) || !p.Alive(c) {
		t.Errorf("got %+v, want pid %d", p, pid)
	}
	if q, err := Accepted(c, path); err != nil || q.PID != pid {
		t.Errorf("accepted: %+v, %v", q, err)
	}
	if _, err := Accepted(c, path+"x"); !errors.Is(err, ErrNotAccepted) {
		t.Errorf("at another path: %v", err)
	}
	if err := runsOld(p); err != nil {
		t.Errorf("on an older kernel: %v", err)
	}
	end()
	if p.Alive(c) {
		t.Error("it lives on")
	}
	if _, err := Of(c); !errors.Is(err, ErrGone) {
		t.Errorf("after its end: %v", err)
	}
	if err := runsOld(p); !errors.Is(err, ErrGone) {
		t.Errorf("after its end, on an older kernel: %v", err)
	}
}

// TestGroups: more groups than fit at first, and a user of its own.
func TestGroups(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
			t.Fatal("needs root; run: sudo make test")
		}
		t.Skip("needs root; run: sudo make test")
	}
	var groups []uint32
	for g := range uint32(300) {
		groups = append(groups, 3000+g)
	}
	old := unix.Umask(0)
	defer unix.Umask(old)
	c, _, _, _ := client(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 4100, Gid: 4200, Groups: groups}})
	p, err := Of(c)
	if err != nil {
		t.Fatal(err)
	}
	if p.UID != 4100 || p.GID != 4200 || len(p.Groups) != 301 || !slices.IsSorted(p.Groups) || p.Groups[300] != 4200 {
		t.Errorf("got %+v", p)
	}
}

// TestForeign: the kernel shows 65534 for somebody whom this namespace cannot name, and for the account of that number.
func TestForeign(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
			t.Fatal("needs root; run: sudo make test")
		}
		t.Skip("needs root; run: sudo make test")
	}
	old := unix.Umask(0)
	defer unix.Umask(old)
	c, path, _, _ := client(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: overflowID, Gid: overflowID}})
	if _, err := Of(c); !errors.Is(err, ErrForeign) {
		t.Errorf("got %v", err)
	}
	if _, err := Accepted(c, path); !errors.Is(err, ErrForeign) {
		t.Errorf("got %v", err)
	}
}
