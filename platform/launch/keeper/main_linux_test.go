package keeper

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"batchwarden/platform/launch/become"
	"batchwarden/platform/localsock"
)

// The tests that start jobs run in a second process of this binary, in a mount namespace of its own: there it has its
// own account files and a directory that every user can reach, and nothing of that is left on the machine.
const (
	roleEnv   = "BATCHWARDEN_TEST_ROLE"
	cgroupEnv = "BATCHWARDEN_TEST_CGROUP"
	limitsEnv = "BATCHWARDEN_TEST_LIMITS" // /proc/self/limits of a process that the launcher's starter starts
	world     = "/mnt"                    // a tmpfs in the namespace
	program   = world + "/bin/self"       // this binary
	beginning = world + "/bin/become"     // what jobs begin as
	becomeEnv = "BATCHWARDEN_TEST_BECOME" // the program of package become, compiled
)

const (
	daemonUID = 0 // the test itself plays the daemon
	agentUID  = 4100
	otherUID  = 4101
	jobUID    = 4200
	manyUID   = 4201
	loneUID   = 4202
	syncUID   = 4300
)

const passwd = `root:x:0:0:root:/root:/bin/bash
agent:x:4100:4100::/:/bin/sh
other:x:4101:4101::/:/bin/sh
payroll:x:4200:4200::/mnt/home/payroll:/bin/sh
many:x:4201:4201::/mnt/home/many:
lone:x:4202:4202::/mnt/home/lone:/bin/sh
homeless:x:4203:4203::/mnt/home/none:/bin/sh
nohome:x:4204:4204:::/bin/sh
syncer:x:4300:4300::/:/usr/sbin/nologin
`

func groups() string {
	var b strings.Builder
	b.WriteString("root:x:0:\nagent:x:4100:\npayroll:x:4200:\nmany:x:4201:\nlone:x:4202:\nsyncer:x:4300:\nfinance:x:4400:payroll,agent\nkeys:x:4401:syncer\n")
	for i := range 40 {
		fmt.Fprintf(&b, "g%d:x:%d:other,many\n", i, 5000+i)
	}
	return b.String()
}

func TestMain(m *testing.M) {
	switch role := os.Getenv(roleEnv); {
	case role == "again", role == "inside" && slices.Contains(os.Args, "-test.fuzzworker"): // of a process that has furnished already
		os.Exit(m.Run())
	case role == "inside":
		if err := furnish(); err != nil {
			fmt.Fprintln(os.Stderr, "preparing the namespace:", err)
			os.Exit(1)
		}
		os.Exit(m.Run())
	case role != "":
		os.Exit(play(role))
	case os.Geteuid() != 0:
		os.Exit(m.Run())
	}
	os.Exit(inside())
}

// needRoot skips what only root can show.
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

// inside runs this binary again in the namespace, started in a way that no job may notice: with a signal ignored, one
// blocked, a small limit of open files, and as the first to be killed for want of memory.
func inside() int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, "starting the tests in a namespace:", err)
		return 1
	}
	runtime.LockOSThread() // the parent death signal is about this thread
	signal.Ignore(unix.SIGUSR1, unix.SIGPIPE)
	blocked := uint64(1) << (unix.SIGUSR2 - 1)
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, uintptr(unsafe.Pointer(&blocked)), 0, 8, 0, 0); errno != 0 {
		return fail(errno)
	}
	var files unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &files); err != nil {
		return fail(err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: 777, Max: files.Max}); err != nil {
		return fail(err)
	}
	limits, err := exec.Command("/bin/cat", "/proc/self/limits").Output()
	if err != nil {
		return fail(err)
	}
	cgroup, err := testCgroup()
	if err != nil {
		fmt.Fprintln(os.Stderr, "no cgroups in this test:", err)
	}
	begin, err := os.CreateTemp("", "batchwarden-become-")
	if err != nil {
		return fail(err)
	}
	defer os.Remove(begin.Name())
	if out, err := exec.Command("../become/child/compile", begin.Name()).CombinedOutput(); err != nil {
		return fail(fmt.Errorf("compiling %s: %w: %s", become.Program, err, out))
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("100"), 0); err != nil {
		return fail(err)
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Args[0] = os.Args[0]
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), roleEnv+"=inside", cgroupEnv+"="+cgroup, limitsEnv+"="+string(limits), becomeEnv+"="+begin.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if cgroup != "" { // whatever a test starts in whatever way is in there, and ends with it
		at, err := os.Open(filepath.Join(cgroup, "self"))
		if err != nil {
			return fail(err)
		}
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(at.Fd())
	}
	err = cmd.Run()
	if cgroup != "" {
		err = errors.Join(err, removeTestCgroup(cgroup))
	}
	if exit, ok := errors.AsType[*exec.ExitError](err); ok && exit.ExitCode() > 0 {
		return exit.ExitCode()
	}
	if err != nil {
		return fail(err)
	}
	return 0
}

func testCgroup() (string, error) {
	base, err := cgroupBase("auto")
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, "batchwarden-test-"+strconv.Itoa(os.Getpid()))
	return dir, os.MkdirAll(filepath.Join(dir, "self"), 0o755)
}

// removeTestCgroup ends what tests that failed left running.
func removeTestCgroup(dir string) error {
	b := box{dir: dir}
	b.stop()
	for range 100 {
		if removeCgroup(dir); len(cgroupProcesses(dir, nil)) == 0 {
			if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
				return nil
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	return fmt.Errorf("cgroup %q cannot be removed", dir)
}

// furnish sets up the namespace.
func furnish() error {
	if err := unix.Mount("world", world, "tmpfs", 0, "mode=755"); err != nil {
		return err
	}
	for _, d := range []string{"bin", "home", "home/payroll", "home/many", "home/lone", "etc", "run"} {
		if err := os.Mkdir(filepath.Join(world, d), 0o755); err != nil {
			return err
		}
	}
	for name, text := range map[string]string{"passwd": passwd, "group": groups()} {
		file := filepath.Join(world, "etc", name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return err
		}
		if err := unix.Mount(file, "/etc/"+name, "", unix.MS_BIND, ""); err != nil {
			return err
		}
	}
	for home, uid := range map[string]int{"payroll": jobUID, "many": manyUID, "lone": loneUID} {
		dir := filepath.Join(world, "home", home)
		if err := errors.Join(os.Chown(dir, uid, uid), os.Chmod(dir, 0o700)); err != nil {
			return err
		}
	}
	for from, to := range map[string]string{"/proc/self/exe": program, os.Getenv(becomeEnv): beginning} {
		text, err := os.ReadFile(from)
		if err == nil {
			err = os.WriteFile(to, text, 0o755)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// play is a process that is not the test: what it is comes in roleEnv, the rest in its arguments.
func play(role string) int {
	err := func() error {
		switch role {
		case "requester": // connects, says so, and stays until stdin ends
			c, err := net.Dial("unix", os.Args[1])
			if err != nil {
				return err
			}
			return stay(c)
		case "turncoat": // connects, and at a line executes another program that stays
			if _, err := net.Dial("unix", os.Args[1]); err != nil {
				return err
			}
			fmt.Println("ready")
			if _, err := fmt.Scanln(new(string)); err != nil {
				return err
			}
			return unix.Exec(os.Args[2], os.Args[:1], []string{roleEnv + "=idle"})
		case "idle":
			return stay(io.NopCloser(nil))
		case "listener": // listens and accepts until stdin ends
			l, err := net.Listen("unix", os.Args[1])
			if err != nil {
				return err
			}
			go func() { _, _ = l.Accept() }()
			return stay(l)
		case "lender": // listens, and gives its first connection to the second
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: os.Args[1], Net: "unix"})
			if err != nil {
				return err
			}
			if err := os.Chmod(os.Args[1], 0o666); err != nil {
				return err
			}
			l.SetUnlinkOnClose(false)
			go func() {
				first, err := l.AcceptUnix()
				if err != nil {
					return
				}
				if second, err := l.AcceptUnix(); err == nil {
					_ = localsock.NewFrames(second, 10, 1, 0).Send(nil, first) // the test sees what did not come
				}
			}()
			return stay(l)
		case "heir": // connects, leaves the connection to a child that stays, and ends
			c, err := net.Dial("unix", os.Args[1])
			if err != nil {
				return err
			}
			f, err := c.(*net.UnixConn).File()
			if err != nil {
				return err
			}
			child := exec.Command("/bin/sleep", "20")
			child.ExtraFiles = []*os.File{f}
			child.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
			if err := child.Start(); err != nil {
				return err
			}
			fmt.Println("child", child.Process.Pid)
			return nil
		case "rootless":
			return playRootless(os.Args[1])
		case "worker":
			return playWorker(os.Args[1:])
		}
		return fmt.Errorf("no role %q", role)
	}()
	if err != nil {
		fmt.Fprintln(os.Stderr, role, err)
		return 1
	}
	return 0
}

func stay(c io.Closer) error {
	fmt.Println("ready")
	_, err := io.Copy(io.Discard, os.Stdin)
	return errors.Join(err, c.Close())
}
