package hostkey

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// pollable returns a second descriptor of the same pipe on which a read can have a deadline.
func pollable(f *os.File) (*os.File, error) {
	c, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var inside error
	outside := c.Control(func(old uintptr) {
		if fd, inside = unix.FcntlInt(old, unix.F_DUPFD_CLOEXEC, 3); inside == nil {
			inside = unix.SetNonblock(fd, true)
		}
	})
	if err := errors.Join(outside, inside); err != nil {
		if fd >= 0 {
			err = errors.Join(err, unix.Close(fd))
		}
		return nil, err
	}
	return os.NewFile(uintptr(fd), f.Name()), nil
}
