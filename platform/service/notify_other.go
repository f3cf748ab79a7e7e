//go:build !linux

package service

import (
	"errors"
	"fmt"
	"net"
)

func reloading() string { return "RELOADING=1" }

func sockets(int) (map[string]*net.UnixListener, error) {
	return nil, fmt.Errorf("service: sockets from a service manager: %w", errors.ErrUnsupported)
}
