package keeper

import (
	"net"
	"os"
	"path/filepath"

	"batchwarden/platform/launch"
	"batchwarden/platform/localsock"
)

// listenForSystemd binds the socket that systemd connects to for credentials, if there is to be one. Only root can
// connect to it.
func (k *keeper) listenForSystemd(passed map[string]*net.UnixListener) error {
	if k.SystemdSocket == "" {
		return nil
	}
	if k.systemd = take(passed, k.SystemdSocket); k.systemd != nil {
		return nil
	}
	if err := localsock.MakeDir(filepath.Dir(k.SystemdSocket), 0o755, -1); err != nil {
		return err
	}
	l, err := localsock.ListenWith(k.SystemdSocket, localsock.Options{Mode: 0o600, GID: -1, Replace: true})
	if err != nil {
		return err
	}
	k.systemd = l
	return nil
}

// giveSystemd returns that socket, for the daemon to serve.
func (k *keeper) giveSystemd() (*os.File, error) {
	if k.systemd == nil {
		return nil, &launch.Refused{Code: launch.CodeInvalid, Reason: "the launcher was not told of a systemd_socket; it reads its configuration when it is started"}
	}
	return localsock.Dup(k.systemd, "systemd's socket")
}
