package testbed

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"

	"batchwarden/platform/older"
)

// Roles in which this program starts itself again, and the variables by which
// it knows.
const (
	roleEnv = "BATCHWARDEN_TESTBED_ROLE"
	idEnv   = "BATCHWARDEN_TESTBED_ID" // unique on the machine while the sandbox lives

	roleInit    = "init"    // process 1 of a sandbox
	roleInside  = "inside"  // the program proper, in a sandbox
	roleConnect = "connect" // opens connections as another user; see dial_linux.go
	roleRelay   = "relay"   // brings connections to another network namespace; see relay_linux.go
	roleAsk     = "ask"     // asks for a credential as systemd does; see ask_linux.go
	roleOlder   = "older"   // executes its arguments as on an older kernel
)

// sandboxed is the id of the sandbox that this process runs in, or "".
var sandboxed string

// noSandbox says why this process, though root, runs in no sandbox.
var noSandbox error

// Main runs the tests, as root inside a sandbox, and returns the exit code.
func Main(m interface{ Run() int }) int {
	Role()
	if os.Geteuid() != 0 || sandboxed != "" {
		return m.Run()
	}
	code, err := Sandbox(os.Args[1:])
	if err != nil {
		noSandbox = err
		return m.Run()
	}
	return code
}

// Role does what this process was started again for and does not return, or
// returns at once. Every program that uses this package calls it first.
func Role() {
	role := os.Getenv(roleEnv)
	sandboxed = os.Getenv(idEnv)
	_ = os.Unsetenv(roleEnv) // cannot fail for a valid name; what we start in turn has no role
	switch role {
	case roleInit:
		code, err := initProcess()
		if err != nil {
			fmt.Fprintln(os.Stderr, "testbed: sandbox:", err)
			code = 70
		}
		os.Exit(code)
	case roleConnect:
		connector()
		os.Exit(0)
	case roleRelay:
		if err := relayInside(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case roleAsk:
		if err := ask(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	case roleOlder:
		fmt.Fprintln(os.Stderr, older.Exec(os.Args[1:], os.Environ()))
		os.Exit(1)
	}
}

// Sandbox runs this program again with the arguments, in a sandbox, and
// returns its exit code. An error means that it did not start.
func Sandbox(args []string) (int, error) {
	runtime.LockOSThread() // Pdeathsig watches the thread
	defer runtime.UnlockOSThread()
	id := strconv.Itoa(os.Getpid())
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Args[0] = os.Args[0]
	cmd.Env = append(os.Environ(), roleEnv+"="+roleInit, idEnv+"="+id)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWPID,
		Pdeathsig:  syscall.SIGKILL, // and with process 1 goes everything in there
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("namespaces: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		for {
			select {
			case s := <-signals:
				_ = cmd.Process.Signal(s) // it may have ended just now
			case <-ended:
				return
			}
		}
	}()
	err := cmd.Wait()
	close(ended)
	if _, ran := errors.AsType[*exec.ExitError](err); err != nil && !ran {
		return 0, err
	}
	code := exitCode(cmd.ProcessState.Sys().(syscall.WaitStatus))
	if err := removeSandbox(id); err != nil {
		fmt.Fprintln(os.Stderr, "testbed: after the sandbox:", err)
		code = max(code, 1)
	}
	return code, nil
}

// exitCode is what a shell would call it.
func exitCode(w syscall.WaitStatus) int {
	if w.Signaled() {
		return 128 + int(w.Signal())
	}
	return w.ExitStatus()
}

// initProcess is process 1 of a sandbox: it makes the sandbox's own file
// systems, starts the program proper, and buries whoever dies.
func initProcess() (int, error) {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if err := privateMounts(); err != nil {
		return 0, err
	}
	child, err := os.StartProcess("/proc/self/exe", os.Args, &os.ProcAttr{
		Env:   append(os.Environ(), roleEnv+"="+roleInside),
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
	})
	if err != nil {
		return 0, err
	}
	pid := child.Pid
	go func() { // ends with the process
		for s := range signals {
			_ = syscall.Kill(pid, s.(syscall.Signal)) // it may have ended just now
		}
	}()
	for {
		var status syscall.WaitStatus
		got, err := syscall.Wait4(-1, &status, 0, nil)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil {
			return 0, fmt.Errorf("wait: %w", err)
		}
		if got == pid {
			return exitCode(status), nil
		}
	}
}

// privateMounts gives this mount namespace a /proc of the new pid namespace, an
// empty /run, and an /etc whose changes go to memory.
func privateMounts() error {
	mount := func(source, target, kind string, flags uintptr, data string) error {
		if err := syscall.Mount(source, target, kind, flags, data); err != nil {
			return fmt.Errorf("mount %s on %s: %w", kind, target, err)
		}
		return nil
	}
	if err := mount("none", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return err
	}
	if err := mount("proc", "/proc", "proc", syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
		return err
	}
	if err := mount("tmpfs", "/run", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=0755"); err != nil {
		return err
	}
	etc, err := os.Open("/etc")
	if err != nil {
		return err
	}
	defer etc.Close()
	// The upper half lies in a tmpfs that the overlay then hides, so that the
	// machine needs no directory for it.
	if err := mount("tmpfs", "/etc", "tmpfs", syscall.MS_NOSUID|syscall.MS_NODEV, "mode=0755"); err != nil {
		return err
	}
	for _, dir := range []string{"/etc/upper", "/etc/work"} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			return err
		}
	}
	return mount("overlay", "/etc", "overlay", syscall.MS_NOSUID|syscall.MS_NODEV,
		fmt.Sprintf("lowerdir=/proc/self/fd/%d,upperdir=/etc/upper,workdir=/etc/work", etc.Fd()))
}
