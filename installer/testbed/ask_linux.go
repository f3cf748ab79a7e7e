package testbed

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// An Asking is a process that connects as systemd does for LoadCredential=:
// with its own end bound to a name that says what it wants.
type Asking struct {
	As   Account
	Name string // NUL and an abstract name, a path, or "" for none
	Unit string // the service whose cgroup it runs in; "" for none
	Send string // what it sends, which systemd does not
}

// SystemdSocket is where Ask connects.
func (b *Bed) SystemdSocket() string { return filepath.Dir(b.Socket) + "/systemd.sock" }

// Units reports whether processes can be put into units here.
func (b *Bed) Units() bool { return b.cgroup != "" }

// Ask connects, and returns what came until the end. An error says that the
// connection could not be made or broke.
func (b *Bed) Ask(a Asking) (got string, err error) {
	var out, errs bytes.Buffer
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(a.As.environ(), b.asking(a)...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = "/", strings.NewReader(a.Send), &out, &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true, Credential: a.As.credential()}
	if a.Unit != "" {
		slice := b.cgroup + ".slice" // directly below the mount: what systemd makes lies there
		defer func() { err = errors.Join(err, removeCgroup(slice)) }()
		if err := os.MkdirAll(filepath.Join(slice, a.Unit), 0o755); err != nil {
			return "", err
		}
		dir, err := os.Open(filepath.Join(slice, a.Unit))
		if err != nil {
			return "", err
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("ask: %w: %s", err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.String(), nil
}

// asking tells a process of this program that it is to ask.
func (b *Bed) asking(a Asking) []string {
	return []string{roleEnv + "=" + roleAsk, askEnv + "=" + fmt.Sprintf("%x", a.Name), socketEnv + "=" + b.SystemdSocket()}
}

// asker is where Boot puts this program.
func (b *Bed) asker() string { return b.Bin + "/asker" }

// AskingUnit is a unit that does in a booted machine what Ask does outside; what
// it gets goes to the file.
func (b *Bed) AskingUnit(a Asking, out string) string {
	return "[Service]\nType=oneshot\nExecStart=" + b.asker() + "\nStandardOutput=truncate:" + out + "\nEnvironment=" + strings.Join(b.asking(a), " ") + "\n"
}

// AskingCommand is a command that does the same.
func (b *Bed) AskingCommand(a Asking) []string {
	return append(append([]string{"env"}, b.asking(a)...), b.asker())
}

// The variables of the process of Ask: the name to bind to, in hex, and where
// to connect.
const (
	askEnv    = "BATCHWARDEN_TESTBED_NAME"
	socketEnv = "BATCHWARDEN_TESTBED_SOCKET"
)

// ask is the process of Ask.
func ask() error {
	name, err := hex.DecodeString(os.Getenv(askEnv))
	if err != nil {
		return err
	}
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if len(name) > 0 {
		// The system call's package writes an abstract name with an @ in front.
		text := string(name)
		if name[0] == 0 {
			text = "@" + text[1:]
		}
		if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: text}); err != nil {
			return fmt.Errorf("bind: %w", err)
		}
	}
	if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: os.Getenv(socketEnv)}); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	f := os.NewFile(uintptr(fd), "socket")
	if _, err := io.Copy(f, os.Stdin); err != nil && !errors.Is(err, syscall.EPIPE) { // it was closed already
		return err
	}
	late := time.AfterFunc(30*time.Second, func() { os.Exit(124) })
	defer late.Stop()
	_, err = io.Copy(os.Stdout, f)
	if errors.Is(err, syscall.ECONNRESET) {
		return nil // what was sent was not read
	}
	return err
}
