// Package peer says which process of this machine is at the other end of a Unix socket.
package peer

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

// ErrForeign reports a peer in another pid or user namespace, whose numbers mean nothing here.
var ErrForeign = errors.New("the peer is in another pid or user namespace")

// ErrGone reports that the process that made the connection has ended.
var ErrGone = errors.New("the peer has ended")

// ErrNotAccepted reports a descriptor that is not a connection which our listener accepted.
var ErrNotAccepted = errors.New("not a connection to our socket")

// Peer is the process that made a connection, as it was when it did: a process that was given the socket later does
// not show.
type Peer struct {
	PID    int      `json:"pid"`
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups"` // the supplementary ones and GID, in ascending order, each once
	// Started tells the process from a later one with the same number, in the system's clock ticks since it booted.
	// It is 0 where the kernel keeps hold of the process itself, which Linux does since 6.5, and nobody needed to ask.
	Started uint64 `json:"started,omitempty"`
}

// Of returns the peer of c, which must be running. Errors mean that nothing is known about the peer: deny.
func Of(c *net.UnixConn) (Peer, error) { return of(c) }

// Accepted is Of for a socket that came from a process we do not trust. It is answered only for a connected Unix
// stream socket that the listener bound to path accepted:
//   - a socket that connected out names its listener as peer; its getpeername is not empty;
//   - a socketpair names its maker, and a listener of somebody else the caller of that one; their getsockname is not
//     path;
//   - a listener names who listened;
//   - a socket that somebody else bound to the same path, where he has another file system before him, is somebody
//     else's: the file that it is bound to must belong to our own user or root (seen with CAP_NET_ADMIN alone).
//
// Other sockets give ErrNotAccepted. c's own state stays untouched: the descriptor is shared with its sender.
func Accepted(c syscall.Conn, path string) (Peer, error) { return accepted(c, path) }

// Alive reports whether the process p that made c still runs.
func (p Peer) Alive(c syscall.Conn) bool { return p.alive(c) }

func wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("peer: %w", err)
}
