package safefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

func supported() error { return nil }

// allows tells whether the rules let this user own a file.
func (r *Rules) allows(uid uint32) bool {
	if uid == 0 || r.Self && int64(uid) == int64(os.Geteuid()) {
		return true
	}
	for _, o := range r.Owners {
		if o == uid {
			return true
		}
	}
	return false
}

// whose names the allowed owners for an error.
func (r *Rules) whose() string {
	list := "root's"
	if r.Self && os.Geteuid() != 0 {
		list += " or our own (uid " + strconv.Itoa(os.Geteuid()) + ")"
	}
	for _, o := range r.Owners {
		list += " or uid " + strconv.FormatUint(uint64(o), 10) + "'s"
	}
	return list
}

// check holds owner and permission bits of a file or directory against the rules.
func (r *Rules) check(uid uint32, mode, allowed fs.FileMode) error {
	if !r.allows(uid) {
		return fmt.Errorf("owned by uid %d, must be %s", uid, r.whose())
	}
	if perm := mode.Perm(); perm&0o022 != 0 {
		return fmt.Errorf("mode %04o: others than the owner can write it", perm)
	} else if more := perm &^ allowed; more != 0 {
		return fmt.Errorf("mode %04o: must be %04o or less", perm, allowed)
	}
	return nil
}

func open(path string, r *Rules) (*os.File, error) {
	path = filepath.Clean(path)
	resolved, err := filepath.EvalSymlinks(path)
	if err != nil {
		return nil, err
	}
	info, err := os.Lstat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode()&fs.ModeSymlink != 0 && !r.AnyDir {
		d, err := openDir(filepath.Dir(path), r, 0)
		if err != nil {
			return nil, err
		}
		if err := unix.Close(d); err != nil {
			return nil, err
		}
	}
	dir, err := openDir(filepath.Dir(resolved), r, 0)
	if err != nil {
		return nil, err
	}
	// O_NONBLOCK: a pipe in the place of the file must not hold us up before it is refused.
	fd, err := unix.Openat(dir, filepath.Base(resolved),
		unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err := errors.Join(err, unix.Close(dir)); err != nil {
		return nil, err
	}
	if err := checkFile(fd, r); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), path), nil
}

func checkFile(fd int, r *Rules) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errors.New("not a regular file")
	}
	allowed := r.Mode
	if allowed == 0 {
		allowed = 0o755
	}
	if err := r.check(st.Uid, fs.FileMode(st.Mode&0o777), allowed); err != nil {
		return err
	}
	return unix.SetNonblock(fd, false)
}

// openDir opens dir as a place to look files up in, when the rules allow it.
func openDir(dir string, r *Rules, flags int) (int, error) {
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC|flags, 0)
	if err != nil {
		return -1, fmt.Errorf("directory %q: %w", dir, err)
	}
	if r.AnyDir {
		return fd, nil
	}
	var st unix.Stat_t
	err = unix.Fstat(fd, &st)
	if err == nil {
		err = r.check(st.Uid, fs.FileMode(st.Mode&0o777), 0o777)
	}
	if err != nil {
		return -1, errors.Join(fmt.Errorf("directory %q: %w", dir, err), unix.Close(fd))
	}
	return fd, nil
}

func checkDir(dir string, r *Rules) error {
	fd, err := openDir(dir, r, unix.O_NOFOLLOW)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func syncDir(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// lock locks the directory's own inode, so that a directory that cannot be written can be locked too
// and nobody can replace a lock file.
func lock(dir string) (io.Closer, error) {
	f, err := os.OpenFile(dir, os.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		err = ErrLocked
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
