package localsock

import (
	"errors"
	"io"
	"os"
	"time"
)

// ErrKind reports that a descriptor is not of a kind that is accepted.
var ErrKind = errors.New("not a descriptor that can be taken")

// CheckStream says whether a program may have the descriptor as its stdin, stdout or stderr: it is a file, a pipe, a
// socket, a terminal or another device. A directory, one without access (O_PATH), one of the kernel's other objects,
// and a socket that is bound or connected to one of the names in own are not: such an error wraps ErrKind. Nobody who
// serves the file is asked, so nobody can hold the caller up.
func CheckStream(f File, own ...string) error { return checkStream(f, own) }

// Pack puts the descriptors into a socket: who receives from it has them, and nobody before, whoever has the socket
// open. They come with one octet. The files stay the caller's, and may be closed.
func Pack(files ...*os.File) (*os.File, error) { return pack(files) }

// Outlet is a pipe or a Unix stream socket that somebody passed to be given a secret. No call on it waits for the
// other end, whatever that does meanwhile with the descriptor or with its flags.
type Outlet struct {
	//lint:ignore U1000 Only Linux gives out secrets like this.
	outlet
}

// NewOutlet says what kind of descriptor f is; an error wraps ErrKind. A socket that is not connected is none, nor is one
// that is connected to one of the names in own: what is written to it would be read there. The file stays the caller's.
func NewOutlet(f File, own ...string) (*Outlet, error) { return newOutlet(f, own) }

// ErrNoRoom reports that nothing of a secret has been written, as nobody has read what is before it.
var ErrNoRoom = errors.New("nobody has read from it, and there is no room")

// Await waits until Write has something to say, but not longer than that, and reports whether it has.
func (o *Outlet) Await(atMost time.Duration) bool { return o.await(atMost) }

// Write writes all of the secret by write(2) straight from where it lies, or fails at once. Where that is for want of
// room, and nothing was written, the error is ErrNoRoom.
func (o *Outlet) Write(secret Secret) error { return o.write(secret) }

// Move moves what the pipe holds, to its end, to the file, and returns how much that was. Where the system can, it never
// is in this process; else it passes through a buffer that is wiped.
func Move(to, pipe *os.File) (int64, error) { return move(to, pipe) }

// moveByHand is Move through a buffer.
func moveByHand(to, pipe *os.File) (moved int64, err error) {
	var room [4096]byte
	defer func() { room = [len(room)]byte{} }()
	for {
		n, err := pipe.Read(room[:])
		if n > 0 {
			m, err := to.Write(room[:n])
			if moved += int64(m); err != nil {
				return moved, err
			}
		}
		if errors.Is(err, io.EOF) {
			return moved, nil
		}
		if err != nil {
			return moved, err
		}
	}
}
