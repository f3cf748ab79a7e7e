package localsock

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A beginning reads where requests begin, in one system call: an octet with the descriptors that come with it, and what
// there is behind it with those that come there.
type beginning struct {
	conn  syscall.RawConn
	oob   [2][]byte
	to    [2]unix.Iovec
	parts [2]part
	take  func(fd uintptr) bool // try, which is made once
	look  func(fd uintptr)      // count, likewise

	got   int // parts
	tried syscall.Errno
	there int32
}

// part is the kernel's struct mmsghdr.
type part struct {
	unix.Msghdr
	n uint32
	_ [4]byte
}

func newBeginning(c *net.UnixConn, limit int) *beginning {
	conn, err := c.SyscallConn()
	if err != nil { // closed: so say all other calls
		return nil
	}
	b := &beginning{conn: conn, oob: [2][]byte{controlRoom(limit), controlRoom(limit)}}
	b.take, b.look = b.try, b.count
	return b
}

// read is two receives with at least two octets of room, of which the first takes one. Without room for descriptors the
// kernel lets go of them, which is an error like too many.
func (b *beginning) read(data []byte, room bool) (n int, first, later []*Descriptor, err error) {
	for i, to := range [2][]byte{data[:1], data[1:]} {
		b.to[i].Base = &to[0]
		b.to[i].SetLen(len(to))
		p := &b.parts[i]
		*p = part{}
		p.Iov = &b.to[i]
		p.SetIovlen(1)
		if room && len(b.oob[i]) > 0 {
			p.Control = &b.oob[i][0]
			p.SetControllen(len(b.oob[i]))
		}
	}
	err = b.conn.Read(b.take)
	b.to = [2]unix.Iovec{} // it is the caller's
	switch {
	case err != nil:
		return 0, nil, nil, err
	case b.tried != 0:
		return 0, nil, nil, os.NewSyscallError("recvmmsg", b.tried)
	}
	n = int(b.parts[0].n)
	first, err = b.files(0)
	if b.got == 2 {
		var laterErr error
		n += int(b.parts[1].n)
		later, laterErr = b.files(1)
		err = errors.Join(err, laterErr)
	}
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, first, later, err
}

// try receives once, and reports whether that said anything.
func (b *beginning) try(fd uintptr) bool {
	for {
		got, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&b.parts)), uintptr(len(b.parts)), unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC, 0, 0)
		if errno == unix.EINTR {
			continue
		}
		b.got, b.tried = int(got), errno
		return errno != unix.EAGAIN
	}
}

func (b *beginning) files(i int) ([]*Descriptor, error) {
	p := &b.parts[i]
	return received(b.oob[i][:p.Controllen], int(p.Flags))
}

// waiting says whether something has come that was not read yet.
func (b *beginning) waiting() bool {
	b.there = 0
	return b.conn.Control(b.look) == nil && b.there > 0 // a connection that cannot be asked cannot be read either
}

func (b *beginning) count(fd uintptr) {
	_, _, _ = unix.RawSyscall(unix.SYS_IOCTL, fd, unix.TIOCINQ, uintptr(unsafe.Pointer(&b.there)))
}
