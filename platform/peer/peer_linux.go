package peer

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// overflowID is what the kernel shows for a user or group that our user namespace has no number for.
const overflowID = 65534

func of(c *net.UnixConn) (p Peer, err error) {
	err = control(c, func(fd int) error {
		p, err = ofSocket(fd, false)
		return err
	})
	return p, wrap(err)
}

func accepted(c syscall.Conn, path string) (p Peer, err error) {
	err = control(c, func(fd int) error {
		if err := isAccepted(fd, path); err != nil {
			return err
		}
		p, err = ofSocket(fd, false)
		return err
	})
	return p, wrap(err)
}

func (p Peer) alive(c syscall.Conn) bool {
	return control(c, func(fd int) error {
		now, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil || int(now.Pid) != p.PID || now.Uid != p.UID {
			return ErrGone
		}
		_, err = running(fd, p, false)
		return err
	}) == nil
}

func control(c syscall.Conn, f func(fd int) error) error {
	rc, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := rc.Control(func(fd uintptr) { inner = f(int(fd)) }); err != nil {
		return err
	}
	return inner
}

func isAccepted(fd int, path string) error {
	remote, err := acceptedFrom(fd, path)
	// A client that has bound its own end to a name is refused with those that connected out: it looks the same.
	if err == nil && remote != "" {
		err = notAccepted("its other end is bound to %q", remote)
	}
	return err
}

// isNamed is isAccepted where the other end has to be bound to an abstract name, which it returns.
func isNamed(fd int, path string) (name string, err error) {
	remote, err := acceptedFrom(fd, path)
	// Who connected out to a path has that as its other end's name; whoever bound ours to do so is seen below.
	if err == nil && !strings.HasPrefix(remote, "\x00") {
		err = notAccepted("its other end is bound to %q, which is not an abstract name", remote)
	}
	return remote, err
}

// acceptedFrom returns the name that the other end is bound to, "" for none.
func acceptedFrom(fd int, path string) (remote string, err error) {
	local, err := boundTo(unix.SYS_GETSOCKNAME, fd)
	if err != nil {
		return "", notAccepted("%v", err)
	}
	if local != path || path == "" {
		return "", notAccepted("it is bound to %q", local)
	}
	if kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil || kind != unix.SOCK_STREAM {
		return "", notAccepted("type %d, %v", kind, err)
	}
	remote, err = boundTo(unix.SYS_GETPEERNAME, fd)
	switch {
	case errors.Is(err, unix.ENOTCONN):
		return "", notAccepted("it listens, or is not connected")
	case err != nil:
		return "", notAccepted("%v", err)
	}
	if uid, known := binder(fd); known && uid != 0 && uid != uint32(os.Geteuid()) {
		return "", notAccepted("the file that it is bound to belongs to uid %d", uid)
	}
	return remote, nil
}

func notAccepted(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrNotAccepted, fmt.Sprintf(format, args...))
}

// binder is the owner of the file that a Unix socket is bound to, in whatever file system: the daemon can make a user
// and a mount namespace and bind our path there, but the file will be its own. A file that is gone still has its owner:
// sockets of an earlier launcher's count. known is false without CAP_NET_ADMIN.
func binder(fd int) (uid uint32, known bool) {
	file, err := unix.IoctlRetInt(fd, siocUnixFile)
	if err != nil {
		return 0, false
	}
	defer unix.Close(file)
	var st unix.Stat_t
	if err := unix.Fstat(file, &st); err != nil {
		return 0, false
	}
	return st.Uid, true
}

// siocUnixFile is SIOCUNIXFILE, which opens the file that a socket is bound to, as a path only.
const siocUnixFile = 0x89e0

// boundTo asks for one of the two names of a Unix socket: its path, an abstract name with its leading NUL, or "" when
// it has none. Package unix returns the same for no name and for some abstract ones.
func boundTo(call uintptr, fd int) (string, error) {
	var sa unix.RawSockaddrUnix
	size := uint32(unsafe.Sizeof(sa))
	if _, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size))); errno != 0 {
		return "", errno
	}
	if sa.Family != unix.AF_UNIX {
		return "", fmt.Errorf("address family %d", sa.Family)
	}
	used := int(size) - int(unsafe.Offsetof(sa.Path))
	if used <= 0 {
		return "", nil
	}
	name := make([]byte, 0, len(sa.Path))
	for _, c := range sa.Path[:min(used, len(sa.Path))] {
		if c == 0 && len(name) > 0 && name[0] != 0 {
			break
		}
		name = append(name, byte(c))
	}
	return string(name), nil
}

// ofSocket is who made the connection, if that process runs. older is for tests: what is left on kernels that do not
// keep hold of it.
func ofSocket(fd int, older bool) (Peer, error) {
	p, err := credentials(fd)
	if err != nil {
		return Peer{}, err
	}
	if p.Started, err = running(fd, p, older); err != nil {
		return Peer{}, err
	}
	return p, nil
}

// credentials is who made the connection.
func credentials(fd int) (Peer, error) {
	cred, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return Peer{}, os.NewSyscallError("SO_PEERCRED", err)
	}
	// No pid: another pid namespace. 65534: a user that this namespace cannot name; all of them look the same.
	if cred.Pid <= 0 || cred.Uid == overflowID || int32(cred.Uid) == -1 {
		return Peer{}, ErrForeign
	}
	groups, err := peerGroups(fd)
	if err != nil {
		return Peer{}, err
	}
	groups = append(groups, cred.Gid)
	slices.Sort(groups)
	return Peer{PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid, Groups: slices.Compact(groups)}, nil
}

func peerGroups(fd int) ([]uint32, error) {
	size := uint32(64 * 4)
	for range 3 {
		groups := make([]uint32, max(size/4, 1))
		_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(unsafe.Pointer(&groups[0])), uintptr(unsafe.Pointer(&size)), 0)
		switch errno {
		case 0:
			return groups[:size/4], nil
		case unix.ERANGE: // size now says how much there is; a socket's peer does not change
			continue
		}
		return nil, os.NewSyscallError("SO_PEERGROUPS", errno)
	}
	return nil, os.NewSyscallError("SO_PEERGROUPS", unix.ERANGE)
}

// running says whether the process that made the connection runs, and on older kernels since when.
func running(fd int, p Peer, older bool) (started uint64, err error) {
	process, err := hold(fd, p.PID, older)
	if err != nil {
		return 0, err
	}
	defer process.close()
	if process.pidfd >= 0 {
		return p.Started, process.runs(0)
	}
	// The number is not pinned: a process that came later may have it by now. That it is the same user's is all that
	// can be seen at first; later that it began at the same time.
	if started, err = process.started(); err != nil {
		return 0, err
	}
	if p.Started != 0 && p.Started != started {
		return 0, fmt.Errorf("%w: its number is another process's now", ErrGone)
	}
	status, err := process.read("status")
	if err != nil {
		return 0, err
	}
	if uids := numbers(status, "Uid:"); len(uids) != 4 || !slices.Contains(uids, p.UID) {
		return 0, fmt.Errorf("%w: its number is another user's now", ErrGone)
	}
	return started, process.runs(started)
}
