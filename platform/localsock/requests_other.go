//go:build !linux

package localsock

import (
	"net"
	"os"
	"syscall"
)

// receive reads; descriptors do not travel here.
func receive(c *net.UnixConn, data, _ []byte) (int, []*Descriptor, error) {
	n, err := c.Read(data)
	return n, nil, err
}

// beginning is of systems where descriptors travel.
type beginning struct{}

func newBeginning(*net.UnixConn, int) *beginning { return nil }

func (*beginning) read([]byte, bool) (n int, first, later []*Descriptor, err error) {
	return 0, nil, nil, errUnsupported
}

func (*beginning) waiting() bool { return false }

type descriptor struct{}

// SyscallConn implements File.
func (*Descriptor) SyscallConn() (syscall.RawConn, error) { return nil, errUnsupported }

func (*Descriptor) asFile() *os.File { return nil }

func (*Descriptor) close() error { return errUnsupported }
