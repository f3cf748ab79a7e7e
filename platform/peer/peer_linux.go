package peer

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// overflowID is what the kernel shows for a user or group that our user namespace has no number for.
const overflowID = 65534

func of(c *net.UnixConn) (p Peer, err error) {
	err = control(c, func(fd int) error {
		p, err = ofSocket(fd)
		return err
	})
	return p, wrap(err)
}

func accepted(c syscall.Conn, path string) (p Peer, err error) {
	err = control(c, func(fd int) error {
		if err := isAccepted(fd, path); err != nil {
			return err
		}
		p, err = ofSocket(fd)
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
		return running(fd, p)
	}) == nil
}

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("peer: %w", err)
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
	not := func(format string, args ...any) error {
		return fmt.Errorf("%w: %s", ErrNotAccepted, fmt.Sprintf(format, args...))
	}
	// The domain first: the questions after it mean something else for other kinds of socket, or hang on a device.
	domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return not("not a socket: %v", err)
	}
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return err
	}
	if domain != unix.AF_UNIX || kind != unix.SOCK_STREAM {
		return not("domain %d, type %d", domain, kind)
	}
	switch listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); {
	case err != nil:
		return err
	case listening != 0:
		return not("it listens")
	}
	local, err := boundTo(unix.SYS_GETSOCKNAME, fd)
	if err != nil {
		return err
	}
	if local != path || path == "" {
		return not("it is bound to %q", local)
	}
	remote, err := boundTo(unix.SYS_GETPEERNAME, fd)
	if err != nil {
		return not("%v", err)
	}
	// A client that has bound its own end to a name is refused with those that connected out: it looks the same.
	if remote != "" {
		return not("its other end is bound to %q", remote)
	}
	return nil
}

// boundTo asks for one of the two names of a Unix socket: its path, an abstract name with its leading NUL, or "" when
// it has none. Package unix returns the same for no name and for some abstract ones.
func boundTo(call uintptr, fd int) (string, error) {
	var sa unix.RawSockaddrUnix
	size := uint32(unsafe.Sizeof(sa))
	if _, _, errno := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size))); errno != 0 {
		return "", errno
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

func ofSocket(fd int) (Peer, error) {
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
	p := Peer{PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid, Groups: slices.Compact(groups)}
	if err := running(fd, p); err != nil {
		return Peer{}, err
	}
	return p, nil
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

// running says whether the process that made the connection runs.
func running(fd int, p Peer) error {
	pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	switch {
	case err == nil:
		defer unix.Close(pidfd)
		return runs(pidfd)
	case !errors.Is(err, unix.ENOPROTOOPT):
		return fmt.Errorf("%w: SO_PEERPIDFD: %w", ErrGone, err)
	}
	return runsOld(p)
}

// runs polls a pidfd, which becomes readable when its process has ended.
func runs(pidfd int) error {
	for {
		fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return os.NewSyscallError("poll", err)
		case n != 0:
			return ErrGone
		}
		return nil
	}
}

// runsOld is for kernels before 6.5: the number is not pinned, so that somebody else may have it by now; that it is
// the same user's is all that can be seen.
func runsOld(p Peer) error {
	pidfd, err := unix.PidfdOpen(p.PID, 0)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	defer unix.Close(pidfd)
	status, err := os.ReadFile("/proc/" + strconv.Itoa(p.PID) + "/status")
	if err != nil {
		return fmt.Errorf("%w: %w", ErrGone, err)
	}
	if uids := fields(status, "Uid:"); len(uids) != 4 || !slices.Contains(uids, strconv.FormatUint(uint64(p.UID), 10)) {
		return fmt.Errorf("%w: its number is another user's now", ErrGone)
	}
	return runs(pidfd)
}

// fields returns what follows key in a file like /proc/PID/status.
func fields(status []byte, key string) (values []string) {
	for line := range bytes.Lines(status) {
		if rest, ok := bytes.CutPrefix(line, []byte(key)); ok {
			for _, f := range bytes.Fields(rest) {
				values = append(values, string(f))
			}
			return values
		}
	}
	return nil
}
