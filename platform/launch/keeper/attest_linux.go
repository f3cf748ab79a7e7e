package keeper

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"batchwarden/platform/launch"
	"batchwarden/platform/peer"
)

// attest looks at the process at the other end of a connection that the daemon passed. The daemon cannot make one up,
// nor learn about processes that did not come to it.
func (k *keeper) attest(ctx context.Context, conn *os.File, w *peer.Want) (*peer.Attested, error) {
	want, socket := *cmp.Or(w, &peer.Want{}), k.PublicSocket
	if want.Named {
		socket = k.SystemdSocket
	}
	at, err := k.attestor.Attest(ctx, conn, socket, want)
	if err != nil {
		return nil, &launch.Refused{Code: launch.CodeCaller, Reason: err.Error()}
	}
	at.User = k.called(at.UID)
	return &at, nil
}

// requester is the user at the other end of the connection that came with a launch. It cannot be the daemon itself.
// What the daemon was told about that process earlier counts for nothing: it is looked at again.
func (k *keeper) requester(ctx context.Context, conn *os.File, started uint64) (uint32, error) {
	at, err := k.attestor.Attest(ctx, conn, k.PublicSocket, peer.Want{Started: started})
	if err == nil && at.UID == k.DaemonUID {
		err = fmt.Errorf("its other end is the daemon's own user, uid %d", at.UID)
	}
	if err != nil {
		k.Log.Warn("the connection that came with a launch is no requester's", "err", err)
		return 0, &launch.Refused{Code: launch.CodeCaller, Reason: "the connection that came with the launch is no requester's: " + err.Error()}
	}
	return at.UID, nil
}
