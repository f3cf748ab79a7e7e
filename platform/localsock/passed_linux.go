package localsock

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func checkStream(f File, own []string) error {
	return control(f, func(fd int) error {
		kind, err := kindOf(fd)
		switch {
		case err != nil:
			return err
		case kind == unix.S_IFSOCK:
			near, _ := unix.Getsockname(fd) // nil: it has none that would matter
			return notOurs(fd, near, own)
		case kind == unix.S_IFREG, kind == unix.S_IFIFO, kind == unix.S_IFCHR, kind == unix.S_IFBLK:
			return nil
		case kind == unix.S_IFDIR:
			return fmt.Errorf("%w: a directory", ErrKind)
		}
		return fmt.Errorf("%w: neither a file nor a pipe, a socket or a terminal", ErrKind)
	})
}

// kindOf is the type of the file that can be used through fd.
func kindOf(fd int) (kind uint32, err error) {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		return 0, fmt.Errorf("%w: %w", ErrKind, err)
	}
	if flags&unix.O_PATH != 0 {
		return 0, fmt.Errorf("%w: opened without access (O_PATH)", ErrKind)
	}
	// Without asking: a file system in user space (FUSE) or on the network could take for ever to answer.
	var st unix.Statx_t
	if err := unix.Statx(fd, "", unix.AT_EMPTY_PATH|unix.AT_STATX_DONT_SYNC, unix.STATX_TYPE, &st); err != nil {
		return 0, fmt.Errorf("%w: its type is not known: %w", ErrKind, err)
	}
	return uint32(st.Mode) & unix.S_IFMT, nil
}

// notOurs refuses a socket with one of these names at either end; near is its own name, or nil.
func notOurs(fd int, near unix.Sockaddr, own []string) error {
	far, _ := unix.Getpeername(fd) // nil: it is not connected
	for _, at := range []unix.Sockaddr{near, far} {
		if u, is := at.(*unix.SockaddrUnix); is && u.Name != "" && slices.Contains(own, u.Name) {
			return fmt.Errorf("%w: a socket of this service itself", ErrKind)
		}
	}
	return nil
}

func pack(files []*os.File) (_ *os.File, err error) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("localsock: %w", os.NewSyscallError("socketpair", err))
	}
	defer unix.Close(pair[1])
	err = lend(files, nil, func(fds []int) error {
		return unix.Sendmsg(pair[1], []byte{byte(len(fds))}, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL|unix.MSG_DONTWAIT)
	})
	if err != nil {
		return nil, errors.Join(fmt.Errorf("localsock: the descriptors cannot be passed on: %w", err), unix.Close(pair[0]))
	}
	return os.NewFile(uintptr(pair[0]), "descriptors"), nil
}

type outlet struct {
	file File
	pipe bool
}

func newOutlet(f File, own []string) (*Outlet, error) {
	o := &Outlet{outlet{file: f}}
	err := control(f, func(fd int) error {
		// Nobody who serves a file is asked for any of this.
		if style, none := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); none == nil {
			return isStream(fd, style, own)
		}
		o.pipe = true
		return isPipe(fd)
	})
	if err != nil {
		return nil, err
	}
	return o, nil
}

// fcntl is for questions that the kernel answers at once, so that Go need not be told.
func fcntl(fd, question int) (answer int, err error) {
	n, _, errno := unix.RawSyscall(unix.SYS_FCNTL, uintptr(fd), uintptr(question), 0)
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

// isPipe refuses what is no pipe that can be written to.
func isPipe(fd int) error {
	if _, err := fcntl(fd, unix.F_GETPIPE_SZ); err != nil { // only a pipe has such a size; with O_PATH it has none either
		return fmt.Errorf("%w: neither a pipe nor a socket", ErrKind)
	}
	flags, err := fcntl(fd, unix.F_GETFL)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKind, err)
	}
	if flags&unix.O_ACCMODE == unix.O_RDONLY {
		return fmt.Errorf("%w: it is open for reading only", ErrKind)
	}
	return nil
}

// isStream refuses a socket that is no end of a Unix stream, or of one that leads to this service.
func isStream(fd, style int, own []string) error {
	var far unix.RawSockaddrUnix
	size := uint32(unsafe.Sizeof(far))
	_, _, none := unix.RawSyscall(unix.SYS_GETPEERNAME, uintptr(fd), uintptr(unsafe.Pointer(&far)), uintptr(unsafe.Pointer(&size)))
	switch {
	case none != 0:
		return fmt.Errorf("%w: a socket that is not connected", ErrKind)
	case far.Family != unix.AF_UNIX || style != unix.SOCK_STREAM:
		return fmt.Errorf("%w: a socket, but not a Unix stream socket", ErrKind)
	case uintptr(size) > unsafe.Sizeof(far.Family): // it has a name
		return notOurs(fd, nil, own)
	}
	return nil
}

func (o *Outlet) await(atMost time.Duration) bool {
	until := time.Now().Add(atMost)
	return control(o.file, func(fd int) error { return awaitRoom(fd, until) }) == nil
}

func awaitRoom(fd int, until time.Time) error {
	for {
		left := max(time.Until(until), 0)
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int((left+time.Millisecond-1)/time.Millisecond))
		if n != 0 || !errors.Is(err, unix.EINTR) && err != nil {
			return err
		}
		if left == 0 {
			return os.ErrDeadlineExceeded
		}
	}
}

// pipeBuf is PIPE_BUF: so much is written as one piece, and moved as one.
const pipeBuf = 4096

func (o *Outlet) write(secret Secret) error {
	err := control(o.file, func(fd int) error {
		if o.pipe {
			return intoPipe(fd, secret.Bytes())
		}
		return intoSocket(fd, secret.Bytes())
	})
	if errors.Is(err, unix.EAGAIN) {
		return ErrNoRoom
	}
	return err
}

// intoPipe writes without waiting for room, whether or not O_NONBLOCK is set: who passed the pipe can clear that, and
// fill the pipe, at any moment.
func intoPipe(fd int, secret []byte) error {
	if len(secret) == 0 {
		return nil
	}
	if len(secret) > pipeBuf {
		return unix.EMSGSIZE
	}
	for {
		const here = -1 // a pipe has no places
		n, err := unix.Pwritev2(fd, [][]byte{secret}, here, unix.RWF_NOWAIT)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return throughPipe(fd, secret) // Linux before 6.4
		case err == nil && n != len(secret):
			return io.ErrShortWrite
		default:
			return err
		}
	}
}

// throughPipe is intoPipe by way of a pipe of our own, whose content the kernel then moves.
func throughPipe(fd int, secret []byte) error {
	var own [2]int
	if err := unix.Pipe2(own[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return os.NewSyscallError("pipe2", err)
	}
	defer unix.Close(own[0])
	defer unix.Close(own[1])
	if n, err := unix.Write(own[1], secret); err != nil || n != len(secret) {
		return errors.Join(io.ErrShortWrite, err)
	}
	for {
		n, err := unix.Splice(own[0], nil, fd, nil, len(secret), unix.SPLICE_F_NONBLOCK|unix.SPLICE_F_MOVE)
		switch {
		case errors.Is(err, unix.EINTR):
		case err != nil:
			return err
		case n != int64(len(secret)):
			return io.ErrShortWrite
		default:
			return nil
		}
	}
}

func intoSocket(fd int, secret []byte) error {
	for sent := false; len(secret) > 0; {
		n, err := unix.SendmsgN(fd, secret, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		switch {
		case errors.Is(err, unix.EINTR):
		case sent && errors.Is(err, unix.EAGAIN):
			return io.ErrShortWrite
		case err != nil:
			return err
		default:
			secret, sent = secret[n:], true
		}
	}
	return nil
}

func move(to, pipe *os.File) (moved int64, err error) {
	err = control(pipe, func(from int) error {
		return control(to, func(fd int) error {
			for {
				n, err := unix.Splice(from, nil, fd, nil, 1<<16, unix.SPLICE_F_MOVE)
				switch {
				case errors.Is(err, unix.EINTR):
				case errors.Is(err, unix.EAGAIN): // one of them does not block
					ready := []unix.PollFd{{Fd: int32(from), Events: unix.POLLIN}}
					if _, err := unix.Poll(ready, -1); err != nil && !errors.Is(err, unix.EINTR) {
						return err
					}
					if err := awaitRoom(fd, time.Now().Add(time.Hour)); err != nil {
						return err
					}
				case err != nil:
					return err
				case n == 0:
					return nil
				default:
					moved += n
				}
			}
		})
	})
	// A file that is appended to, and some devices, take nothing from a pipe.
	if errors.Is(err, unix.EINVAL) {
		rest, err := moveByHand(to, pipe)
		return moved + rest, err
	}
	return moved, err
}

// control lends out the descriptor, which stays open meanwhile, without changing its flags.
func control(f File, use func(fd int) error) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	outer := rc.Control(func(fd uintptr) { inner = use(int(fd)) })
	return errors.Join(outer, inner)
}
