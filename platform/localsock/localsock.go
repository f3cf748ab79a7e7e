// Package localsock binds and dials sockets of this machine whose owners are known, and carries bounded frames,
// open files included, over them.
package localsock

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"syscall"
)

// ErrInUse reports that another process answers at the socket's path.
var ErrInUse = errors.New("another process answers there")

// ErrOwner reports that the socket or its directory belongs to, or can be changed by, somebody who could therefore
// stand in for the server.
var ErrOwner = errors.New("not safely owned")

// Options say how a socket is bound.
type Options struct {
	Mode fs.FileMode // of the socket; it is never wider than this, not even for a moment
	GID  int         // the socket's group; -1 leaves the caller's
	// Replace removes whatever socket is there, also one that is answered: for a caller that holds a lock which
	// makes it the rightful owner of the path, while a process it handed the old socket to still listens.
	Replace bool
}

// Listen binds path with this mode and replaces a socket that nobody answers any more. The directory must belong to
// the caller or root and be writable by nobody else. The socket stays in the file system when the listener is closed.
func Listen(path string, mode fs.FileMode) (*net.UnixListener, error) {
	return ListenWith(path, Options{Mode: mode, GID: -1})
}

// ListenWith is Listen with all its choices.
func ListenWith(path string, o Options) (*net.UnixListener, error) { return listenWith(path, o) }

// MakeDir makes the directory of a socket, with its missing parents, this mode and this group (-1: the caller's). One
// that is there stays as it is; it must belong to the caller or root and be writable by nobody else.
func MakeDir(dir string, mode fs.FileMode, gid int) error { return makeDir(dir, mode, gid) }

// FromFile makes a listener of a listening socket that came from another process, and closes f. Closing the listener
// leaves the socket in the file system: it is not ours to remove.
func FromFile(f *os.File) (*net.UnixListener, error) { return fromFile(f) }

// Dial connects to path after it has seen that root owns both the socket and its directory and that nobody else can
// write to the directory; the connection goes to the very socket that was looked at. Errors that mean "somebody else
// could have put it there" wrap ErrOwner.
func Dial(ctx context.Context, path string) (*net.UnixConn, error) { return dial(ctx, path, 0) }

// Check says what Dial would say of the socket's owner and directory, and connects to nothing.
func Check(path string) error { return check(path) }

// DialOwn is Dial for a socket that may belong to root or to the caller itself: for the two halves of one program
// when they run without root.
func DialOwn(ctx context.Context, path string) (*net.UnixConn, error) {
	return dial(ctx, path, 0, uint32(max(os.Geteuid(), 0)))
}

// Secret lends out octets that must not be copied. A *lockmem.Buffer is one; naming it here would bring its package
// into processes that must not contain it.
type Secret interface{ Bytes() []byte }

// WriteSecret writes header and then secret by write(2) straight from where they lie: nothing of the secret is
// copied, buffered or kept. The connection's write deadline bounds it.
func WriteSecret(c *net.UnixConn, header []byte, secret Secret) error {
	// net.Conn's Write hands the slice itself to the kernel, and goes on where a short write ended.
	if _, err := c.Write(header); err != nil {
		return err
	}
	_, err := c.Write(secret.Bytes())
	return err
}

// Dup returns a second descriptor for the same open file or socket, closed on exec, without touching the first one's
// state.
func Dup(c syscall.Conn, name string) (*os.File, error) { return dup(c, name) }
