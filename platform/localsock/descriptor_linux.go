package localsock

import (
	"errors"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

type descriptor struct {
	fd   int      // -1: closed
	file *os.File // that it was made; nil: none
}

func newDescriptor(fd int) *Descriptor { return &Descriptor{descriptor{fd: fd}} }

// SyscallConn implements File.
func (d *Descriptor) SyscallConn() (syscall.RawConn, error) {
	if d.file != nil {
		return d.file.SyscallConn()
	}
	return lent{d}, nil
}

func (d *Descriptor) asFile() *os.File {
	if d.file == nil {
		d.file = os.NewFile(uintptr(d.fd), "received")
	}
	return d.file
}

func (d *Descriptor) close() error {
	if d.file != nil {
		return d.file.Close()
	}
	fd := d.fd
	if fd < 0 {
		return os.ErrClosed
	}
	d.fd = -1
	return unix.Close(fd)
}

// lent lends out a descriptor that is no file.
type lent struct{ *Descriptor }

func (l lent) Control(use func(fd uintptr)) error {
	if l.fd < 0 {
		return os.ErrClosed
	}
	use(uintptr(l.fd))
	return nil
}

func (lent) Read(func(uintptr) bool) error  { return errors.ErrUnsupported }
func (lent) Write(func(uintptr) bool) error { return errors.ErrUnsupported }
