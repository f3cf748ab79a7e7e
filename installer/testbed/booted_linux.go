package testbed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// Booted is the host of a bed, booted: systemd is its process 1, the bed's
// files and accounts are there under their names, and there is no network but a
// loopback of its own. What the bed runs outside cannot be seen from it.
type Booted struct {
	Root string // its root file system, as seen from outside

	bed     *Bed
	process *Process
	leader  int // its process 1
	relay   *relay
}

// RootFS returns the directory with a Debian that has systemd; make makes it.
func RootFS() (string, error) {
	top, err := Top()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(top, "build", "_rootfs")
	if _, err := os.Stat(dir + "/usr/lib/systemd/systemd"); err != nil {
		return "", fmt.Errorf("no root file system to boot; as root: make test-systemd: %w", err)
	}
	return dir, nil
}

// NeedMachine skips a test that boots a machine where that cannot be done, and
// fails it where nothing may be skipped.
func NeedMachine(t TB) {
	t.Helper()
	NeedRoot(t)
	_, err := RootFS()
	if err == nil && cgroupMount() == "" {
		err = errors.New("no cgroup2 file system that can be written")
	}
	if err == nil {
		return
	}
	if os.Getenv(NoSkip) == "1" {
		t.Fatalf("%v", err)
	}
	t.Skip(err.Error())
}

// Boot boots a machine with these units, by their paths below /etc/systemd, and
// returns when it is up. Nothing of the bed may run that uses its files. The machine ends with Stop; in a sandbox
// it ends with that at the latest.
func (b *Bed) Boot(units map[string]string) (*Booted, error) { return b.boot(units, false) }

// BootOlder boots a machine with nothing of the bed's in it that has what RHEL 8 has: neither memfd_secret nor
// SO_PEERPIDFD, and cgroups in their first version.
func (b *Bed) BootOlder() (*Booted, error) { return b.boot(nil, true) }

func (b *Bed) boot(units map[string]string, older bool) (m *Booted, err error) {
	if sandboxed == "" {
		return nil, errors.New("testbed: a machine is booted in a sandbox only")
	}
	m = &Booted{Root: b.Root + "/machine/root", bed: b}
	defer func() {
		if err != nil {
			err, m = errors.Join(err, m.Stop()), nil
		}
	}()
	if err := m.mount(); err != nil {
		return m, err
	}
	if err := m.addAccounts(); err != nil {
		return m, err
	}
	// The local vault is this machine's, and opens on no other.
	id, err := os.ReadFile("/etc/machine-id")
	if err == nil {
		err = os.WriteFile(m.Root+"/etc/machine-id", id, 0o444)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	for name, text := range units {
		file := m.Root + "/etc/systemd/" + name
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return m, err
		}
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			return m, err
		}
	}
	if err := copyFile("/proc/self/exe", b.asker(), 0o755); err != nil {
		return m, err
	}
	cgroup := b.under("machine")
	if err := os.Mkdir(cgroup, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return m, err
	}
	nspawn := spawn{
		name: "systemd-nspawn", log: b.Logs + "/machine.log", as: Root, cgroup: cgroup,
		env: []string{"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1"},
		// Never without a network of its own: a systemd that shared ours would set it up anew.
		argv: []string{
			b.program("systemd-nspawn"), "--quiet", "--directory=" + m.Root, "--private-network", "--register=no", "--keep-unit",
			"--capability=all", "--system-call-filter=memfd_secret", "--bind=" + b.Root + ":" + b.Root + ":norbind", "--console=pipe", "--boot",
		},
	}
	if older {
		nspawn.env = []string{"SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=0", roleEnv + "=" + roleOlder}
		nspawn.argv = append([]string{"/proc/self/exe"}, nspawn.argv...)
	}
	m.process, err = nspawn.start()
	if err != nil {
		return m, err
	}
	return m, m.await("up", func() (bool, string) {
		if m.leader == 0 {
			m.leader = firstIn(m.process.PID())
		}
		if m.leader == 0 {
			return false, "it has no process 1 yet"
		}
		r := m.Command("systemctl", "is-system-running")
		state := strings.TrimSpace(r.Out)
		return state == "running" || state == "degraded", state + r.Err
	})
}

// mount lays a directory over the root file system, so that the machine writes
// nothing into that.
func (m *Booted) mount() error {
	lower, err := RootFS()
	if err != nil {
		return err
	}
	dir, err := os.Open(lower)
	if err != nil {
		return err
	}
	defer dir.Close()
	over := filepath.Dir(m.Root)
	for _, sub := range []string{"/upper", "/work", "/root"} {
		if err := os.MkdirAll(over+sub, 0o755); err != nil {
			return err
		}
	}
	options := fmt.Sprintf("lowerdir=/proc/self/fd/%d,upperdir=%s/upper,workdir=%s/work", dir.Fd(), over, over)
	if err := syscall.Mount("overlay", m.Root, "overlay", syscall.MS_NOSUID|syscall.MS_NODEV, options); err != nil {
		return fmt.Errorf("mount the machine's root: %w", err)
	}
	return nil
}

// addAccounts gives the machine the bed's accounts.
func (m *Booted) addAccounts() error {
	ours := func(line string) bool {
		name, _, _ := strings.Cut(line, ":")
		return slices.ContainsFunc(m.bed.Accounts.All(), func(a Account) bool { return a.Name == name })
	}
	for _, file := range []string{"/etc/passwd", "/etc/group", "/etc/shadow"} {
		text, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		add := ""
		for line := range strings.Lines(string(text)) {
			if ours(line) {
				add += strings.TrimRight(line, "\n") + "\n"
			}
		}
		f, err := os.OpenFile(m.Root+file, os.O_WRONLY|os.O_APPEND, 0)
		if err != nil {
			return err
		}
		_, err = f.WriteString(add)
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// firstIn returns the child of a process that is process 1 in its own pid
// namespace, 0 for none.
func firstIn(pid int) int {
	children, err := Children(pid)
	if err != nil {
		return 0
	}
	for _, child := range children {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", child))
		if err != nil {
			continue
		}
		_, ids, _ := strings.Cut(string(status), "\nNSpid:")
		ids, _, _ = strings.Cut(ids, "\n")
		exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", child))
		if f := strings.Fields(ids); err == nil && len(f) > 1 && f[len(f)-1] == "1" && filepath.Base(exe) == "systemd" {
			return child
		}
	}
	return 0
}

// Command runs a program in the machine, as its root and outside of all units,
// to its end.
func (m *Booted) Command(argv ...string) Result {
	return m.bed.Command(Root, append([]string{"nsenter", "--target", fmt.Sprint(m.leader), "--all", "--"}, argv...)...)
}

// Path is where a file of the machine can be read from outside while it runs.
func (m *Booted) Path(file string) string { return fmt.Sprintf("/proc/%d/root%s", m.leader, file) }

// WaitFor runs a program in the machine until it succeeds.
func (m *Booted) WaitFor(argv ...string) error {
	return m.await(strings.Join(argv, " "), func() (bool, string) {
		r := m.Command(argv...)
		return r.Code == 0, r.Out + r.Err
	})
}

func (m *Booted) await(what string, ask func() (yes bool, instead string)) error {
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		yes, instead := ask()
		switch {
		case yes:
			return nil
		case !m.process.Running():
			return fmt.Errorf("machine: not %s: it has ended: %s\n%s", what, m.process.Outcome(), m.process.LogTail(20))
		case time.Now().After(deadline):
			return fmt.Errorf("machine: not %s within a minute: %s\n%s", what, instead, m.process.LogTail(20))
		}
	}
}

// Journal returns the last lines of what the machine's units said.
func (m *Booted) Journal(lines int) string {
	return m.Command("journalctl", "--no-pager", "--lines", fmt.Sprint(lines)).Out
}

// Stop ends everything in the machine at once, and removes what it was made of.
func (m *Booted) Stop() error {
	m.relay.close()
	if m.leader > 0 && m.process.Running() {
		_ = syscall.Kill(m.leader, syscall.SIGKILL) // with process 1 goes everything in there, and then nspawn
		select {
		case <-m.process.Ended():
		case <-time.After(5 * time.Second):
		}
	}
	m.process.Kill()
	err := syscall.Unmount(m.Root, 0)
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOENT) {
		err = nil // it was not mounted
	}
	return errors.Join(err, removeCgroup(m.bed.under("machine")), removeLegacyCgroups(filepath.Base(m.bed.cgroup)))
}

// removeLegacyCgroups removes what nspawn made beside the unified hierarchy,
// where systemd's older one is mounted too.
func removeLegacyCgroups(prefix string) error {
	dirs, err := filepath.Glob(filepath.Join(filepath.Dir(cgroupMount()), "systemd", prefix+"*"))
	if err != nil || cgroupMount() == "" {
		return err
	}
	var errs []error
	for _, dir := range dirs {
		errs = append(errs, rmdirs(dir))
	}
	return errors.Join(errs...)
}
