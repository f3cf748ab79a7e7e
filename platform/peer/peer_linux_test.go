package peer

import (
	"bufio"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	connectEnv = "BATCHWARDEN_TEST_CONNECT" // where to connect
	roleEnv    = "BATCHWARDEN_TEST_ROLE"    // what to do besides
	execEnv    = "BATCHWARDEN_TEST_EXEC"    // a program to execute instead, at the first octet from stdin
)

// TestMain lets this binary be a client that connects and stays until its stdin ends.
func TestMain(m *testing.M) {
	if os.Getenv(roleEnv) == "namespace" {
		os.Exit(playNamespace())
	}
	path := os.Getenv(connectEnv)
	if path == "" {
		os.Exit(m.Run())
	}
	if path != "none" {
		c, err := net.Dial("unix", path)
		if err != nil {
			os.Exit(1)
		}
		if os.Getenv(roleEnv) == "heir" { // at the first octet leaves the connection to a child that stays, and ends
			os.Exit(bequeath(c.(*net.UnixConn)))
		}
	}
	_, _ = os.Stdout.WriteString("ready\n")
	one := make([]byte, 1)
	n, _ := os.Stdin.Read(one)
	if program := os.Getenv(execEnv); n > 0 && program != "" {
		_ = unix.Exec(program, os.Args, []string{connectEnv + "=none"})
		os.Exit(1)
	}
	for n > 0 {
		n, _ = os.Stdin.Read(one)
	}
	os.Exit(0)
}

func bequeath(c *net.UnixConn) int {
	_, _ = os.Stdout.WriteString("ready\n")
	_, _ = os.Stdin.Read(make([]byte, 1))
	f, err := c.File()
	if err != nil {
		return 1
	}
	child := exec.Command("/proc/self/exe")
	child.Env = []string{connectEnv + "=none", "GORACE=" + os.Getenv("GORACE")}
	child.Stdin, child.Stdout, child.ExtraFiles = os.Stdin, os.Stdout, []*os.File{f}
	if err := child.Start(); err != nil {
		return 1
	}
	return 0
}

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
		t.Fatal("needs root; run: sudo make test")
	}
	t.Skip("needs root; run: sudo make test")
}

func listen(t testing.TB) (*net.UnixListener, string) {
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

// caller is a process and its connection as the server has it.
type caller struct {
	conn  *net.UnixConn
	path  string // of the socket
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Scanner
}

// call starts cmd, which has to be this binary under whatever name, and accepts its connection.
func call(t testing.TB, cmd *exec.Cmd, env ...string) *caller {
	t.Helper()
	l, path := listen(t)
	c := &caller{path: path, cmd: cmd}
	cmd.Env = append([]string{connectEnv + "=" + path, "GORACE=" + os.Getenv("GORACE")}, env...)
	var err error
	if c.stdin, err = cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.end)
	c.out = bufio.NewScanner(stdout)
	c.ready(t)
	if c.conn, err = l.AcceptUnix(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.conn.Close() })
	return c
}

// ready waits until the process says that it is.
func (c *caller) ready(t testing.TB) {
	t.Helper()
	if !c.out.Scan() {
		t.Fatal("the client did not say that it is ready")
	}
}

// end ends the process, and a child that has its stdin.
func (c *caller) end() {
	_ = c.stdin.Close()
	_ = c.cmd.Wait() // how it ended does not matter, or is a second time
}

// client is a process with its connection as the server has it; end ends the process.
func client(t *testing.T, attr *syscall.SysProcAttr) (c *net.UnixConn, path string, pid int, end func()) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.SysProcAttr = attr
	called := call(t, cmd)
	return called.conn, called.path, cmd.Process.Pid, called.end
}

// older is Of as on kernels before 6.5.
func older(c *net.UnixConn) (p Peer, err error) {
	err = control(c, func(fd int) error {
		p, err = ofSocket(fd, true)
		return err
	})
	return p, err
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
	old, err := older(c)
	if err != nil || old.PID != pid || old.Started == 0 {
		t.Errorf("on an older kernel: %+v, %v", old, err)
	}
	end()
	if p.Alive(c) {
		t.Error("it lives on")
	}
	if _, err := Of(c); !errors.Is(err, ErrGone) {
		t.Errorf("after its end: %v", err)
	}
	if _, err := older(c); !errors.Is(err, ErrGone) {
		t.Errorf("after its end, on an older kernel: %v", err)
	}
}

// TestGroups: more groups than fit at first, and a user of its own.
func TestGroups(t *testing.T) {
	needRoot(t)
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
	needRoot(t)
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
