package keeper

import (
	"context"
	"fmt"
	"net"

	"batchwarden/platform/service"
)

// passedSockets are the listening sockets that the service manager bound for us, by their paths.
func (k *keeper) passedSockets() map[string]*net.UnixListener {
	passed, err := service.Sockets()
	if err != nil {
		k.Log.Error("what the service manager passed is not all used", "err", err)
	}
	return passed
}

// take takes the socket of that path out of passed, nil when it is not there.
func take(passed map[string]*net.UnixListener, path string) *net.UnixListener {
	l := passed[path]
	delete(passed, path)
	return l
}

// closeUnused closes what the configuration knows nothing of.
func (k *keeper) closeUnused(passed map[string]*net.UnixListener) {
	for path, l := range passed {
		k.Log.Warn("the service manager passed a socket that the configuration does not name; it is not served", "socket", path, "configured", k.PublicSocket)
		_ = l.Close() // nobody was accepted
	}
}

// tell tells the service manager; that it does not hear it changes nothing here.
func (k *keeper) tell(states ...string) {
	if err := service.Notify(states...); err != nil {
		k.Log.Error("the service manager was not told", "err", err)
	}
}

// alive looks whether the launcher still answers: the way of every request leads through what state takes.
func (k *keeper) alive(context.Context) (status string, err error) {
	running := k.state().Running
	k.mu.Lock()
	connected := k.session != nil
	k.mu.Unlock()
	if !connected {
		return fmt.Sprintf("%d jobs running; batchwardend is not connected", running), nil
	}
	return fmt.Sprintf("%d jobs running", running), nil
}
