package hostkey

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// usualTPM is the kernel's resource manager: it keeps what we load apart from what others do.
const usualTPM = "/dev/tpmrm0"

const (
	maxAnswer = 4096 // what the kernel's driver has room for, too
	busTime   = 30 * time.Second
)

// bus is a way to a TPM: a command is written, its answer is read. It implements transport.TPMCloser.
type bus struct {
	io.ReadWriteCloser
	answer [maxAnswer]byte
}

func (p Places) openTPM() (*bus, error) {
	where := p.TPM
	if where == "" {
		where = usualTPM
	}
	if path, is := strings.CutPrefix(where, "unix:"); is {
		c, err := net.DialTimeout("unix", path, busTime)
		if err != nil {
			return nil, fmt.Errorf("TPM: %w", err)
		}
		if err := c.SetDeadline(time.Now().Add(busTime)); err != nil {
			return nil, errors.Join(err, c.Close())
		}
		return &bus{ReadWriteCloser: c}, nil
	}
	// Not os.OpenFile: it would not block, and the driver answers a read that comes too early with nothing.
	fd, err := unix.Open(where, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NOCTTY, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		// Not wrapped: it is not the key that does not exist.
		return nil, fmt.Errorf("this machine has no TPM 2.0 that the kernel knows: %q: %v", where, err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("%q: %w: the service's user has to be in the group of that device, commonly tss", where, err)
	case err != nil:
		return nil, fmt.Errorf("%q: %w", where, err)
	}
	return &bus{ReadWriteCloser: os.NewFile(uintptr(fd), where)}, nil
}

// Send sends a command and returns its answer, which is overwritten by the next.
func (b *bus) Send(command []byte) ([]byte, error) {
	if _, err := b.Write(command); err != nil {
		return nil, err
	}
	// A tag, the length of all, and a code begin every answer.
	for n := 0; ; {
		m, err := b.Read(b.answer[n:])
		n += m
		switch size := b.size(n); {
		case size > maxAnswer || size > 0 && n > size:
			return nil, fmt.Errorf("the answer is of %d octets and says %d", n, size)
		case size > 0 && n == size:
			return b.answer[:n], nil
		case err != nil:
			return nil, fmt.Errorf("the answer ends after %d octets: %w", n, err)
		}
	}
}

// size is how long the answer is of which n octets are there; 0: not known yet.
func (b *bus) size(n int) int {
	if n < 10 {
		return 0
	}
	return int(binary.BigEndian.Uint32(b.answer[2:]))
}

// Close ends it and wipes the last answer.
func (b *bus) Close() error {
	clear(b.answer[:])
	return b.ReadWriteCloser.Close()
}
