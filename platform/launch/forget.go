package launch

import (
	"context"
	"net"
)

// Forget removes an ended job and its output before its time, and its ID can be used again. The serial says which job
// of that ID is meant. A job that has not ended is refused with CodeRunning.
func (l *Launcher) Forget(ctx context.Context, owner, id string, serial uint64) error {
	_, err := l.ask(ctx, Request{Call: CallForget, Owner: owner, ID: id, After: serial})
	return err
}

// Check is one step that a Start would take before it writes anything down.
type Check struct {
	Step   string `json:"step"`
	Code   string `json:"code,omitempty"` // "": it would be passed
	Reason string `json:"reason,omitempty"`
	Found  string `json:"found,omitempty"`  // what a step that is passed has found, for people
	Unseen bool   `json:"unseen,omitempty"` // it could not be looked at, and Found says why: passed as far as anybody knows
}

// Check goes through all that a Start with the same arguments would go through before it starts anything, and starts
// nothing. A step that another one must have passed for it is not there. With as the limits are asked as if a process of
// that uid were at the other end of conn: what would happen if it asked.
func (l *Launcher) Check(ctx context.Context, conn *net.UnixConn, s Spec, as *uint32) ([]Check, error) {
	a, err := l.ask(ctx, Request{Call: CallCheck, Spec: &s, As: as}, conn)
	return a.Checks, err
}
