package localsock

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
)

// Requests is a connection on which requests follow one another, as in HTTP, and each may bring descriptors with its
// first octet. It reads like any net.Conn. Who serves it says where the handling of a request begins and ends:
//
//	files := c.Begin() // they are the caller's now
//	defer c.End()
//
// Descriptors that come in the middle of a request, more of them than the limit, or a further request before one that
// brought descriptors was answered, break the connection: nobody should have to say what they belong to. None is ever
// left open. (Of several requests in one packet only the whole is looked at: descriptors that come later in the last of
// them are taken for that request's.)
type Requests struct {
	*net.UnixConn
	limit int
	oob   []byte     // of the one Read that there is at a time
	begin *beginning // of that too; nil where the system has none

	mu     sync.Mutex // guards the rest
	fresh  bool       // the last request was handled, and of the next one no octet was read yet
	soon   bool       // the one that is being handled is answered soon, or was
	brings bool       // the one that is being handled brought descriptors, and nothing was answered yet
	closed bool
	files  []*Descriptor // of the request that is being read
	err    error         // what broke the connection
	closer *Closer       // of descriptors that are not used; nil: they are closed at once
	owner  uint32        // then: as whose
}

// NewRequests takes the connection over; limit is how many descriptors a request may bring.
func NewRequests(c *net.UnixConn, limit int) *Requests {
	return &Requests{UnixConn: c, limit: limit, oob: controlRoom(limit), begin: newBeginning(c, limit), fresh: true}
}

// CloseWith has descriptors that are not used closed by closer, as this owner's; say so before anything is read. While
// too many of the owner's wait there, further ones break the connection.
func (c *Requests) CloseWith(closer *Closer, owner uint32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closer, c.owner = closer, owner
}

// Discard closes descriptors that Begin returned.
func (c *Requests) Discard(files []*Descriptor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.discard(files)
}

// discard is Discard with mu held.
func (c *Requests) discard(files []*Descriptor) {
	for _, f := range files {
		if c.closer != nil {
			c.closer.Close(c.owner, f)
			continue
		}
		_ = f.Close() // nobody will use it
	}
}

// Read reads what came. Where a request begins it receives one octet by itself, so that the descriptors which come with it
// are this request's: the kernel would join the end of one request and the begin of the next, and its descriptors.
func (c *Requests) Read(b []byte) (int, error) {
	c.mu.Lock()
	fresh, soon, err := c.fresh, c.soon, c.err
	full := c.closer != nil && c.closer.Full(c.owner)
	c.mu.Unlock()
	if err != nil || len(b) == 0 {
		return 0, err
	}
	if soon && len(b) == 1 {
		return 0, nil
	}
	n, files, later, err := c.receive(b, fresh, !full) // without room for descriptors the kernel lets go of them
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(later) > 0 {
		c.discard(later)
		err = cmp.Or(err, errMiddle)
	}
	if len(files) > 0 {
		if err == nil {
			err = c.accept(files)
		}
		if err != nil {
			c.discard(files)
		}
	}
	if err != nil && (len(files)+len(later) > 0 || errors.Is(err, ErrFrame)) {
		c.err = err
		return 0, err
	}
	if n > 0 && len(b) == 1 && !fresh && c.brings { // net/http looks whether the caller has gone
		c.err = errAhead
		return 0, c.err
	}
	if n > 0 {
		c.fresh = false
	}
	return n, err
}

// receive receives octets, and the descriptors that come with the first one and with later ones, where there is room.
func (c *Requests) receive(b []byte, fresh, room bool) (n int, files, later []*Descriptor, err error) {
	switch {
	case fresh && len(b) > 1 && c.begin != nil:
		return c.begin.read(b, room)
	case fresh:
		b = b[:1]
	}
	var oob []byte
	if room {
		oob = c.oob
	}
	n, files, err = receive(c.UnixConn, b, oob)
	return n, files, nil, err
}

var errMiddle = fmt.Errorf("%w: descriptors came in the middle of a request, or before the last one was answered", ErrFrame)

var errAhead = fmt.Errorf("%w: a request came before the one with descriptors was answered", ErrFrame)

// Write answers the request that is being handled.
func (c *Requests) Write(b []byte) (int, error) {
	c.mu.Lock()
	c.brings = false
	c.mu.Unlock()
	return c.UnixConn.Write(b)
}

// accept takes descriptors in for the request that begins. The caller holds mu.
func (c *Requests) accept(files []*Descriptor) error {
	switch {
	case c.closed:
		return net.ErrClosed
	case !c.fresh:
		return errMiddle
	case len(files) > c.limit:
		return fmt.Errorf("%w: more than %d descriptors", ErrFrame, c.limit)
	}
	c.files = files
	return nil
}

// Descriptor is one that came with a request. It is for one goroutine at a time, and has to be closed: unlike a file it is
// not closed when nobody has it any more. It is a File.
type Descriptor struct {
	//lint:ignore U1000 Where descriptors travel.
	descriptor
}

// File is the descriptor as a file, which is closed with it and is good as long.
func (d *Descriptor) File() *os.File { return d.asFile() }

// Close closes it.
func (d *Descriptor) Close() error { return d.close() }

// Begin says that the request which was read is being handled, and returns the descriptors that came with it: they
// are the caller's to close.
func (c *Requests) Begin() []*Descriptor {
	c.mu.Lock()
	defer c.mu.Unlock()
	files := c.files
	c.files, c.fresh, c.soon, c.brings = nil, false, false, len(files) > 0
	return files
}

// Soon says that the request whose handling has begun will be answered at once. Until the next one is handled a Read of a
// single octet returns none, and no error: net/http asks for one to learn, in a goroutine of its own, that the caller
// has gone, and that goroutine may not run before the request was handled.
func (c *Requests) Soon() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.soon = true
}

// End says that the request has been handled and all of it was read: what comes now is the next one.
func (c *Requests) End() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.brings && c.err == nil && c.begin != nil && c.begin.waiting() {
		c.err = errAhead
	}
	c.fresh, c.brings = true, false
}

// Close closes the connection, and the descriptors of a request that was not handled.
func (c *Requests) Close() error {
	c.mu.Lock()
	c.discard(c.files)
	c.files, c.closed = nil, true
	c.mu.Unlock()
	return c.UnixConn.Close()
}

// File is what can be sent with a request: an *os.File or a connection.
type File = syscall.Conn

// Bringing is a connection whose requests bring descriptors.
type Bringing struct {
	*net.UnixConn
	files []File // still to be sent
}

// WithFiles returns the connection, which sends the descriptors with the first octet that is written. The files stay
// the caller's and must be open until then.
func WithFiles(c *net.UnixConn, files ...File) *Bringing {
	return &Bringing{UnixConn: c, files: files}
}

// Bring has the descriptors sent with the next octet that is written: the first of a request. Nobody may be writing.
func (b *Bringing) Bring(files ...File) { b.files = files }

func (b *Bringing) Write(data []byte) (n int, err error) {
	if len(b.files) > 0 && len(data) > 0 {
		n, err = sendFiles(b.UnixConn, data, b.files)
		if err != nil {
			return n, err
		}
		if b.files = nil; n == len(data) {
			return n, nil
		}
	}
	more, err := b.UnixConn.Write(data[n:])
	return n + more, err
}
