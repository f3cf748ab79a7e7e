package audit

import (
	"cmp"
	"time"
)

// Observer is told what becomes of records. It is called while callers wait,
// Flushed with the log locked: it must be quick and not call the log.
type Observer interface {
	// Recorded is told of each record, and with which error it was not written.
	// Refusals that are only counted are records here too.
	Recorded(r *Record, err error)
	// Flushed is told of each flush to the disk, and how long the oldest of the
	// records in it had waited.
	Flushed(waited time.Duration)
}

// waiting is since when there have been records that are not on the disk.
type waiting struct {
	next time.Time // of those that the next flush takes; zero: none
	now  time.Time // of those that are being flushed; zero: none
}

// begin is told of each record that was written.
func (w *waiting) begin() {
	if w.next.IsZero() {
		w.next = time.Now()
	}
}

// take begins a flush.
func (w *waiting) take() (since time.Time) {
	w.now, w.next = w.next, time.Time{}
	return w.now
}

// flushed ends a flush that succeeded. It needs l.mu.
func (l *Log) flushed(since time.Time) {
	l.waiting.now = time.Time{}
	if l.Observer != nil && !since.IsZero() {
		l.Observer.Flushed(time.Since(since))
	}
}

func (l *Log) tell(r *Record, err error) {
	if l.Observer != nil {
		l.Observer.Recorded(r, err)
	}
}

// Stats is how the log stands.
type Stats struct {
	Records  uint64        // in all its files since it was begun
	Unsynced time.Duration // how long the oldest record has waited for the disk; 0: all are on it
	Free     int64         // octets on its disk; -1: not known
}

// Stats tells how the log stands, without a look at the disk.
func (l *Log) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	s := Stats{Records: l.end.seq, Free: -1}
	if since := cmp.Or(l.waiting.now, l.waiting.next); !since.IsZero() {
		s.Unsynced = time.Since(since)
	}
	if l.room.known {
		s.Free = l.room.disk.Free
	}
	return s
}
