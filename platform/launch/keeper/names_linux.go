package keeper

import (
	"fmt"
	"time"

	"batchwarden/platform/launch"
)

// resolve says what the daemon's names stand for. It starts no process itself, and so can ask no resolver but the files.
func (k *keeper) resolve(n *launch.Names) (*launch.Numbers, error) {
	if n == nil || len(n.Users)+len(n.Groups) > launch.MaxNames {
		return nil, &launch.Refused{Code: launch.CodeInvalid, Reason: fmt.Sprintf("at most %d names can be resolved at once", launch.MaxNames)}
	}
	found := n.In(k.Accounts)
	return &found, nil
}

const (
	nameWait = 300 * time.Millisecond
	maxNamed = 16 // questions about names at one time
)

// called is the name of a uid; "" when it has none, or the resolver does not say so soon. Who asks is not kept waiting for
// a directory service that is down: what he is called decides least.
func (k *keeper) called(uid uint32) string {
	if k.naming.Add(1) > maxNamed {
		k.naming.Add(-1)
		return ""
	}
	answer := make(chan string, 1)
	go func() { // ends with the resolver's own time limit
		defer k.naming.Add(-1)
		a, err := k.Accounts.ByUID(uid)
		if err != nil {
			a.Name = ""
		}
		answer <- a.Name
	}()
	late := time.NewTimer(nameWait)
	defer late.Stop()
	select {
	case name := <-answer:
		return name
	case <-late.C:
		return ""
	}
}
