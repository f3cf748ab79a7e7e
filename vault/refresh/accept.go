package refresh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"batchwarden/vault/errand"
	"batchwarden/vault/sealed"
	"batchwarden/vault/snapshot"
)

// accepted is what came of an attempt, by path.
type accepted struct {
	put, removed []string
	faults       []Fault
	whole        bool // everything was looked at
}

// accept writes what the worker brought into the local vault, in one commit,
// and then puts it into force. What cannot be used is left out and reported;
// the last good version stays. With sealed.ErrUnwritten all is in force that
// could be; with another error nothing but what was removed.
func (r *Refresher) accept(ctx context.Context, t task, b brought) (done accepted, err error) {
	o := outcome{report: b.report, now: r.o.Clock.Now(), read: map[string]bool{}, put: map[snapshot.ID]*snapshot.Held{}, refused: map[string]string{}}
	done.whole = b.report.Code == OK
	for _, s := range b.report.Scopes {
		if s.Read {
			o.read[s.Scope] = true
		}
		done.whole = done.whole && s.Read
	}
	for _, f := range b.report.Faults {
		o.refused[f.Path] = f.Detail
	}
	refusals := r.refusals(b.report.Faults)
	change := sealed.Change{Generation: b.generation, Token: b.report.Token}
	// What Vault has taken away is not served any more, whatever becomes of the
	// rest. A disk that does not take the removal now gets it next time.
	gone := map[snapshot.ID]bool{}
	for _, x := range b.report.Removed {
		if r.held.get(x.ID) != nil && !gone[x.ID] {
			gone[x.ID], r.disk.removed[x.ID] = true, true
			done.removed = append(done.removed, x.ID.String())
		}
	}
	r.held.remove(gone)
	opened, err := r.o.Store.OpenHeads(ctx, b.records)
	if err != nil {
		r.o.Activate(r.snapshot())
		return done, err
	}
	for i := range opened {
		h := opened[i].Held
		again, err := r.judge(&opened[i])
		if err == nil && o.put[h.ID] != nil {
			continue // twice; the vault would refuse all of it
		}
		if err != nil {
			o.refused[b.records[i].ID.String()] = err.Error()
			if !again {
				refusals = append(refusals, errand.Refused{ID: h.ID, Version: h.Version, Created: h.Created, Detail: err.Error()})
			}
			continue
		}
		o.put[h.ID] = h
		delete(r.disk.removed, h.ID)
		change.Opened = append(change.Opened, opened[i])
		done.put = append(done.put, h.ID.String())
	}
	r.faulty(&o, refusals, &done)
	r.noteIndexes(t, b.report.Scopes)

	old := r.memory
	r.memory = r.remember(&o)
	if len(change.Opened) > 0 || change.Token != nil || r.behind(o.now) {
		if err = r.write(ctx, change); err != nil && !errors.Is(err, sealed.ErrUnwritten) {
			// As if nobody had looked, so that it is looked at again.
			clear(o.put)
			clear(r.indexes)
			done.put, done.whole, r.memory = nil, false, old
		}
	}
	r.held.put(o.put)
	standing := r.standings()
	for _, h := range o.put {
		standing(h).give(h)
	}
	if len(done.put)+len(done.removed)+len(o.read) > 0 || r.memory.unlike(&old) {
		r.o.Activate(r.snapshot())
	}
	for _, path := range slices.Sorted(maps.Keys(r.faults)) {
		done.faults = append(done.faults, Fault{path, r.faults[path]})
	}
	return done, err
}

// noteIndexes keeps how far the scopes' indexes have been dealt with.
func (r *Refresher) noteIndexes(t task, scopes []errand.Scope) {
	if len(t.only) > 0 {
		return
	}
	for _, s := range scopes {
		switch {
		case s.Index != nil:
			r.indexes[s.Scope] = *s.Index
		case s.Code == OK:
			delete(r.indexes, s.Scope)
		}
	}
}

// judge refuses what this machine did not ask for or could not use, and says
// whether reading it again may help.
func (r *Refresher) judge(record *sealed.Opened) (again bool, err error) {
	if record.Err != nil {
		return true, record.Err
	}
	h := record.Held
	if !r.serves(h.ID.Scope) {
		return true, fmt.Errorf("scope %q is not configured here", h.ID.Scope)
	}
	if old := r.held.get(h.ID); old != nil && h.Compare(&old.Entry) < 0 {
		return true, fmt.Errorf("version %d of %s is older than version %d, which this machine has", h.Version, h.Created.Format(time.RFC3339), old.Version)
	}
	if h.Policy != nil {
		return false, r.o.Check(&h.Entry)
	}
	return false, nil
}
