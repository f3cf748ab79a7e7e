package localsock

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

func listenWith(path string, o Options) (*net.UnixListener, error) {
	fail := func(err error) (*net.UnixListener, error) {
		return nil, fmt.Errorf("localsock: listen %q: %w", path, err)
	}
	if err := checkDir(filepath.Dir(path)); err != nil {
		return fail(err)
	}
	if err := clear(path, o.Replace); err != nil {
		return fail(err)
	}
	// The mode of a socket's file is that of the descriptor before bind, less the umask: nobody but us can connect
	// until the mode is widened below.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var inside error
		outside := c.Control(func(fd uintptr) { inside = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(outside, inside)
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return fail(err)
	}
	ul := l.(*net.UnixListener)
	ul.SetUnlinkOnClose(false)
	if o.GID >= 0 {
		if err := os.Lchown(path, -1, o.GID); err != nil {
			return fail(errors.Join(err, ul.Close(), os.Remove(path)))
		}
	}
	if err := os.Chmod(path, o.Mode.Perm()); err != nil {
		return fail(errors.Join(err, ul.Close(), os.Remove(path)))
	}
	return ul, nil
}

// clear removes a socket that is in the way.
func clear(path string, replace bool) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode().Type() != fs.ModeSocket:
		return errors.New("something that is not a socket is there")
	}
	if !replace {
		c, err := net.DialTimeout("unix", path, 5*time.Second)
		if err == nil {
			return errors.Join(ErrInUse, c.Close())
		}
		if !errors.Is(err, unix.ECONNREFUSED) {
			return fmt.Errorf("%w, or cannot be asked: %w", ErrInUse, err)
		}
	}
	return os.Remove(path)
}

func makeDir(dir string, mode fs.FileMode, gid int) error {
	fail := func(err error) error { return fmt.Errorf("localsock: directory %q: %w", dir, err) }
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return fail(err)
	}
	switch err := os.Mkdir(dir, 0o700); {
	case errors.Is(err, fs.ErrExist):
		if err := checkDir(dir); err != nil {
			return fail(err)
		}
		return nil // whoever made it, perhaps for more than our socket, chose its mode
	case err != nil:
		return fail(err)
	}
	// The group first: a wider mode must not hold for the old group.
	if gid >= 0 {
		if err := os.Lchown(dir, -1, gid); err != nil {
			return fail(err)
		}
	}
	if err := os.Chmod(dir, mode.Perm()); err != nil {
		return fail(err)
	}
	return nil
}

// checkDir says whether only root and we can put something into dir.
func checkDir(dir string) error {
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return &fs.PathError{Op: "stat", Path: dir, Err: err}
	}
	return checkDirStat(dir, &st, 0, uint32(os.Geteuid()))
}

func checkDirStat(dir string, st *unix.Stat_t, owners ...uint32) error {
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return &fs.PathError{Op: "open", Path: dir, Err: unix.ENOTDIR}
	case !among(st.Uid, owners):
		return fmt.Errorf("%w: the directory %q belongs to uid %d", ErrOwner, dir, st.Uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%w: the directory %q is writable by others (mode %04o)", ErrOwner, dir, st.Mode&0o7777)
	}
	return nil
}

func among(uid uint32, owners []uint32) bool {
	for _, o := range owners {
		if uid == o {
			return true
		}
	}
	return false
}

func fromFile(f *os.File) (*net.UnixListener, error) {
	l, err := net.FileListener(f)
	if err := errors.Join(err, f.Close()); err != nil {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
		return nil, fmt.Errorf("localsock: the socket that was handed over: %w", err)
	}
	ul, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(errors.New("localsock: the socket that was handed over is not a Unix socket"), l.Close())
	}
	ul.SetUnlinkOnClose(false)
	return ul, nil
}

func dial(ctx context.Context, path string, owners ...uint32) (*net.UnixConn, error) {
	fail := func(err error) (*net.UnixConn, error) {
		return nil, fmt.Errorf("localsock: dial %q: %w", path, err)
	}
	fd, err := find(path, owners)
	if err != nil {
		return fail(err)
	}
	defer unix.Close(fd)
	var d net.Dialer
	c, err := d.DialContext(ctx, "unix", "/proc/self/fd/"+strconv.Itoa(fd))
	if err != nil {
		// The dialler would name the descriptor's path, which says nothing to anybody.
		if opErr, ok := errors.AsType[*net.OpError](err); ok {
			err = opErr.Err
		}
		return fail(err)
	}
	return c.(*net.UnixConn), nil
}

func check(path string) error {
	fd, err := find(path, []uint32{0})
	if err == nil {
		err = unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("localsock: %q: %w", path, err)
	}
	return nil
}

// find opens the socket itself, as a place and not as a connection, once it and its directory are seen to be one of
// the owners'.
func find(path string, owners []uint32) (fd int, err error) {
	dir, name := filepath.Split(filepath.Clean(path))
	if name == "" || name == "." || name == ".." {
		return -1, unix.EINVAL
	}
	if dir == "" {
		dir = "."
	}
	dirfd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(dirfd)
	var st unix.Stat_t
	if err := unix.Fstat(dirfd, &st); err != nil {
		return -1, err
	}
	if err := checkDirStat(dir, &st, owners...); err != nil {
		return -1, err
	}
	fd, err = unix.Openat(dirfd, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	err = unix.Fstat(fd, &st)
	switch {
	case err != nil:
	case st.Mode&unix.S_IFMT != unix.S_IFSOCK:
		err = errors.New("not a socket")
	case !among(st.Uid, owners):
		err = fmt.Errorf("%w: the socket belongs to uid %d", ErrOwner, st.Uid)
	}
	if err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func dup(c syscall.Conn, name string) (*os.File, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var dupErr error
	if err := rc.Control(func(old uintptr) { fd, dupErr = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, fmt.Errorf("localsock: duplicate %s: %w", name, dupErr)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// sendFiles sends data, or the first part of it, with the descriptors, and returns how much went.
func sendFiles(c *net.UnixConn, data []byte, files []syscall.Conn) (n int, err error) {
	err = lend(files, nil, func(fds []int) (err error) {
		n, _, err = c.WriteMsgUnix(data, unix.UnixRights(fds...), nil)
		return err
	})
	return n, err
}

// lend lends out the descriptors of all files, after those in fds. Nobody can close them meanwhile, and turn their
// numbers into other files.
func lend[F File](files []F, fds []int, use func(fds []int) error) error {
	if len(files) == 0 {
		return use(fds)
	}
	return control(files[0], func(fd int) error { return lend(files[1:], append(fds, fd), use) })
}

// controlRoom is the room for so many descriptors that come at once, and perhaps for one more.
func controlRoom(files int) []byte { return make([]byte, unix.CmsgSpace(4*files)) }

// receiveFiles reads up to len(data) octets and at most limit descriptors that came with them, or one more.
func receiveFiles(c *net.UnixConn, data []byte, limit int) (n int, files []*os.File, err error) {
	n, descriptors, err := receive(c, data, controlRoom(limit))
	for _, d := range descriptors {
		files = append(files, d.File())
	}
	return n, files, err
}

// receive reads up to len(data) octets and as many descriptors that came with them as oob has room for. More are an
// error, with those that had room.
func receive(c *net.UnixConn, data, oob []byte) (n int, files []*Descriptor, err error) {
	n, oobn, flags, _, err := c.ReadMsgUnix(data, oob)
	n = max(n, 0) // it is the system call's -1 on an error, and no reader may return that
	if n == 0 && len(data) > 0 && (err == nil || errors.Is(err, io.EOF)) {
		err = io.EOF // itself, as any reader's
	}
	files, fileErr := received(oob[:oobn], flags)
	if err == nil {
		err = fileErr
	}
	return n, files, err
}

// received are the descriptors that came with a message. More than there was room for are an error.
func received(oob []byte, flags int) (files []*Descriptor, err error) {
	for len(oob) > 0 {
		var h unix.Cmsghdr
		var data []byte
		if h, data, oob, err = unix.ParseOneSocketControlMessage(oob); err != nil {
			return files, fmt.Errorf("%w: %w", ErrFrame, err)
		}
		if h.Level != unix.SOL_SOCKET || h.Type != unix.SCM_RIGHTS {
			continue // credentials or something else that carries no descriptor
		}
		for ; len(data) >= 4; data = data[4:] {
			files = append(files, newDescriptor(int(int32(binary.NativeEndian.Uint32(data)))))
		}
	}
	if flags&unix.MSG_CTRUNC != 0 {
		return files, fmt.Errorf("%w: more descriptors than may come", ErrFrame)
	}
	return files, nil
}
