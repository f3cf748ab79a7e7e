package launch

import (
	"context"
	"errors"
	"net"

	"batchwarden/platform/localsock"
)

// SystemdSocket returns the listening socket that the launcher bound for systemd to fetch credentials from. It is the
// caller's, and good for as long as the session: a new launcher binds a new one.
func (l *Launcher) SystemdSocket(ctx context.Context) (*net.UnixListener, error) {
	_, files, err := l.call(ctx, Request{Call: CallSystemd})
	if err != nil {
		return nil, err
	}
	if len(files) != 1 {
		closeFiles(files)
		return nil, errors.New("launch: the launcher sent no socket for systemd")
	}
	return localsock.FromFile(files[0])
}
