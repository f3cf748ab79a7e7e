package localsock

import (
	"io"
	"sync"
)

// Bounds of what descriptors of one owner may cost while they are being closed.
const (
	closings    = 4   // at one time
	maxUnclosed = 256 // that wait for it
)

// Closer closes descriptors that others made, in goroutines of its own: whoever serves the file, in user space or over
// a network, or set the socket to linger, can make that last for as long as he likes. Each goroutine ends when nothing
// is left to close. Owners, such as users, have goroutines of their own, so that one cannot hold up another. The zero
// value is ready.
type Closer struct {
	mu     sync.Mutex // guards owners
	owners map[uint32]*unclosed
}

type unclosed struct {
	files []io.Closer
	busy  int // goroutines
}

// Close takes the files over and returns at once.
func (c *Closer) Close(owner uint32, files ...io.Closer) {
	if len(files) == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owners == nil {
		c.owners = map[uint32]*unclosed{}
	}
	u := c.owners[owner]
	if u == nil {
		u = new(unclosed)
		c.owners[owner] = u
	}
	u.files = append(u.files, files...)
	if u.busy < closings {
		u.busy++
		go c.work(owner, u)
	}
}

func (c *Closer) work(owner uint32, u *unclosed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(u.files) > 0 {
		f := u.files[0]
		u.files[0] = nil
		u.files = u.files[1:]
		c.mu.Unlock()
		_ = f.Close() // nothing of ours was written to it, and it may have been closed already
		c.mu.Lock()
	}
	if u.busy--; u.busy == 0 {
		delete(c.owners, owner)
	}
}

// Full reports that so many descriptors of the owner wait that no more should be taken.
func (c *Closer) Full(owner uint32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	u := c.owners[owner]
	return u != nil && len(u.files) >= maxUnclosed
}
