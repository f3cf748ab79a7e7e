package refresh

import (
	"context"
	"errors"
	"maps"
	"time"

	"batchwarden/vault/sealed"
	"batchwarden/vault/snapshot"
)

// Attempt is the one time that a version of a password was tried on this
// machine: whoever tries a wrong one again and again gets the account locked.
type Attempt struct {
	At      time.Time
	Outcome string // as it was given to Conclude; "" when nobody knows: the attempt was cut off
}

// ErrOther reports that another version is in force by now, or none.
var ErrOther = errors.New("refresh: another version is in force")

// Begin writes down, on the disk, that a version in force is about to be tried,
// and returns that attempt, with first; or the earlier one with that version.
// It needs Run, as does Conclude.
func (r *Refresher) Begin(ctx context.Context, id snapshot.ID, version int64) (a Attempt, first bool, err error) {
	type answer struct {
		Attempt
		first bool
		err   error
	}
	begun, err := within(ctx, r, func(ctx context.Context) (a answer) {
		a.Attempt, a.first, a.err = r.begin(ctx, id, version)
		return a
	})
	return begun.Attempt, begun.first, errors.Join(err, begun.err)
}

// Conclude keeps what came of an attempt that began. With the outcome "" there
// was none: nothing was tried, and the version may be tried again.
func (r *Refresher) Conclude(ctx context.Context, id snapshot.ID, version int64, outcome string) error {
	kept, err := within(ctx, r, func(ctx context.Context) error { return r.conclude(ctx, id, version, outcome) })
	return errors.Join(err, kept)
}

// within has Run's goroutine call f between its other work, and waits for it.
func within[T any](ctx context.Context, r *Refresher, f func(context.Context) T) (reply T, err error) {
	answer := make(chan T, 1)
	select {
	case r.inside <- func(ctx context.Context) { answer <- f(ctx) }:
	case <-ctx.Done():
		return reply, ctx.Err()
	}
	select {
	case reply = <-answer:
		return reply, nil
	case <-ctx.Done():
		return reply, ctx.Err()
	}
}

func (r *Refresher) begin(ctx context.Context, id snapshot.ID, version int64) (a Attempt, first bool, err error) {
	h, path := r.held.get(id), id.String()
	if h == nil || h.SecretVersion() != version {
		return a, false, ErrOther
	}
	if was, is := r.memory.Attempts[path]; is && was.of(&h.Entry) {
		return Attempt{At: was.Since, Outcome: was.Outcome}, false, nil
	}
	old := r.memory.Attempts
	a.At = r.o.Clock.Now()
	r.setAttempt(path, &attempt{rejection{Created: h.Created, Version: h.Version, Turn: h.Turn, Since: a.At}, ""})
	if err := r.write(ctx, sealed.Change{}); err != nil {
		r.memory.Attempts = old // it is not made
		return Attempt{}, false, err
	}
	return a, true, nil
}

func (r *Refresher) conclude(ctx context.Context, id snapshot.ID, version int64, outcome string) error {
	h, path := r.held.get(id), id.String()
	was, is := r.memory.Attempts[path]
	switch {
	case h == nil || h.SecretVersion() != version || !is || !was.of(&h.Entry):
		return nil // it was replaced meanwhile, and what came of it matters no more
	case outcome == "":
		r.setAttempt(path, nil)
	default:
		was.Outcome = outcome
		r.setAttempt(path, &was)
	}
	return r.write(ctx, sealed.Change{})
}

// setAttempt replaces the map: what was written last is compared with it.
func (r *Refresher) setAttempt(path string, a *attempt) {
	next := maps.Clone(r.memory.Attempts)
	if next == nil {
		next = map[string]attempt{}
	}
	if delete(next, path); a != nil {
		next[path] = *a
	}
	r.memory.Attempts = next
}
