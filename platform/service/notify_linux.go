package service

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

func reloading() string {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return "RELOADING=1" // which older service managers are content with
	}
	return fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d", t.Nano()/1000)
}

// firstSocket is the first descriptor that a service manager passes.
const firstSocket = 3

func sockets(n int) (found map[string]*net.UnixListener, err error) {
	found = map[string]*net.UnixListener{}
	for fd := firstSocket; fd < firstSocket+n; fd++ {
		unix.CloseOnExec(fd)
		l, e := listener(os.NewFile(uintptr(fd), "passed"))
		if e != nil {
			err = errors.Join(err, fmt.Errorf("service: descriptor %d: %w", fd, e))
			continue
		}
		found[l.Addr().String()] = l
	}
	return found, err
}

// listener takes the file over.
func listener(f *os.File) (*net.UnixListener, error) {
	l, err := net.FileListener(f)
	if err := errors.Join(err, f.Close()); err != nil {
		if l != nil {
			err = errors.Join(err, l.Close())
		}
		return nil, err
	}
	u, ok := l.(*net.UnixListener)
	if !ok {
		return nil, errors.Join(errors.New("it is not a Unix socket"), l.Close())
	}
	u.SetUnlinkOnClose(false) // it is the service manager's
	return u, nil
}
