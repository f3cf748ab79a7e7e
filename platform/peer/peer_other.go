//go:build !linux && !windows

package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
)

var errUnsupported = fmt.Errorf("this system's callers cannot be identified yet: %w", errors.ErrUnsupported)

func of(*net.UnixConn) (Peer, error) { return Peer{}, wrap(errUnsupported) }

func accepted(syscall.Conn, string) (Peer, error) { return Peer{}, wrap(errUnsupported) }

func (Peer) alive(syscall.Conn) bool { return false }

type attestor struct{}

func newAttestor() (*Attestor, error) { return nil, errUnsupported }

func (*attestor) attest(context.Context, syscall.Conn, string, Want) (Attested, error) {
	return Attested{}, errUnsupported
}

type seen struct{}
