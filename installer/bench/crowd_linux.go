package main

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"syscall"
	"time"

	"batchwarden/platform/service"
)

// A crowd is many callers of one kind, who wait in one thread, so that they take as little of the machine as they can
// and what is measured is the other side's. For the same reason the thread takes its turn, as work of no haste does:
// on the few processors that it shares with whom it asks each answer would have it push that one aside.
type crowd struct {
	figure
	epoll   int
	members []*member
	spent   time.Duration
}

// A member of a crowd is a caller on a connection that nobody but the crowd waits on.
type member struct {
	*caller
	fd      int // of its connection
	request []byte
	rights  []byte // what goes with each request
	room    []byte
	have    int // of an answer
	asked   time.Time
}

func (c *calls) gather(k kind) (*crowd, error) {
	w := &crowd{figure: figure{name: k.name}}
	var err error
	if w.epoll, err = syscall.EpollCreate1(syscall.EPOLL_CLOEXEC); err != nil {
		return nil, err
	}
	for err == nil && len(w.members) < c.callers {
		err = w.join(k)
	}
	if err == nil {
		err = w.ask(0) // once
	}
	if err != nil {
		w.stop()
		return nil, fmt.Errorf("%s: %w", k.name, err)
	}
	w.took, w.spent = nil, 0
	return w, nil
}

func (w *crowd) join(k kind) error {
	one, err := k.caller()
	if err != nil {
		return err
	}
	m := &member{caller: one, fd: -1, request: handwritten(k.method, k.path, k.body), room: make([]byte, 16<<10)}
	w.members = append(w.members, m)
	if m.fd, err = taken(one.conn); err != nil {
		return err
	}
	if one.far != nil {
		m.rights = syscall.UnixRights(int(one.far.Fd()))
	}
	event := syscall.EpollEvent{Events: syscall.EPOLLIN, Fd: int32(len(w.members) - 1)} // what we get back: which it is
	return syscall.EpollCtl(w.epoll, syscall.EPOLL_CTL_ADD, m.fd, &event)
}

// taken is the connection without Go, which waits for what comes on those that it has.
func taken(c net.Conn) (fd int, err error) {
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		return -1, err
	}
	var dupErr error
	err = raw.Control(func(old uintptr) {
		syscall.ForkLock.RLock() // nobody else is to have it
		defer syscall.ForkLock.RUnlock()
		if fd, dupErr = syscall.Dup(int(old)); dupErr == nil {
			syscall.CloseOnExec(fd)
		}
	})
	return fd, errors.Join(err, dupErr, c.Close())
}

func (w *crowd) stop() {
	for _, m := range w.members {
		m.stop()
		_ = syscall.Close(m.fd) // nothing is lost
	}
	_ = syscall.Close(w.epoll)
}

// ask has all of them ask, again and again, for so long.
func (w *crowd) ask(long time.Duration) error {
	runtime.LockOSThread() // for good: the next crowd's are of the same goroutine
	if err := service.TakeTurns(); err != nil {
		return err
	}
	begun := time.Now()
	for _, m := range w.members {
		if err := m.ask(); err != nil {
			return err
		}
	}
	events := make([]syscall.EpollEvent, len(w.members))
	for asking := len(w.members); asking > 0; {
		n, err := syscall.EpollWait(w.epoll, events, int(patience.Milliseconds()))
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return fmt.Errorf("no answer within %v", patience)
		}
		for _, e := range events[:n] {
			m := w.members[e.Fd]
			whole, err := m.receive()
			if !whole && err == nil {
				continue
			}
			now := time.Now()
			w.took = append(w.took, now.Sub(m.asked))
			if asking--; err == nil && now.Sub(begun) < long {
				asking++
				err = m.ask()
			}
			if err != nil {
				return err
			}
		}
	}
	w.spent += time.Since(begun)
	return nil
}

func (m *member) ask() error {
	m.have, m.asked = 0, time.Now()
	n, err := syscall.SendmsgN(m.fd, m.request, m.rights, nil, syscall.MSG_NOSIGNAL)
	if err == nil && n != len(m.request) {
		err = errors.New("half a request was sent")
	}
	return err
}

// receive reads on, and reports whether an answer came to its end. It is checked.
func (m *member) receive() (whole bool, err error) {
	n, err := syscall.Read(m.fd, m.room[m.have:])
	if err == nil && n == 0 {
		err = errors.New("the connection was closed")
	}
	if err != nil {
		return false, err
	}
	m.have += n
	status, body, whole, err := answered(m.room[:m.have])
	if whole {
		err = m.came(status, body)
	}
	return whole, err
}

func (w *crowd) rate() float64 { return float64(len(w.took)) / w.spent.Seconds() }

func (w *crowd) spread() float64 { return float64(w.quantile(0.99)) / float64(w.quantile(0.5)) }
