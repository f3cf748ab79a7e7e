package server

import (
	"errors"
	"net"
	"sync"

	"batchwarden/platform/localsock"
	"batchwarden/platform/peer"
)

// Bounds on open connections. Nobody can take the seats of all others: one
// user has a part of them, and whom no client entry knows a small one.
const (
	maxConns     = 16384
	maxOfUser    = 6144
	maxOfUnknown = 256  // of one user whom no entry knows
	maxUnknown   = 4096 // of all of those together
	maxOver      = 64   // that are one too many and are still told so
)

// seats counts the open connections by their users.
type seats struct {
	stranger func(*peer.Connection) bool

	mu      sync.Mutex // guards what follows
	freed   sync.Cond
	taken   int
	of      map[uint32]int // by uid
	unknown int
	over    int

	unused localsock.Closer // what came with requests and is not needed, by uid
}

// noUID is the owner of what came from nobody who is known.
const noUID = 1<<32 - 1

func newSeats(stranger func(*peer.Connection) bool) *seats {
	s := &seats{stranger: stranger, of: map[uint32]int{}}
	s.freed.L = &s.mu
	return s
}

// room waits until there is a seat.
func (s *seats) room() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.taken >= maxConns {
		s.freed.Wait()
	}
	s.taken++
}

func (s *seats) leave() {
	s.mu.Lock()
	s.taken--
	s.mu.Unlock()
	s.freed.Signal()
}

// sit gives the peer one of the user's seats. over: there was none, and this
// connection may say so; ok false: there are too many of those too. stand gives back
// what was taken.
func (s *seats) sit(p *peer.Connection) (stand func(), over, ok bool) {
	unknown := s.stranger(p)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[p.UID] >= maxOfUser || unknown && (s.of[p.UID] >= maxOfUnknown || s.unknown >= maxUnknown) {
		if s.over >= maxOver {
			return nil, true, false
		}
		s.over++
		return func() { s.stand(p.UID, false, true) }, true, true
	}
	s.of[p.UID]++
	if unknown {
		s.unknown++
	}
	return func() { s.stand(p.UID, unknown, false) }, false, true
}

func (s *seats) stand(uid uint32, unknown, over bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if over {
		s.over--
		return
	}
	if s.of[uid]--; s.of[uid] == 0 {
		delete(s.of, uid)
	}
	if unknown {
		s.unknown--
	}
}

// bounded accepts no more connections than there are seats; further ones wait
// in the listener's queue.
type bounded struct {
	net.Listener
	seats *seats
}

func (b *bounded) Accept() (net.Conn, error) {
	b.seats.room()
	for {
		c, err := b.Listener.Accept()
		if err != nil {
			b.seats.leave()
			return nil, err
		}
		if s := b.seats.take(c); s != nil {
			return s, nil
		}
		_ = c.Close() // nobody is told: those who are told already are too many
	}
}

// take makes c a connection that gives its seat back when it is closed; nil
// when there is none for it.
func (s *seats) take(c net.Conn) *seated {
	on := &seated{Conn: c, attested: attested{err: errors.New("not a Unix socket")}}
	u, ok := c.(*net.UnixConn)
	if !ok {
		on.leave = sync.OnceFunc(s.leave)
		return on
	}
	requests := localsock.NewRequests(u, maxFiles)
	on.Conn, on.conn, on.requests = requests, u, requests
	requests.CloseWith(&s.unused, noUID)
	if on.peer, on.err = peer.Connected(u); on.err != nil {
		on.leave = sync.OnceFunc(s.leave)
		return on
	}
	requests.CloseWith(&s.unused, on.peer.UID)
	stand, over, ok := s.sit(on.peer)
	if !ok {
		return nil
	}
	on.over = over
	on.leave = sync.OnceFunc(func() {
		stand()
		s.leave()
	})
	return on
}

// seated is an open connection.
type seated struct {
	net.Conn
	attested
	leave func()
}

func (c *seated) Close() error {
	defer c.leave()
	return c.Conn.Close()
}
