package audit

import (
	"bytes"
	"context"
	"net"
	"sync/atomic"
	"time"
)

// journalSocket is where systemd-journald takes messages in its own form.
const journalSocket = "/run/systemd/journal/socket"

const (
	copiesWaiting = 1024
	copyWait      = time.Second
	copyRetry     = 5 * time.Second
)

// copier gives copies of the records to the system's journal: as many as it
// takes, and nobody waits for that. A nil copier copies nothing.
type copier struct {
	socket string
	lines  chan []byte
	lost   atomic.Uint64
}

func newCopier(socket string) *copier {
	return &copier{socket: socket, lines: make(chan []byte, copiesWaiting)}
}

// offer takes a copy of a line, or counts it as lost when too many wait.
func (c *copier) offer(line []byte) {
	if c == nil {
		return
	}
	select {
	case c.lines <- bytes.Clone(line):
	default:
		c.lost.Add(1)
	}
}

func (c *copier) lostSoFar() uint64 {
	if c == nil {
		return 0
	}
	return c.lost.Load()
}

// run sends what is offered until ctx ends, and then what is left.
func (c *copier) run(ctx context.Context) {
	var conn *net.UnixConn
	var next time.Time // not before that is another try made to connect
	send := func(line []byte) {
		if now := time.Now(); conn == nil && !now.Before(next) {
			next = now.Add(copyRetry)
			if to, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: c.socket, Net: "unixgram"}); err == nil {
				conn = to
			}
		}
		if conn == nil || !sent(conn, journalEntry(line)) {
			c.lost.Add(1)
			if conn != nil {
				_ = conn.Close() // it is made anew
				conn = nil
			}
		}
	}
	for {
		select {
		case line := <-c.lines:
			send(line)
			continue
		case <-ctx.Done():
		}
		for {
			select {
			case line := <-c.lines:
				send(line)
				continue
			default:
			}
			if conn != nil {
				_ = conn.Close() // datagrams: what was sent has arrived
			}
			return
		}
	}
}

func sent(conn *net.UnixConn, entry []byte) bool {
	if conn.SetWriteDeadline(time.Now().Add(copyWait)) != nil {
		return false
	}
	_, err := conn.Write(entry)
	return err == nil
}

// journalEntry is one message: fields, one a line. A record is one line, so no
// field needs the form for several.
func journalEntry(line []byte) []byte {
	var b bytes.Buffer
	b.WriteString("PRIORITY=6\nSYSLOG_IDENTIFIER=batchwarden-audit\nMESSAGE=")
	b.Write(bytes.TrimRight(line, "\n"))
	b.WriteByte('\n')
	return b.Bytes()
}
