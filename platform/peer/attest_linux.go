package peer

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

type attestor struct {
	pidNS, userNS string // ours
	older         bool   // for tests: as on kernels before 6.5
	looks         turns  // at executable files
	sums          sums
}

// seen is a link to the executable file, as /proc showed it.
type seen struct{ link string }

func newAttestor() (*Attestor, error) {
	self := process{pidfd: -1}
	var err error
	if self.dir, err = unix.Open("/proc/self", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("/proc/self: %w", err)
	}
	defer self.close()
	pidNS, err := self.link("ns/pid")
	if err != nil {
		return nil, err
	}
	userNS, err := self.link("ns/user")
	if err != nil {
		return nil, err
	}
	return &Attestor{attestor{pidNS: pidNS, userNS: userNS, looks: turns{most: maxLooks}, sums: sums{reads: turns{most: maxReads}}}}, nil
}

func (a *attestor) attest(ctx context.Context, c syscall.Conn, path string, w Want) (at Attested, err error) {
	var held process
	err = control(c, func(fd int) error {
		if w.Named {
			at.Systemd = systemd()
			at.Name, err = isNamed(fd, path)
		} else {
			err = isAccepted(fd, path)
		}
		if err != nil {
			return err
		}
		if at.Peer, err = credentials(fd); err != nil {
			return err
		}
		held, err = hold(fd, at.PID, a.older)
		return err
	})
	if err != nil {
		return at, err
	}
	defer held.close()
	err = a.examine(ctx, held, &at, w)
	// All that was read was another process's if this one does not run any more, and so is what was wrong with it.
	if gone := held.runs(at.Started); gone != nil {
		return at, gone
	}
	return at, err
}

// examine fills in what held shows.
func (a *attestor) examine(ctx context.Context, held process, at *Attested, w Want) (err error) {
	program := w.Program || w.SHA256
	if w.Started != 0 || held.pidfd < 0 {
		if at.Started, err = held.started(); err != nil {
			return err
		}
	}
	if w.Started != 0 && w.Started != at.Started {
		return fmt.Errorf("%w: the process with its number was started at another time", ErrChanged)
	}
	if err := a.native(held); err != nil {
		return err
	}
	if program {
		if err := a.program(ctx, held, at, w.SHA256); err != nil {
			return err
		}
	}
	// After the look at the program, which may have been another user's.
	if err := same(held, &at.Peer); err != nil || !program {
		return err
	}
	return still(held, at)
}

// native wants the process to be in our namespaces.
func (a *attestor) native(held process) error {
	for _, ns := range [...]struct{ name, ours string }{{"ns/pid", a.pidNS}, {"ns/user", a.userNS}} {
		theirs, err := held.link(ns.name)
		if err != nil {
			return err
		}
		if theirs != ns.ours {
			return fmt.Errorf("%w: it is in %s, we are in %s", ErrForeign, theirs, ns.ours)
		}
	}
	return nil
}

// same wants the process to have the ids that it connected with, all of them: one that executed a setuid program
// meanwhile, or gave up the ids it had, is not who the socket says.
func same(held process, p *Peer) error {
	status, err := held.read("status")
	if err != nil {
		return err
	}
	for _, id := range [...]struct {
		key  string
		want uint32
	}{{"Uid:", p.UID}, {"Gid:", p.GID}} {
		ids := numbers(status, id.key)
		if len(ids) != 4 || slices.ContainsFunc(ids, func(n uint32) bool { return n != id.want }) {
			return fmt.Errorf("%w: its %s %d, not only %d", ErrChanged, id.key, ids, id.want)
		}
	}
	groups := numbers(status, "Groups:")
	if groups == nil {
		return errors.New("/proc/PID/status has no groups")
	}
	groups = append(groups, p.GID)
	slices.Sort(groups)
	if !slices.Equal(slices.Compact(groups), p.Groups) {
		return fmt.Errorf("%w: it has other groups", ErrChanged)
	}
	return nil
}

// program looks at what the process executes and where it belongs. What the file system does not tell in time, or the
// rights that we have do not, stays unknown; only the caller's giving up is an error, and the end of the process.
func (a *attestor) program(ctx context.Context, held process, at *Attested, sum bool) error {
	cgroup, err := held.read("cgroup")
	if err != nil {
		return err
	}
	at.Unit = unitOf(string(cgroup))

	link, err := held.link("exe")
	if err != nil {
		at.NoExe = err.Error()
		at.NoSHA256 = at.NoExe
		return ctx.Err()
	}
	id, err := identityOf(held.dir, "exe", 0)
	if err != nil {
		at.NoExe, at.NoSHA256 = err.Error(), err.Error()
		return ctx.Err()
	}
	at.Device, at.Inode = id.device, id.inode
	a.locate(ctx, id, link, at)
	if sum {
		if at.SHA256, err = a.sums.of(ctx, held, id, at.UID); err != nil {
			at.NoSHA256 = err.Error()
		}
	}
	at.link = link
	return ctx.Err()
}

// still wants the process to execute the program that was looked at.
func still(held process, at *Attested) error {
	if at.link == "" {
		return nil // nothing was seen
	}
	switch now, err := held.link("exe"); {
	case err != nil:
		return err
	case now == at.link+deleted: // or another program, which was deleted: what is known is about a file that is gone
		at.Exe, at.NoExe = "", replaced(at.link)
		at.SHA256, at.NoSHA256 = "", at.NoExe
	case now != at.link:
		return fmt.Errorf("%w: it executed %q meanwhile", ErrChanged, now)
	}
	return nil
}

// locate finds out, into at, whether the file lies at link. It gives up after a while: the file system may be anybody's.
func (a *attestor) locate(ctx context.Context, id identity, link string, at *Attested) {
	there, err := liesCached(link)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
		there, err = a.liesSlow(ctx, link, at.UID)
	}
	switch {
	case errors.Is(err, errSlow) || errors.Is(err, errBusy):
		at.NoExe = err.Error()
	case err != nil || there.device != id.device || there.inode != id.inode:
		at.NoExe = replaced(link)
	default:
		at.Exe = link
	}
}

// liesCached says which file lies at path when the kernel knows that without asking a file system, as it does of a path
// that something runs from; else it fails with EAGAIN, and on kernels before 5.12 with EINVAL.
func liesCached(path string) (identity, error) {
	fd, err := unix.Openat2(unix.AT_FDCWD, path, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC, Resolve: resolveCached | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return identity{}, err
	}
	defer unix.Close(fd)
	return identityOf(fd, "", unix.AT_EMPTY_PATH)
}

// resolveCached is RESOLVE_CACHED of openat2.
const resolveCached = 0x20

// liesSlow asks the file system, which may be one that somebody lets answer never.
func (a *attestor) liesSlow(ctx context.Context, path string, uid uint32) (identity, error) {
	type answer struct {
		id  identity
		err error
	}
	ctx, cancel := context.WithTimeout(ctx, FileWait)
	defer cancel()
	release, err := a.looks.take(ctx, uid)
	if err != nil {
		return identity{}, err
	}
	answers := make(chan answer, 1)
	go func() { // ends when the file system answers; there are at most maxLooks of them for one user
		defer release()
		id, err := identityOf(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW)
		answers <- answer{id, err}
	}()
	select {
	case <-ctx.Done():
		return identity{}, errSlow
	case got := <-answers:
		return got.id, got.err
	}
}

// deleted is what /proc adds to the path of a file that has been unlinked.
const deleted = " (deleted)"

func replaced(link string) string {
	return fmt.Sprintf("the file that it executes is not at %q any more: it was deleted or replaced, or is in another file system", strings.TrimSuffix(link, deleted))
}

// systemd reports whether systemd runs this system: see sd_booted(3).
func systemd() bool {
	var st unix.Stat_t
	return unix.Lstat("/run/systemd/system", &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFDIR
}

// unitOf returns the system service of a process with that /proc/PID/cgroup, read by root outside of any container.
//
// Only the first name below the slices counts, which systemd alone can have made: whoever was given a cgroup of his
// own, as a container, a service with Delegate= or a user's service manager, can make names like services' in it, and
// is himself known by the name of what he was given. A path of another cgroup namespace begins with "..".
func unitOf(cgroup string) string {
	path := ""
	for line := range strings.Lines(cgroup) {
		line = strings.TrimSuffix(line, "\n")
		if unified, ok := strings.CutPrefix(line, "0::"); ok && unified != "/" {
			path = unified
			break
		}
		if _, after, ok := strings.Cut(line, ":name=systemd:"); ok { // systemd with the first version of cgroups
			path = after
		}
	}
	rest, ok := strings.CutPrefix(path, "/")
	if !ok {
		return ""
	}
	for depth := 0; ; depth++ {
		name, below, _ := strings.Cut(rest, "/")
		switch {
		case strings.HasSuffix(name, ".slice") && name != ".slice" && (depth > 0 || name != "user.slice"):
			rest = below
		case depth > 0 && strings.HasSuffix(name, ".service") && name != ".service":
			return strings.TrimPrefix(name, "_") // systemd's escape for names that the kernel could mistake
		default:
			return ""
		}
	}
}
