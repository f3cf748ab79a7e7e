package refresh

import (
	"context"
	"maps"
	"slices"

	"batchwarden/vault/snapshot"
)

// Verdict is how a password did where it was used, and what became of that.
type Verdict struct {
	ID       snapshot.ID
	Version  int64 // as callers know it
	Accepted bool

	// The answer.
	Known   bool  // there is such a batch user
	Newer   bool  // another version is in force by now
	Current int64 // the version that is
}

type verdict struct {
	Verdict
	reply chan Verdict
}

// Report takes a verdict and returns it with the answer, once that is in force.
// A version in force that is rejected is looked for in Vault, once; if it is
// still the one, it counts as rejected until there is a newer one, somebody
// finds it accepted, or an operator syncs: whoever tries it again and again
// gets the account locked. It needs Run; without it, it waits until ctx ends.
func (r *Refresher) Report(ctx context.Context, v Verdict) (Verdict, error) {
	q := &verdict{v, make(chan Verdict, 1)}
	select {
	case r.reported <- q:
	case <-ctx.Done():
		return v, ctx.Err()
	}
	select {
	case v = <-q.reply:
		return v, nil
	case <-ctx.Done():
		return v, ctx.Err()
	}
}

// alsoReported is who else waits already; one look serves them all.
func (r *Refresher) alsoReported() (waiting []*verdict) {
	for {
		select {
		case q := <-r.reported:
			waiting = append(waiting, q)
		default:
			return waiting
		}
	}
}

// judgeReports answers all of them.
func (r *Refresher) judgeReports(ctx context.Context, all []*verdict) {
	changed := false
	var look []snapshot.ID
	for _, q := range all {
		h := r.held.get(q.ID)
		switch _, open := r.memory.Rejected[q.ID.String()]; {
		case h == nil || h.SecretVersion() != q.Version:
		case q.Accepted:
			r.memory.Rejected = maps.Clone(r.memory.Rejected) // what was written last is compared with it
			delete(r.memory.Rejected, q.ID.String())
			changed = changed || open
		case !open && !slices.Contains(look, q.ID):
			look = append(look, q.ID)
		}
	}
	if len(look) > 0 {
		r.lookAgain(ctx, look)
		for _, q := range all {
			if h := r.held.get(q.ID); h != nil && !q.Accepted && h.SecretVersion() == q.Version && slices.Contains(look, q.ID) {
				r.reject(&h.Entry)
				changed = true
			}
		}
	}
	if changed {
		r.o.Activate(r.snapshot())
		r.save(ctx)
	}
	for _, q := range all {
		if h := r.held.get(q.ID); h != nil {
			q.Known, q.Current = true, h.SecretVersion()
			q.Newer = q.Current != q.Version
		}
		q.reply <- q.Verdict
	}
}

// lookAgain reads these entries from Vault if there is something newer. While
// Vault refuses our login it is not asked more often for that.
func (r *Refresher) lookAgain(ctx context.Context, ids []snapshot.ID) {
	s := r.State()
	if refusing(s.Code) {
		return
	}
	t := task{only: ids}
	for _, id := range ids {
		if h := r.held.get(id); h.BatchUser != nil && h.BatchUser.Source != "" {
			t.sources = append(t.sources, id)
		}
	}
	after := r.attempt(ctx, t)
	// It says nothing about the rest.
	s.Faults, s.TokenExpires, s.SecretID, s.WentBack = after.Faults, after.TokenExpires, after.SecretID, after.WentBack
	r.publish(s)
}

// reject opens the breaker for the version in force.
func (r *Refresher) reject(e *snapshot.Entry) {
	path := e.ID.String()
	if was, is := r.memory.Rejected[path]; is && was.of(e) {
		return
	}
	if r.memory.Rejected = maps.Clone(r.memory.Rejected); r.memory.Rejected == nil {
		r.memory.Rejected = map[string]rejection{}
	}
	r.memory.Rejected[path] = rejection{Created: e.Created, Version: e.Version, Turn: e.Turn, Since: r.o.Clock.Now()}
	r.o.Log.Warn("a password is rejected where it is used, and Vault has no newer one", "path", path, "version", e.SecretVersion())
}

// forgive closes all breakers: an operator wants to try again.
func (r *Refresher) forgive() {
	if len(r.memory.Rejected) == 0 {
		return
	}
	r.memory.Rejected = nil
	r.o.Activate(r.snapshot())
}
