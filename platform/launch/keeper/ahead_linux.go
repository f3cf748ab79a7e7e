package keeper

import (
	"runtime"
	"time"
)

// A third of what a launch takes is the beginning of a process, and jobs come in rows: when one is over, the first process
// of the next is begun. It is in a cgroup of its own, was told nothing, and waits for its order. A job takes it, or begins
// one when there is none; what follows is the same.

// aheadFor is for how long a process waits for a job. The system shows a job as that much older than it is.
const aheadFor = 5 * time.Second

// ahead is what was begun for the next job. The keeper's mu guards it.
type ahead struct {
	serial uint64        // of that job; 0: nothing was begun
	begun  chan struct{} // closed when it has begun, or could not
	child  *child        // nil until then
	since  time.Time
}

// beginAhead begins the process of the next job, if there is none.
func (k *keeper) beginAhead() {
	runtime.Gosched() // whoever waited for the last one goes first: the processor that does this does nothing else
	begun := make(chan struct{})
	k.mu.Lock()
	if k.stopped || k.ahead.serial != 0 {
		k.mu.Unlock()
		return
	}
	k.serial++
	serial := k.serial
	k.ahead = ahead{serial: serial, begun: begun}
	k.mu.Unlock()

	c, err := k.begin(serial)
	k.mu.Lock()
	defer k.mu.Unlock()
	defer close(begun)
	k.ahead.child, k.ahead.since = c, time.Now()
	if err != nil { // the next job will say so
		k.ahead = ahead{}
	}
}

// takeAhead returns the process that was begun ahead, which is the caller's then. It is nil when there is none.
func (k *keeper) takeAhead() *child {
	k.mu.Lock()
	if k.ahead.serial != 0 && k.ahead.child == nil {
		begun := k.ahead.begun
		k.mu.Unlock()
		<-begun
		k.mu.Lock()
	}
	c := k.ahead.child
	if c != nil {
		k.ahead = ahead{}
	}
	k.mu.Unlock()
	if c != nil && c.ended() { // somebody killed it
		k.dismiss(c)
		return nil
	}
	return c
}

// dismissAhead ends a process that has waited that long.
func (k *keeper) dismissAhead(age time.Duration) {
	k.mu.Lock()
	c := k.ahead.child
	if c != nil && time.Since(k.ahead.since) < age {
		c = nil
	}
	if c != nil {
		k.ahead = ahead{}
	}
	k.mu.Unlock()
	k.dismiss(c)
}

// dismiss ends a child that has no order, or will not follow it; nil is none.
func (k *keeper) dismiss(c *child) {
	if c == nil {
		return
	}
	c.box.stop()
	k.reap(c)
	c.release()
}
