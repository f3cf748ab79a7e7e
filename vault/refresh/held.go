package refresh

import (
	"slices"
	"time"

	"batchwarden/vault/snapshot"
)

// entries are documents in order of their IDs. Snapshots share them, so one that changes is replaced.
type entries []*snapshot.Held

// get returns the document; nil when there is none.
func (e entries) get(id snapshot.ID) *snapshot.Held {
	if i, found := e.find(id); found {
		return e[i]
	}
	return nil
}

func (e entries) find(id snapshot.ID) (int, bool) {
	return slices.BinarySearchFunc(e, id, func(h *snapshot.Held, id snapshot.ID) int { return h.ID.Compare(id) })
}

func (e entries) sort() {
	slices.SortFunc(e, func(a, b *snapshot.Held) int { return a.ID.Compare(b.ID) })
}

// named are the documents at these paths, as far as there are any.
func (e entries) named(paths []string) (list []*snapshot.Held) {
	for _, path := range paths {
		if id, ok := idOf(path); ok {
			if h := e.get(id); h != nil {
				list = append(list, h)
			}
		}
	}
	return list
}

// put adds documents, in the place of those that are there.
func (e *entries) put(documents map[snapshot.ID]*snapshot.Held) {
	old := len(*e)
	for id, h := range documents {
		if i, found := (*e)[:old].find(id); found {
			(*e)[i] = h
		} else {
			*e = append(*e, h)
		}
	}
	if len(*e) > old {
		e.sort()
	}
}

// remove takes documents out.
func (e *entries) remove(gone map[snapshot.ID]bool) {
	if len(gone) > 0 {
		*e = slices.DeleteFunc(*e, func(h *snapshot.Held) bool { return gone[h.ID] })
	}
}

// standing is what is known of a document beside what it says.
type standing struct {
	confirmed time.Time
	fault     string
	rejected  time.Time
}

// standings returns what tells a held document's standing. Most have that of
// their scope; looking for more would cost more than all else after a change.
func (r *Refresher) standings() func(*snapshot.Held) standing {
	own := map[*snapshot.Held]bool{}
	for _, h := range r.held.named(r.memory.paths()) {
		own[h] = true
	}
	return func(h *snapshot.Held) standing {
		if !own[h] {
			return standing{confirmed: r.memory.Confirmed[h.ID.Scope]}
		}
		path := h.ID.String()
		s := standing{confirmed: r.memory.confirmed(h.ID, path), fault: r.memory.Behind[path].Why}
		if j, is := r.memory.Rejected[path]; is && j.of(&h.Entry) {
			s.rejected = j.Since
		}
		return s
	}
}

func (s standing) is(h *snapshot.Held) bool {
	return s.confirmed.Equal(h.Confirmed) && s.fault == h.Fault && s.rejected.Equal(h.Rejected)
}

// give makes s the standing of a document that no snapshot has yet.
func (s standing) give(h *snapshot.Held) {
	h.Confirmed, h.Fault, h.Rejected = s.confirmed, s.fault, s.rejected
}

// snapshot is what is held, with the time of Vault's last word on each.
func (r *Refresher) snapshot() *snapshot.Snapshot {
	standing := r.standings()
	serve := make([]*snapshot.Held, 0, len(r.held))
	for i, h := range r.held {
		if !r.serves(h.ID.Scope) {
			continue
		}
		if s := standing(h); !s.is(h) {
			h = new(*h)
			s.give(h)
			r.held[i] = h
		}
		serve = append(serve, h)
	}
	s := r.replaced(serve)
	if s == nil {
		s = snapshot.New(r.o.Machine, serve)
	}
	r.last, r.served = s, serve
	return s
}

// replaced is the last snapshot with what is another one in serve; nil where they are not the same documents.
func (r *Refresher) replaced(serve []*snapshot.Held) *snapshot.Snapshot {
	if r.last == nil || len(serve) != len(r.served) {
		return nil
	}
	var newer []*snapshot.Held
	for i, h := range serve {
		switch was := r.served[i]; {
		case h == was:
		case h.ID != was.ID:
			return nil
		default:
			newer = append(newer, h)
		}
	}
	if len(newer) > len(serve)/8 {
		return nil // making all anew is cheaper
	}
	return r.last.Replaced(newer)
}
