package testbed

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// An Account is an operating-system account with a group of its own.
type Account struct {
	Name   string
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary, without GID
	Home   string   // "/" when it has none
}

// Root is the account of the superuser.
var Root = Account{Name: "root", Home: "/root"}

// Accounts are the ones that a Bed needs.
type Accounts struct {
	Daemon   Account // batchwardend
	Sync     Account // batchwarden-sync
	LSAM     Account // the client entry "lsam"
	Stranger Account // no client entry, no operator
	Payroll  Account // what the batch user payroll runs as
	Reports  Account // what the batch user reports runs as

	made []string
}

// mark begins the comment field of every account that we make; the pid and the
// start time of the process it is made for follow.
const mark = "batchwarden testbed"

// NewAccounts makes the accounts, named PREFIX-daemon and so on; homes are made
// below the directory homes. Close removes them. Accounts that a dead process
// left behind are removed first; those of a living one are an error.
func NewAccounts(prefix, homes string) (*Accounts, error) {
	if err := removeStale(prefix); err != nil {
		return nil, err
	}
	a := &Accounts{}
	owner, err := birth(os.Getpid())
	if err != nil {
		return nil, err
	}
	for _, want := range []struct {
		into *Account
		name string
		home bool // an account that jobs run as: not a system account, and with a shell
	}{
		{&a.Daemon, "daemon", false},
		{&a.Sync, "sync", false},
		{&a.LSAM, "lsam", false},
		{&a.Stranger, "stranger", false},
		{&a.Payroll, "payroll", true},
		{&a.Reports, "reports", true},
	} {
		name := prefix + "-" + want.name
		args := []string{"--no-log-init", "--user-group", "--no-create-home", "--comment", mark + " " + owner}
		home := "/nonexistent"
		if want.home {
			home = filepath.Join(homes, name)
			args = append(args, "--shell", "/bin/sh", "--key", "SUB_UID_COUNT=0", "--key", "SUB_GID_COUNT=0")
		} else {
			args = append(args, "--system", "--shell", "/usr/sbin/nologin")
		}
		a.made = append(a.made, name) // also when useradd only half succeeds
		if err := run("useradd", append(args, "--home-dir", home, name)...); err != nil {
			return nil, errors.Join(err, a.Close())
		}
		if *want.into, err = lookup(name); err != nil {
			return nil, errors.Join(err, a.Close())
		}
		if want.home {
			if err := privateDir(home, *want.into, 0o700); err != nil {
				return nil, errors.Join(err, a.Close())
			}
		}
	}
	return a, nil
}

// All returns the accounts in the order in which they were made.
func (a *Accounts) All() []Account {
	return []Account{a.Daemon, a.Sync, a.LSAM, a.Stranger, a.Payroll, a.Reports}
}

// Close ends what still runs as one of the accounts and removes them. It may be
// called more than once.
func (a *Accounts) Close() error {
	err := removeAccounts(a.made)
	if err == nil {
		a.made = nil
	}
	return err
}

func removeAccounts(names []string) error {
	var errs []error
	for _, name := range names {
		account, err := lookup(name)
		if _, unknown := errors.AsType[user.UnknownUserError](err); unknown {
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		if err := endProcessesOf(account.UID); err != nil {
			errs = append(errs, err)
		}
		errs = append(errs, run("userdel", name))
		if _, err := user.LookupGroup(name); err == nil { // where userdel does not take the group along
			errs = append(errs, run("groupdel", name))
		}
	}
	return errors.Join(errs...)
}

// removeStale removes accounts of ours whose process is dead.
func removeStale(prefix string) error {
	passwd, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return err
	}
	var stale []string
	for line := range strings.Lines(string(passwd)) {
		f := strings.Split(line, ":")
		if len(f) < 7 {
			continue
		}
		owner, ours := strings.CutPrefix(f[4], mark+" ")
		switch {
		case !ours && strings.HasPrefix(f[0], prefix+"-"):
			return fmt.Errorf("there is an account %q already, and its comment field does not say that it is ours: not touching it", f[0])
		case !ours:
		case alive(owner):
			if strings.HasPrefix(f[0], prefix+"-") {
				return fmt.Errorf("account %q belongs to process %s, which still runs", f[0], owner)
			}
		default:
			stale = append(stale, f[0])
		}
	}
	return removeAccounts(stale)
}

// AccountsLeft returns the names of accounts and groups that begin with the
// prefix.
func AccountsLeft(prefix string) (left []string) {
	for _, file := range []string{"/etc/passwd", "/etc/group"} {
		text, err := os.ReadFile(file)
		if err != nil {
			return []string{err.Error()}
		}
		for line := range strings.Lines(string(text)) {
			if name, _, _ := strings.Cut(line, ":"); strings.HasPrefix(name, prefix+"-") {
				left = append(left, name)
			}
		}
	}
	return left
}

// birth names a process so that a later one with the same pid differs: its pid
// and its start time.
func birth(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", err
	}
	after := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // the command may contain blanks
	const starttime = 22 - 3                                       // proc(5) counts from 1; two fields stand before
	if len(after) <= starttime {
		return "", fmt.Errorf("/proc/%d/stat: too short", pid)
	}
	return fmt.Sprintf("%d %s", pid, after[starttime]), nil
}

// alive reports whether the process that birth named still runs.
func alive(owner string) bool {
	first, _, _ := strings.Cut(owner, " ")
	pid, err := strconv.Atoi(first)
	if err != nil {
		return false
	}
	now, err := birth(pid)
	return err == nil && now == owner
}

// lookup reads an account from the system's files.
func lookup(name string) (Account, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return Account{}, err
	}
	ids, err := u.GroupIds()
	if err != nil {
		return Account{}, err
	}
	number := func(s string) uint32 {
		n, nerr := strconv.ParseUint(s, 10, 32)
		err = cmp.Or(err, nerr)
		return uint32(n)
	}
	a := Account{Name: name, UID: number(u.Uid), GID: number(u.Gid), Home: u.HomeDir}
	for _, id := range ids {
		if g := number(id); g != a.GID && !slices.Contains(a.Groups, g) {
			a.Groups = append(a.Groups, g)
		}
	}
	return a, err
}

// credential makes a process the account; nil when it is that already.
func (a Account) credential() *syscall.Credential {
	if a.UID == uint32(os.Geteuid()) {
		return nil
	}
	return &syscall.Credential{Uid: a.UID, Gid: a.GID, Groups: a.Groups}
}

// environ is what a login would set, and no more.
func (a Account) environ() []string {
	home := a.Home
	if _, err := os.Stat(home); err != nil {
		home = "/"
	}
	return []string{"HOME=" + home, "USER=" + a.Name, "LOGNAME=" + a.Name, "PATH=/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin", "LANG=C.UTF-8"}
}

// ProcessesOf returns the pids of what runs as the account.
func ProcessesOf(uid uint32) (pids []int, err error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if runsAs(pid, uid) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// runsAs asks /proc/PID/status: the directory itself is root's when the process
// is not dumpable. A zombie runs no more.
func runsAs(pid int, uid uint32) bool {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil || bytes.Contains(status, []byte("\nState:\tZ")) {
		return false
	}
	_, ids, _ := bytes.Cut(status, []byte("\nUid:"))
	ids, _, _ = bytes.Cut(ids, []byte("\n"))
	return slices.ContainsFunc(bytes.Fields(ids), func(id []byte) bool { return string(id) == strconv.Itoa(int(uid)) })
}

// endProcessesOf kills what runs as an account of ours, until nothing does.
// Nothing but ours can run as it.
func endProcessesOf(uid uint32) error {
	if uid == 0 {
		return errors.New("testbed: refusing to end root's processes")
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		pids, err := ProcessesOf(uid)
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("uid %d still has processes %v", uid, pids)
		}
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended just now
		}
	}
}

// privateDir makes a directory, unless it is there, and gives it to the account.
func privateDir(dir string, owner Account, mode fs.FileMode) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.Chmod(dir, mode); err != nil { // whatever the umask
		return err
	}
	return os.Chown(dir, int(owner.UID), int(owner.GID))
}

// run runs one of the system's programs and puts what it says into the error.
func run(name string, args ...string) error {
	path, err := exec.LookPath(name)
	if err != nil {
		path = "/usr/sbin/" + name
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
