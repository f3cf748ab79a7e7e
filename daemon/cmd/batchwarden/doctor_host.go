package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"batchwarden/daemon/config"
	"batchwarden/daemon/doctor"
	accounts "batchwarden/platform/account"
	"batchwarden/platform/disk"
	"batchwarden/platform/kernel"
	"batchwarden/platform/localsock"
	"batchwarden/platform/process"
	"batchwarden/platform/safefile"
)

// configure reads the configuration, also where the services would refuse it for its owner or mode.
func (d *diagnosis) configure() {
	d.config, _, d.configured = config.Check(d.file) // what it warns of Load refuses
	if d.configured != nil {
		d.config = nil
	} else if _, err := config.Load(d.file); err != nil {
		d.unsafe = oneLine(err)
	}
}

// inside are what errors begin with for programmers.
var inside = []string{"safefile: ", "localsock: ", "hostkey: ", "sealed: ", "account: ", "audit: ", "disk: ", "process: "}

// oneLine is an error in the words that are for people.
func oneLine(err error) string {
	text := strings.ReplaceAll(err.Error(), "\n", "; ")
	for _, begin := range inside {
		text = strings.TrimPrefix(text, begin)
	}
	return text
}

func (d *diagnosis) configuration(context.Context) []doctor.Check {
	const content, permissions = "configuration", "configuration.permissions"
	if err := d.configured; err != nil {
		if strings.Contains(err.Error(), "cannot be read by this user") {
			return []doctor.Check{unknown(content, oneLine(err), asRoot), unknown(permissions, oneLine(err), asRoot)}
		}
		mend := "mend the place that is named; batchwarden config check " + d.file + " tells when it is right"
		if _, lost := os.Stat(d.file); errors.Is(lost, fs.ErrNotExist) {
			mend = "batchwarden setup install writes one, with everything else that is missing"
		}
		return []doctor.Check{
			problem(content, oneLine(err), mend),
			unknown(permissions, "they are looked at once the content is right", "mend the configuration first"),
		}
	}
	checks := []doctor.Check{ok(content, fmt.Sprintf("%s: %s", strings.Join(d.config.Files, ", "), counted(len(d.config.Clients), "client")))}
	if len(d.config.Warnings) > 0 {
		checks[0] = note(content, strings.Join(d.config.Warnings, "; "))
	}
	if d.unsafe != "" {
		dir := filepath.Dir(d.file)
		return append(checks, problem(permissions, d.unsafe, fmt.Sprintf("chown root:root %[1]s FILE; chmod 0755 %[1]s; chmod 0644 FILE, for the file that is named", dir)))
	}
	return append(checks, ok(permissions, "root's, and writable by nobody else"))
}

func (d *diagnosis) limitsFile(context.Context) []doctor.Check {
	const content, permissions = "limits", "limits.permissions"
	if !d.root {
		return d.limitsBySay(content, permissions)
	}
	l, _, err := config.CheckLimits(d.limits) // what it warns of LoadLimits refuses
	switch {
	case errors.Is(err, fs.ErrNotExist) || err != nil && strings.Contains(err.Error(), "does not exist"):
		return []doctor.Check{
			problem(content, d.limits+" does not exist, so every launch is refused", "write it: version: 1 and requesters: [the agent's user], as in installer/linux/limits.yaml; chmod 0600"),
			unknown(permissions, "there is no file", "write it first"),
		}
	case err != nil:
		return []doctor.Check{
			problem(content, oneLine(err)+"; every launch is refused", "mend the place that is named; batchwarden config check "+d.file+" --limits "+d.limits+" tells when it is right"),
			unknown(permissions, "they are looked at once the content is right", "mend the content first"),
		}
	}
	checks := []doctor.Check{ok(content, "requesters: "+orNone(l.Requesters))}
	if len(l.Requesters) == 0 {
		checks[0] = problem(content, "requesters is empty, so nobody may launch", "write the agent's user into "+d.limits+": requesters: [USER]")
	}
	if _, err := config.LoadLimits(d.limits); err != nil {
		return append(checks, problem(permissions, oneLine(err)+"; every launch is refused", fmt.Sprintf("chown root:root %[1]s; chmod 0600 %[1]s", d.limits)))
	}
	return append(checks, ok(permissions, "root's, and readable by nobody else"))
}

// limitsBySay is for those who cannot read the file: the launcher's word counts.
func (d *diagnosis) limitsBySay(content, permissions string) []doctor.Check {
	checks := []doctor.Check{
		unknown(content, d.limits+" can be read by root alone", asRoot),
		unknown(permissions, d.limits+" can be looked at by root alone", asRoot),
	}
	if s := d.status(); s.status != nil {
		for _, p := range s.status.Problems {
			if text, is := strings.CutPrefix(p.Detail, everyLaunch); p.Code == launcherProblem && is {
				checks[0] = problem(content, "every launch is refused: "+text, asRoot)
			}
		}
	}
	return checks
}

// users are the accounts that our own processes run as.
func (d *diagnosis) users(context.Context) []doctor.Check {
	const name = "users"
	if d.config == nil {
		return unconfigured(name)
	}
	var faults []string
	u := d.config.Users
	for _, of := range []struct{ place, user string }{{"users.daemon", u.Daemon}, {"users.sync", u.Sync}} {
		switch a, err := d.accounts.Lookup(of.user); {
		case errors.Is(err, accounts.ErrMissing):
			faults = append(faults, fmt.Sprintf("%s: the account %q does not exist", of.place, of.user))
		case err != nil:
			return []doctor.Check{unknown(name, oneLine(err), "see to the system's resolver (nsswitch.conf)")}
		case a.UID == 0:
			faults = append(faults, fmt.Sprintf("%s: %q is root", of.place, of.user))
		}
	}
	if len(faults) > 0 {
		return []doctor.Check{problem(name, strings.Join(faults, "; "), "systemd-sysusers, or useradd --system --no-create-home --shell /usr/sbin/nologin NAME")}
	}
	return []doctor.Check{ok(name, u.Daemon+" and "+u.Sync)}
}

// directories are where our services keep what is theirs.
func (d *diagnosis) directories(context.Context) []doctor.Check {
	const name = "directories"
	if d.config == nil {
		return unconfigured(name)
	}
	var faults, mends []string
	for _, of := range []struct{ path, owner string }{
		{d.config.StateDir, d.config.Users.Daemon}, {d.config.Launcher.StateDir, "root"},
	} {
		a, err := d.accounts.Lookup(of.owner)
		if err != nil {
			continue // users says so
		}
		dir, err := filepath.EvalSymlinks(of.path)
		if err == nil {
			err = safefile.CheckDir(dir, safefile.Rules{Owners: []uint32{a.UID}})
		}
		switch {
		case err == nil:
			continue
		case errors.Is(err, fs.ErrPermission):
			return []doctor.Check{unknown(name, oneLine(err), asRoot)}
		case errors.Is(err, errors.ErrUnsupported):
			return []doctor.Check{unknown(name, oneLine(err), nobodyHere)}
		}
		faults = append(faults, oneLine(err))
		mends = append(mends, fmt.Sprintf("install -d -m 0700 -o %s %s", of.owner, of.path))
	}
	if len(faults) > 0 {
		return []doctor.Check{problem(name, strings.Join(faults, "; "), strings.Join(mends, "; "))}
	}
	return []doctor.Check{ok(name, fmt.Sprintf("%s, %s", d.config.StateDir, d.config.Launcher.StateDir))}
}

// sockets are looked at, not connected to.
func (d *diagnosis) sockets(public string) []doctor.Check {
	look := func(name, path, owner string) doctor.Check {
		switch err := localsock.Check(path); {
		case errors.Is(err, fs.ErrPermission):
			return unknown(name, oneLine(err), asRoot)
		case errors.Is(err, errors.ErrUnsupported):
			return unknown(name, oneLine(err), nobodyHere)
		case errors.Is(err, fs.ErrNotExist):
			return problem(name, path+" does not exist; the launcher makes it", "systemctl start batchwarden-launcher")
		case errors.Is(err, localsock.ErrOwner):
			return problem(name, oneLine(err)+": somebody else could have put it there, and callers do not use it",
				fmt.Sprintf("find out who did that; then chown root %s; chmod %s; systemctl restart batchwarden-launcher makes it anew", path, owner))
		case err != nil:
			return problem(name, oneLine(err), "systemctl restart batchwarden-launcher makes it anew")
		}
		return ok(name, path+" is root's, and so is its directory")
	}
	checks := []doctor.Check{look("socket", public, "0755 "+filepath.Dir(public))}
	if d.config == nil {
		return append(checks, unconfigured("socket.launcher")...)
	}
	private := d.config.Launcher.Socket
	return append(checks, look("socket.launcher", private, "0750 "+filepath.Dir(private)))
}

// nobodyHere is who can look at what the platform does not tell.
const nobodyHere = "nobody on this platform"

// What has to be free on a disk: so many octets, or, on a small one, this part of it; and so many files.
const (
	leastFree  = 64 << 20
	leastPart  = 20
	leastFiles = 64
)

func (d *diagnosis) disks(context.Context) (checks []doctor.Check) {
	if d.config == nil {
		return unconfigured("disk.state", "disk.audit", "disk.jobs")
	}
	seen := map[string]bool{}
	for _, of := range []struct{ name, path string }{
		{"disk.state", d.config.StateDir}, {"disk.audit", filepath.Dir(d.config.Audit.File)}, {"disk.jobs", d.config.Launcher.StateDir},
	} {
		if !seen[of.path] {
			checks = append(checks, diskCheck(of.name, of.path))
		}
		seen[of.path] = true
	}
	return checks
}

func diskCheck(name, path string) doctor.Check {
	room, err := disk.Of(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return unknown(name, oneLine(err), asRoot)
	case errors.Is(err, errors.ErrUnsupported):
		return unknown(name, oneLine(err), nobodyHere)
	case err != nil:
		return problem(name, oneLine(err), "make the directory, or mount what belongs there")
	case room.ReadOnly:
		return problem(name, path+" is on a file system that is mounted read-only", "see to the disk (dmesg), then mount -o remount,rw "+mountHint(path))
	case room.Free < min(leastFree, room.Total/leastPart):
		return problem(name, fmt.Sprintf("%s has %s free of %s", path, octets(room.Free), octets(room.Total)), fmt.Sprintf("make room: df -h %[1]s; du -xh %[1]s | sort -h | tail", path))
	case room.Files >= 0 && room.Files < leastFiles:
		return problem(name, fmt.Sprintf("%s has inodes for %d more files", path, room.Files), "remove files: df -i "+path+" shows the file system; many small files use it up")
	}
	return ok(name, fmt.Sprintf("%s has %s free of %s", path, octets(room.Free), octets(room.Total)))
}

func mountHint(path string) string { return "$(findmnt -nT " + path + " -o TARGET)" }

// lost is what is lost without an ability of the kernel. None of it stops a job.
var lost = map[string]string{
	kernel.MemfdSecret:  "root and a core dump can read keys and passwords in the daemon's memory",
	kernel.PeerPidfd:    "a process that takes over the number of one that has just ended is told apart by its start time alone",
	kernel.Pidfd:        "processes are told apart by number and start time alone",
	kernel.Landlock:     "the sync worker could read what its user can, and not only what it needs",
	kernel.Cgroup2:      "processes that a job leaves behind are found by session and descent, and some may be missed",
	kernel.MadvPopulate: "the daemon starts a little slower with a large vault",
}

func kernelChecks() (checks []doctor.Check) {
	for _, a := range kernel.Abilities() {
		name := "kernel." + strings.ReplaceAll(strings.ToLower(a.Name), " ", "_")
		if a.Err == nil {
			checks = append(checks, ok(name, "it is there"))
		} else {
			checks = append(checks, note(name, fmt.Sprintf("it is not there (%v): %s", a.Err, lost[a.Name])))
		}
	}
	return checks
}

// ours finds our services' processes: those of this configuration.
func (d *diagnosis) ours() (r running) {
	one := func(name string) *process.Process {
		all, err := process.Find(name)
		r.err = errors.Join(r.err, err)
		for _, p := range all {
			if configOf(p.Args) == d.file {
				return &p
			}
		}
		return nil
	}
	r.daemon, r.launcher = one("batchwardend"), one("batchwarden-launcher")
	return r
}

// configOf is the configuration that the arguments of one of our services name.
func configOf(args []string) string {
	for i, arg := range args {
		rest, is := strings.CutPrefix(strings.TrimLeft(arg, "-"), "config")
		switch {
		case !is:
		case strings.HasPrefix(rest, "="):
			return rest[1:]
		case rest == "" && i+1 < len(args):
			return args[i+1]
		}
	}
	return config.DefaultFile
}

// helperDirs are where our services' own programs may lie.
func (d *diagnosis) helperDirs() (dirs []string) {
	if l := d.processes().launcher; l != nil && l.Exe != "" {
		dirs = append(dirs, filepath.Dir(l.Exe))
	}
	dirs = append(dirs, "/usr/lib/batchwarden")
	if self, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Dir(self))
	}
	return dirs
}
