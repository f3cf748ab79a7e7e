package service

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager listens as a service manager does, and returns what comes next.
func manager(t *testing.T, name string) (next func() string) {
	t.Helper()
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	t.Setenv("NOTIFY_SOCKET", name)
	return func() string {
		t.Helper()
		if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		text := make([]byte, 4096)
		n, err := c.Read(text)
		if err != nil {
			t.Fatal(err)
		}
		return string(text[:n])
	}
}

func TestNotify(t *testing.T) {
	for kind, name := range map[string]string{
		"a path":             filepath.Join(t.TempDir(), "notify"),
		"an abstract socket": fmt.Sprintf("@batchwarden-test-%d", os.Getpid()),
	} {
		t.Run(kind, func(t *testing.T) {
			next := manager(t, name)
			if err := Notify(Ready, Status("one\ntwo\x1b[2J")); err != nil {
				t.Fatal(err)
			}
			if got, want := next(), "READY=1\nSTATUS=one two [2J"; got != want {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
	t.Run("nobody wants to know", func(t *testing.T) {
		t.Setenv("NOTIFY_SOCKET", "")
		if err := Notify(Ready); err != nil {
			t.Error(err)
		}
	})
	for _, bad := range []string{"vsock:2:1234", filepath.Join(t.TempDir(), "none")} {
		t.Run("nobody at "+filepath.Base(bad), func(t *testing.T) {
			t.Setenv("NOTIFY_SOCKET", bad)
			if err := Notify(Ready); err == nil || !strings.Contains(err.Error(), bad) {
				t.Errorf("got %v, want an error that names %q", err, bad)
			}
		})
	}
}

// The time has to be one that the service manager can compare with its own.
func TestReloading(t *testing.T) {
	clock := func() int64 {
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
			t.Fatal(err)
		}
		return now.Nano() / 1000
	}
	before := clock()
	text, ok := strings.CutPrefix(Reloading(), "RELOADING=1\nMONOTONIC_USEC=")
	at, err := strconv.ParseInt(text, 10, 64)
	if after := clock(); !ok || err != nil || at < before || at > after {
		t.Errorf("got %q, %v, want a time between %d and %d", text, err, before, after)
	}
}

func TestWatchdog(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"", "", 0}, {"30000000", "", 30 * time.Second}, {"30000000", own, 30 * time.Second},
		{"30000000", "1", 0}, {"-1", own, 0}, {"x", own, 0}, {"9223372036854775807", own, 0},
	} {
		t.Setenv("WATCHDOG_USEC", c.usec)
		t.Setenv("WATCHDOG_PID", c.pid)
		if got := Watchdog(); got != c.want {
			t.Errorf("WATCHDOG_USEC=%s WATCHDOG_PID=%s: got %v, want %v", c.usec, c.pid, got, c.want)
		}
	}
}

func TestLive(t *testing.T) {
	next := manager(t, filepath.Join(t.TempDir(), "notify"))
	t.Setenv("WATCHDOG_USEC", "40000") // so every 10 ms
	t.Setenv("WATCHDOG_PID", "")
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	looks := 0
	var failures []error
	over := make(chan struct{})
	go func() {
		defer close(over)
		Live(ctx, func(ctx context.Context) (string, error) {
			looks++
			switch looks {
			case 3:
				return "", errors.New("broken")
			case 4:
				<-ctx.Done() // a look that hangs for as long as it may
				return "fine", nil
			case 6:
				stop()
			}
			return "fine", nil
		}, func(err error) { failures = append(failures, err) })
	}()
	for i, want := range []string{
		"WATCHDOG=1\nSTATUS=fine",
		"WATCHDOG=1", // nothing new
		"STATUS=not well: broken",
		"STATUS=not well: context deadline exceeded",
		"WATCHDOG=1\nSTATUS=fine",
	} {
		if got := next(); got != want {
			t.Errorf("message %d: got %q, want %q", i+1, got, want)
		}
	}
	<-over
	if len(failures) != 2 {
		t.Errorf("failures %v, want two", failures)
	}
}

// TestSockets passes sockets to a process of its own, as LISTEN_PID wants it.
func TestSockets(t *testing.T) {
	if path := os.Getenv("BATCHWARDEN_TEST_SOCKET"); path != "" {
		passed(path)
		return
	}
	path := filepath.Join(t.TempDir(), "public")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	// The shell's pid is that of the program it becomes.
	cmd := exec.Command("/bin/sh", "-c", `LISTEN_PID=$$ exec "$0" -test.run '^TestSockets$' -test.v`, os.Args[0])
	cmd.Env = append(os.Environ(), "BATCHWARDEN_TEST_SOCKET="+path, "LISTEN_FDS=2")
	cmd.ExtraFiles = []*os.File{f, null}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "all is well") {
		t.Errorf("%v: %s", err, out)
	}
}

// passed is what TestSockets starts.
func passed(path string) {
	found, err := Sockets()
	l := found[path]
	if len(found) != 1 || l == nil || err == nil || !strings.Contains(err.Error(), "descriptor 4") {
		fmt.Println("sockets:", found, err)
		os.Exit(1)
	}
	rc, err := l.SyscallConn()
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if err := rc.Control(func(fd uintptr) {
		if flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			fmt.Println("a child would inherit the socket:", flags, err)
			os.Exit(1)
		}
	}); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if _, there := os.LookupEnv("LISTEN_FDS"); there {
		fmt.Println("children would take LISTEN_FDS for theirs")
		os.Exit(1)
	}
	if again, err := Sockets(); again != nil || err != nil {
		fmt.Println("a second time:", again, err)
		os.Exit(1)
	}
	if err := l.Close(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	if _, err := os.Stat(path); err != nil {
		fmt.Println("the service manager's socket was removed:", err)
		os.Exit(1)
	}
	fmt.Println("all is well")
}
