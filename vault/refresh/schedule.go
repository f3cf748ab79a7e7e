package refresh

import (
	"math/rand/v2"
	"time"

	"batchwarden/vault/errand"
	"batchwarden/vault/snapshot"
)

const (
	// firstTry is when Run makes its first attempt at the latest.
	firstTry = 2 * time.Second
	// saveEvery is how old what is on the disk may be of what changes all the
	// time: when Vault confirmed what, and the clock.
	saveEvery = 5 * time.Minute
	// mostSweeps bounds how often a document's max_stale can make us sweep.
	mostSweeps = 5 * time.Second
	// turned is how long after its announced rotation a password is looked for.
	turned = time.Second
	// soonest is between two attempts at least.
	soonest = 50 * time.Millisecond
	// departure is how long before an attempt its worker is started: a process
	// begins, and reads its configuration, while nothing has to wait for it.
	departure = 50 * time.Millisecond
)

// schedule is when to do what. Only Run's goroutine touches it.
type schedule struct {
	failed  int       // attempts in a row
	swept   time.Time // when a sweep succeeded last; zero: one is due
	broken  int       // sweeps in a row of which a part failed
	retry   time.Time // of the sweep of which a part failed
	trouble trouble   // of that part; polls do not see it
	spread  float64   // of sweeps, so that not all machines do them at once
	turning map[snapshot.ID]turn
}

// turn is a password in another place of Vault that will be replaced.
type turn struct {
	number  int64
	rotates time.Time
	next    time.Time // when to look
	looked  int
}

// trouble is why an attempt did not come out whole.
type trouble struct{ code, detail string }

// task is what an attempt is made for.
type task struct {
	sweep   bool
	sources []snapshot.ID
	only    []snapshot.ID // if any: at these and at nothing else
}

// due is what an attempt at this time should do.
func (r *Refresher) due(now time.Time) (t task) {
	// Rather than a poll now and a sweep right after it.
	t.sweep = !r.sweepAt().After(now.Add(min(r.settings().Interval, r.sweepEvery()) / 4))
	for id, w := range r.turning {
		if !w.next.After(now) {
			t.sources = append(t.sources, id)
		}
	}
	return t
}

// sweepEvery is the time between sweeps: no entry must become stale while Vault
// answers, and only a sweep confirms it.
func (r *Refresher) sweepEvery() time.Duration {
	shortest := min(r.settings().MaxStale, r.settings().PolicyMaxStale)
	for _, h := range r.held {
		if h.BatchUser != nil && h.BatchUser.MaxStale > 0 && r.serves(h.ID.Scope) {
			shortest = min(shortest, h.BatchUser.MaxStale)
		}
	}
	return min(r.settings().Sweep, max(shortest/3, min(mostSweeps, r.settings().Interval)))
}

// sweepAt is when the next sweep is due.
func (r *Refresher) sweepAt() time.Time {
	if !r.retry.IsZero() {
		return r.retry
	}
	if r.swept.IsZero() {
		return r.swept
	}
	every := r.sweepEvery()
	return r.swept.Add(every - time.Duration(r.spread*float64(every/10)))
}

// done takes over what an attempt amounts to for those that follow. answered
// says that Vault was there and spoke with us.
func (r *Refresher) done(t task, now time.Time, whole, answered bool) {
	if t.sweep && whole {
		r.swept, r.retry, r.broken, r.spread = now, time.Time{}, 0, rand.Float64()
	} else if t.sweep && answered {
		r.broken++
		r.retry = now.Add(min(r.sweepEvery(), time.Second<<min(r.broken-1, 20)))
	}
	r.watchTurns(t, now, answered)
}

// watchTurns looks which passwords are announced to change, and puts those
// that were looked for in vain off for a while.
func (r *Refresher) watchTurns(t task, now time.Time, answered bool) {
	looked := map[snapshot.ID]bool{}
	for _, id := range t.sources {
		looked[id] = answered
	}
	for id := range r.turning {
		if r.held.get(id) == nil {
			delete(r.turning, id)
		}
	}
	for _, h := range r.held {
		id := h.ID
		if h.BatchUser == nil || h.BatchUser.Source == "" || h.Rotates.IsZero() || !r.serves(id.Scope) {
			delete(r.turning, id)
			continue
		}
		switch w := r.turning[id]; {
		case w.number != h.Turn || !w.rotates.Equal(h.Rotates):
			r.turning[id] = turn{number: h.Turn, rotates: h.Rotates, next: h.Rotates.Add(turned)}
		case looked[id]:
			w.looked++
			w.next = now.Add(min(r.settings().Interval, time.Second<<min(w.looked-1, 12)))
			r.turning[id] = w
		}
	}
}

// next is when the next attempt is due, after one that began and ended then. An
// interval lies between two beginnings, so that a change is found within one.
// After a failure nothing else counts: a Vault that is down is not asked more
// often because passwords will rotate.
func (r *Refresher) next(began, now time.Time, code string) time.Time {
	d := r.delay(code)
	if code != OK {
		return now.Add(d)
	}
	at := later(began.Add(d), now.Add(d/2)) // one that takes long leaves Vault in peace for a while
	at = earlier(at, r.sweepAt())
	for _, w := range r.turning {
		at = earlier(at, w.next)
	}
	return later(at, now.Add(soonest))
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

// delay is when to try again: at the interval while all is well; after a
// failure soon, and then less and less often, so that a Vault that comes back
// is not met by every machine at once. All with jitter, for the same reason;
// never later than that, so that a change arrives within the interval.
func (r *Refresher) delay(code string) time.Duration {
	d := r.settings().Interval
	if code == OK {
		r.failed = 0
	} else {
		r.failed++
		most := r.settings().Interval
		if refusing(code) {
			most = 10 * r.settings().Interval
		}
		d = min(most, time.Second<<min(r.failed-1, 12))
	}
	return d - rand.N(d/10+1)
}

// refusing is whether repeating an attempt that ended so does harm: a wrong
// secret gets an identity locked.
func refusing(code string) bool { return code == errand.LoginRefused || code == errand.WrappedUsed }
