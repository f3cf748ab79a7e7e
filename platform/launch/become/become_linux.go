package become

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"

	"golang.org/x/sys/unix"

	"batchwarden/platform/account"
)

// failure is the error of a step.
type failure struct {
	step string
	err  error
}

func (f *failure) Error() string { return f.step + ": " + f.err.Error() }

func (f *failure) Unwrap() error { return f.err }

func run() {
	// The mask of signals and the exec are this thread's; no other one has a reason to be made.
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
	answer := os.NewFile(AnswerFD, "answer")
	err := becomeJob(answer)
	r := Report{Step: "internal", Reason: err.Error()}
	if f, ok := errors.AsType[*failure](err); ok {
		r.Step, r.Reason = f.step, f.err.Error()
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		r.Errno = errno
	}
	say(answer, r)
	os.Exit(125)
}

func say(answer *os.File, r Report) {
	if len(r.Reason) > maxAnswer/8 {
		r.Reason = r.Reason[:maxAnswer/8]
	}
	text, err := json.Marshal(r)
	if err != nil {
		panic("become: a report cannot be written: " + err.Error()) // strings and numbers only
	}
	_, _ = answer.Write(text) // there is nobody else to tell
}

// becomeJob returns only when a step failed.
func becomeJob(answer *os.File) error {
	o, err := readOrder(os.NewFile(OrdersFD, "orders"))
	if err != nil {
		return &failure{"orders", err}
	}
	var file *command
	for _, s := range []struct {
		name string
		do   func() error
	}{
		{"descriptors", closeOnExec},
		{"session", leadSession},
		{"signals", resetSignals},
		{"umask", func() error { unix.Umask(int(o.Umask & 0o777)); return nil }},
		{"limits", restoreOpenFiles},
		{StepAccount, func() error { return sameAccount(o) }},
		{"groups", func() error { return setGroups(o.Account.GIDs()) }},
		{"gid", func() error { g := int(o.GID); return syscall.Setresgid(g, g, g) }},
		{"uid", func() error { u := int(o.Account.UID); return syscall.Setresuid(u, u, u) }},
		{"capabilities", func() error { return dropCapabilities(o.Account.UID) }},
		{"proof", func() error { return prove(o) }},
		{"stdio", func() error { return takeStdio(o) }},
		{StepChdir, func() error { return enter(o.Dir) }},
		{StepCommand, func() (err error) { file, err = find(o); return err }},
		{StepExec, func() error { return file.exec(o, answer) }},
	} {
		if err := s.do(); err != nil {
			return &failure{s.name, err}
		}
	}
	return errors.New("exec returned")
}

func readOrder(f *os.File) (*Order, error) {
	data, err := io.ReadAll(io.LimitReader(f, MaxOrder+1))
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	if len(data) > MaxOrder {
		return nil, unix.E2BIG
	}
	var o Order
	if err := json.Unmarshal(data, &o); err != nil {
		return nil, err // also when the launcher ended while it wrote
	}
	if len(o.Argv) == 0 || o.Account.Name == "" {
		return nil, unix.EINVAL
	}
	return &o, nil
}

func closeOnExec() error {
	err := unix.CloseRange(3, 1<<31-1, unix.CLOSE_RANGE_CLOEXEC)
	if !errors.Is(err, unix.ENOSYS) && !errors.Is(err, unix.EINVAL) {
		return err
	}
	// Linux before 5.11.
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return err
	}
	for _, e := range entries {
		var fd int
		if _, err := fmt.Sscanf(e.Name(), "%d", &fd); err != nil || fd < 3 {
			continue
		}
		// The directory's own descriptor is in the list and closed by now.
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, unix.FD_CLOEXEC); err != nil && !errors.Is(err, unix.EBADF) {
			return err
		}
	}
	return nil
}

func leadSession() error {
	sid, err := unix.Getsid(0)
	if err != nil || sid == os.Getpid() {
		return err
	}
	_, err = unix.Setsid()
	return err
}

// restoreOpenFiles gives back the soft limit of open files. The runtime raised it when this process began and knows
// the old one; it tells nobody but syscall.Exec, which restores it before an exec, also one that fails.
func restoreOpenFiles() error {
	if err := syscall.Exec("", []string{Argv0}, nil); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return nil
}

func sameAccount(o *Order) error {
	now, err := account.Lookup(o.Account.Name)
	if err != nil {
		return err
	}
	if !now.Equal(o.Account) {
		return fmt.Errorf("account %q is not what it was when the launch was decided", o.Account.Name)
	}
	return nil
}

// setGroups, like the two system calls after it, is the one of package syscall: that sets all threads.
func setGroups(gids []uint32) error {
	ids := make([]int, len(gids))
	for i, g := range gids {
		ids[i] = int(g)
	}
	return syscall.Setgroups(ids)
}

func enter(dir string) error {
	if err := unix.Chdir(dir); err != nil {
		return &os.PathError{Op: "chdir", Path: dir, Err: err}
	}
	return nil
}
