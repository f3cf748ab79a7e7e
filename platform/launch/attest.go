package launch

import (
	"context"
	"errors"
	"net"

	"batchwarden/platform/peer"
)

// Attest asks the launcher, which may look at every process, who made conn: a connection that the public socket
// accepted, or with want.Named the one that SystemdSocket returned, and whose other end still runs. The answer holds for as long as that process is the one behind conn and
// executes no other program; see peer.Attestor.
//
// A Refused of CodeUnavailable says that there is no launcher to ask: then nothing is known but what peer.Of says. One
// of CodeOverloaded says to ask again. Every other error is about the peer: deny it everything.
func (l *Launcher) Attest(ctx context.Context, conn *net.UnixConn, want peer.Want) (peer.Attested, error) {
	a, err := l.ask(ctx, Request{Call: CallAttest, Want: &want}, conn)
	switch {
	case err != nil:
		return peer.Attested{}, err
	case a.Peer == nil:
		return peer.Attested{}, errors.New("launch: the launcher answered \"attest\" without a peer")
	}
	return *a.Peer, nil
}
