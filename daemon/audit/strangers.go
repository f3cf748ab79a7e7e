package audit

import (
	"time"
)

// Whoever may nothing can still ask as often as he likes, and every refusal is
// to be seen; but nobody may fill the disk with them. So the first refusal of a
// user is written at once, and those of the minute after it are counted.
const (
	visitsOver = time.Minute
	mostGuests = 64 // users that are counted one by one; the rest together
)

// guest is who is counted, and what he was refused with.
type guest struct {
	uid  uint32
	unit string
	code string
}

// visits are the refusals after the first.
type visits struct {
	since time.Time // of the first
	count int64
	peer  *Peer
	code  string
}

// guests are the users whose refusals are being counted.
type guests struct {
	seen   map[guest]*visits
	others *visits // all for whom there is no place; nil: nobody
}

// AppendRefusal writes down that somebody was refused who may cost no more
// than a bounded number of records: a stranger, or whom the machine has no
// time for. The first refusal of a user and code is a record as by Append; how
// many there were in the minute after it is one more, of kind Refused.
// Root's are all written. A refusal stands also when it cannot be written.
func (l *Log) AppendRefusal(r *Record) error {
	if r.Peer == nil || r.Peer.UID == 0 {
		return l.Append(r)
	}
	g := guest{r.Peer.UID, r.Peer.Unit, r.Code}
	l.mu.Lock()
	first := l.guests.visit(g, r, time.Now())
	l.mu.Unlock()
	if !first {
		l.tell(r, nil)
		return nil
	}
	return l.Append(r)
}

// visit counts a refusal, and reports whether it is to be written itself.
func (gs *guests) visit(g guest, r *Record, now time.Time) (first bool) {
	if v := gs.seen[g]; v != nil {
		v.count++
		return false
	}
	if len(gs.seen) < mostGuests {
		if gs.seen == nil {
			gs.seen = map[guest]*visits{}
		}
		gs.seen[g] = &visits{since: now, peer: &Peer{UID: r.Peer.UID, GID: r.Peer.GID, User: r.Peer.User, Unit: r.Peer.Unit}, code: r.Code}
		return true
	}
	if gs.others == nil {
		gs.others = &visits{since: now}
	}
	gs.others.count++
	return false
}

// tellVisits writes the counts that are old enough, all at a time of zero. What
// cannot be written is counted on. It needs l.mu.
func (l *Log) tellVisits(now time.Time) {
	due := func(v *visits) bool { return now.IsZero() || now.Sub(v.since) >= visitsOver }
	for g, v := range l.guests.seen {
		if due(v) && l.tellVisit(v) {
			delete(l.guests.seen, g)
		}
	}
	if v := l.guests.others; v != nil && due(v) && l.tellVisit(v) {
		l.guests.others = nil
	}
}

// tellVisit reports whether the count may be forgotten.
func (l *Log) tellVisit(v *visits) bool {
	if v.count == 0 {
		return true
	}
	r := &Record{Time: time.Now().UTC(), Kind: Refused, Verdict: Deny, Code: v.code, Peer: v.peer, Count: v.count, Since: v.since.UTC()}
	if v.peer == nil {
		r.Reason = "by further users, more than are counted one by one"
	}
	if l.broken != nil {
		return false
	}
	err := l.add(r)
	l.failing = err
	return err == nil
}
