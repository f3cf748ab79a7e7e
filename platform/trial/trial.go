//go:build linux

// Package trial runs the tests of a package in a mount namespace with an /etc of their own.
package trial

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
)

const insideEnv = "BATCHWARDEN_TRIAL"

// Main runs the tests. As root it does so in a second process of the same binary, in whose mount namespace /etc is
// copy-on-write and /run, /mnt and the directories given are empty, nothing of which is left.
func Main(m *testing.M, empty ...string) int {
	if os.Geteuid() != 0 {
		return m.Run()
	}
	if os.Getenv(insideEnv) != "" {
		if err := furnish(append(empty, "/run", "/mnt")); err != nil {
			fmt.Fprintln(os.Stderr, "trial: preparing the namespace:", err)
			return 1
		}
		return m.Run()
	}
	runtime.LockOSThread() // Pdeathsig watches the thread
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), insideEnv+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "trial:", err)
		return 1
	}
	return 0
}

func furnish(empty []string) error {
	if err := syscall.Mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("private mounts: %w", err)
	}
	for _, dir := range empty {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
		if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "mode=0755"); err != nil {
			return fmt.Errorf("mount on %s: %w", dir, err)
		}
	}
	upper, work := "/mnt/etc/upper", "/mnt/etc/work"
	if err := errors.Join(os.MkdirAll(upper, 0o755), os.MkdirAll(work, 0o755)); err != nil {
		return err
	}
	if err := syscall.Mount("overlay", "/etc", "overlay", 0, "lowerdir=/etc,upperdir="+upper+",workdir="+work); err != nil {
		return fmt.Errorf("overlay on /etc: %w", err)
	}
	return nil
}

// NeedRoot skips a test that cannot run as another user, or fails it where nothing may be skipped.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		skip(t, "needs root; run: sudo make test")
	}
}

func skip(t testing.TB, why string) {
	t.Helper()
	if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// Compile runs a command that needs a C compiler.
func Compile(t testing.TB, name string, args ...string) {
	t.Helper()
	if _, err := exec.LookPath("cc"); err != nil {
		skip(t, "needs a C compiler; run: sudo apt-get install gcc libc6-dev libpam0g-dev")
	}
	if text, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, text)
	}
}
