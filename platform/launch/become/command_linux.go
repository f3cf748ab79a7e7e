package become

import (
	"errors"
	"fmt"
	"os"
	"path"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxLinks is how many symbolic links a path may lead over, as in the kernel.
const maxLinks = 40

// command is a file that was opened as the user.
type command struct {
	fd   int
	path string // as it was given, or PATH's element and the name
	dev  uint64
	ino  uint64
}

// find opens what o.Argv[0] names: a path, or a name that is looked for in the job's PATH. Elements of PATH that are
// not absolute are passed over.
func find(o *Order) (*command, error) {
	name := o.Argv[0]
	if strings.Contains(name, "/") {
		return open(o, name)
	}
	if name == "" {
		return nil, unix.ENOENT
	}
	var first error
	for _, dir := range strings.Split(lookup(o.Env, "PATH"), ":") {
		if !strings.HasPrefix(dir, "/") {
			continue
		}
		c, err := open(o, path.Join(dir, name))
		if err == nil {
			return c, nil
		}
		if first == nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) {
			first = err // like execvp: what is there but may not be run is the better answer
		}
	}
	if first != nil {
		return nil, first
	}
	return nil, fmt.Errorf("%q is not in PATH: %w", name, unix.ENOENT)
}

func lookup(env []string, name string) string {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

// open opens a command for execution, as the user, element by element, and says no when somebody other than root and
// the user could have put it there or could change it: the file, every directory and every symbolic link on the way
// must belong to root or the user, and files and directories must not be writable by others. Writable by the group
// counts as that, unless the group is root's or the user's own one (account.OwnGroup). A directory with the sticky
// bit may be writable: nobody can replace in it what belongs to root or the user.
func open(o *Order, name string) (*command, error) {
	fail := func(err error) (*command, error) { return nil, &os.PathError{Op: "open", Path: name, Err: err} }
	full := name
	if !strings.HasPrefix(name, "/") {
		cwd, err := os.Getwd()
		if err != nil {
			return fail(err)
		}
		full = cwd + "/" + name
	}
	w := walker{trust: trust{o}, at: -1}
	defer w.close()
	st, err := w.walk(full)
	if err != nil {
		return fail(err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return fail(fmt.Errorf("not a regular file: %w", unix.EACCES))
	}
	// The user's real and effective ids are the same by now, and access follows the link to the very file.
	if err := unix.Access("/proc/self/fd/"+strconv.Itoa(w.at), unix.X_OK); err != nil {
		return fail(fmt.Errorf("not executable: %w", err))
	}
	if p := o.Pin; p != nil && *p != *PinOf(st) {
		return fail(fmt.Errorf("not the file that was allowed: %w", unix.EACCES))
	}
	c := &command{fd: w.at, path: name, dev: uint64(st.Dev), ino: st.Ino}
	w.at = -1
	return c, nil
}

// PinOf names the state of a file that st was read from.
func PinOf(st *unix.Stat_t) *Pin {
	return &Pin{Dev: uint64(st.Dev), Ino: st.Ino, Size: st.Size, CTime: int64(st.Ctim.Sec), CNsec: int64(st.Ctim.Nsec)}
}

// trust says whose files may be run.
type trust struct{ *Order }

func (t trust) check(st *unix.Stat_t) error {
	switch kind := st.Mode & unix.S_IFMT; {
	case st.Uid != 0 && st.Uid != t.Account.UID:
		return fmt.Errorf("it belongs to uid %d, neither root nor %q: %w", st.Uid, t.Account.Name, unix.EPERM)
	case kind == unix.S_IFLNK:
		return nil // its mode means nothing
	case kind == unix.S_IFDIR && st.Mode&unix.S_ISVTX != 0:
		return nil
	case st.Mode&0o002 != 0:
		return fmt.Errorf("everybody can write it (mode %04o): %w", st.Mode&0o7777, unix.EPERM)
	case st.Mode&0o020 != 0 && st.Gid != 0 && !(t.Account.OwnGroup && st.Gid == t.Account.GID):
		return fmt.Errorf("group %d can write it (mode %04o): %w", st.Gid, st.Mode&0o7777, unix.EPERM)
	}
	return nil
}

// walker goes along a path and looks at each thing it passes.
type walker struct {
	trust trust
	at    int // O_PATH descriptor of where it is; -1: nowhere
	links int
}

func (w *walker) close() {
	if w.at >= 0 {
		_ = unix.Close(w.at)
		w.at = -1
	}
}

func (w *walker) move(fd int) { w.close(); w.at = fd }

// walk ends at what the absolute path names, with its attributes.
func (w *walker) walk(full string) (*unix.Stat_t, error) {
	rest := strings.Split(full, "/")
	st, err := w.root()
	if err != nil {
		return nil, err
	}
	for len(rest) > 0 {
		name := rest[0]
		if rest = rest[1:]; name == "" || name == "." {
			continue
		}
		fd, err := openElement(w.at, name, len(rest) > 0)
		if err != nil {
			return nil, err
		}
		st = new(unix.Stat_t)
		if err = unix.Fstat(fd, st); err == nil {
			err = w.trust.check(st)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%q: %w", name, err), unix.Close(fd))
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			w.move(fd)
			continue
		}
		target, err := readLink(fd)
		if err := errors.Join(err, unix.Close(fd)); err != nil {
			return nil, err
		}
		if w.links++; w.links > maxLinks {
			return nil, unix.ELOOP
		}
		if strings.HasPrefix(target, "/") {
			if st, err = w.root(); err != nil {
				return nil, err
			}
		}
		rest = append(strings.Split(target, "/"), rest...)
	}
	return st, nil
}

func (w *walker) root() (*unix.Stat_t, error) {
	fd, err := unix.Open("/", unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	w.move(fd)
	st := new(unix.Stat_t)
	if err := unix.Fstat(fd, st); err != nil {
		return nil, err
	}
	return st, w.trust.check(st)
}

// openElement opens one name in a directory without following it. A directory is opened as one where more follows:
// only then does the kernel mount what an automounter has for it.
func openElement(dir int, name string, more bool) (int, error) {
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	if more {
		fd, err := unix.Openat(dir, name, flags|unix.O_DIRECTORY, 0)
		if !errors.Is(err, unix.ENOTDIR) {
			return fd, err
		}
	}
	return unix.Openat(dir, name, flags, 0)
}

func readLink(fd int) (string, error) {
	buf := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(fd, "", buf)
	switch {
	case err != nil:
		return "", err
	case n == 0:
		return "", unix.ENOENT
	case n == len(buf):
		return "", unix.ENAMETOOLONG
	}
	return string(buf[:n]), nil
}

// exec turns the process into the command, and returns only the reason why it could not.
func (c *command) exec(o *Order, answer *os.File) error {
	argv, err := pointers(o.Argv)
	if err != nil {
		return err
	}
	env, err := pointers(o.Env)
	if err != nil {
		return err
	}
	empty, err := unix.BytePtrFromString("")
	if err != nil {
		return err
	}
	say(answer, Report{})
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(c.fd), uintptr(unsafe.Pointer(empty)),
		uintptr(unsafe.Pointer(&argv[0])), uintptr(unsafe.Pointer(&env[0])), unix.AT_EMPTY_PATH, 0)
	if errno != unix.ENOENT {
		return errno
	}
	// A file with an interpreter (#!, binfmt_misc): that would be given the descriptor's name, and the descriptor is
	// closed by then. By its path, then, when that still is the same file; only root and the user can change it.
	var st unix.Stat_t
	if err := unix.Stat(c.path, &st); err != nil {
		return err
	}
	if uint64(st.Dev) != c.dev || st.Ino != c.ino {
		return fmt.Errorf("%q is another file now: %w", c.path, unix.EACCES)
	}
	say(answer, Report{ByPath: true})
	if err := syscall.Exec(c.path, o.Argv, o.Env); !errors.Is(err, unix.ENOENT) {
		return err
	}
	return fmt.Errorf("the interpreter of %q does not exist: %w", c.path, unix.ENOENT)
}

func pointers(list []string) ([]*byte, error) {
	p := make([]*byte, len(list)+1)
	for i, s := range list {
		b, err := unix.BytePtrFromString(s)
		if err != nil {
			return nil, err
		}
		p[i] = b
	}
	return p, nil
}
