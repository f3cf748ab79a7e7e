package peer

import (
	"net"
	"sync/atomic"
)

// Connection is a connection that was accepted, and who made it. It keeps no descriptor but the connection's own.
type Connection struct {
	*net.UnixConn
	Peer

	// Memo is what the one who serves the connection has found out about the peer. It is gone with the connection.
	Memo atomic.Value
}

// Connected says who made c, which must be running. Errors mean that nothing is known about the peer: deny.
func Connected(c *net.UnixConn) (*Connection, error) {
	p, err := Of(c)
	if err != nil {
		return nil, err
	}
	return &Connection{UnixConn: c, Peer: p}, nil
}

// Alive reports whether the process that made the connection still runs.
func (c *Connection) Alive() bool { return c.Peer.Alive(c.UnixConn) }
