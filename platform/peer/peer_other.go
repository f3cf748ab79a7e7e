//go:build !linux && !windows

package peer

import (
	"errors"
	"fmt"
	"net"
	"syscall"
)

var errUnsupported = fmt.Errorf("peer: this system's callers cannot be identified yet: %w", errors.ErrUnsupported)

func of(*net.UnixConn) (Peer, error) { return Peer{}, errUnsupported }

func accepted(syscall.Conn, string) (Peer, error) { return Peer{}, errUnsupported }

func (Peer) alive(syscall.Conn) bool { return false }
