package remote

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"batchwarden/vault/errand"
	"batchwarden/vault/snapshot"
)

// view is one scope as the server showed it.
type view struct {
	scope  string
	lists  map[snapshot.Kind]*trouble // nil: the list was answered whole
	seen   map[snapshot.ID]sight      // every name that was listed
	faults []errand.Fault             // names that were listed and are none
}

// state is what is known of one document.
type state int

const (
	present   state = iota // metadata was answered: version and created are the current ones
	gone                   // its metadata or itself says deleted or destroyed
	forbidden              // 403 on this path
	unknown                // no answer, or half of one
	refused                // it was read, and is not what it should be
)

type sight struct {
	state   state
	version int64
	created time.Time
	why     *trouble // gone, unknown, refused: in words
}

// verdict is what follows for one scope.
type verdict struct {
	scope   errand.Scope
	read    []snapshot.ID // newer than known: to be read
	removed []errand.Removed
	faults  []errand.Fault
	// doubtful: so much would be removed that it takes a second look.
	doubtful bool
}

// decide says what changes in one scope, given what was known of it and what
// was observed. It reads no clock and asks nobody. It may be called again when
// more of v is known.
func decide(known []errand.Known, v *view) verdict {
	d := verdict{scope: errand.Scope{Scope: v.scope, Code: errand.OK}, faults: slices.Clone(v.faults)}
	whole := true
	fail := func(t *trouble) {
		whole = false
		if d.scope.Code == errand.OK {
			d.scope.Code, d.scope.Detail = t.code, t.detail
		}
	}
	for _, kind := range []snapshot.Kind{snapshot.BatchUserKind, snapshot.PolicyKind} {
		if t := v.lists[kind]; t != nil {
			fail(t)
		}
	}
	listed := whole
	believe := believed(v)
	if !believe {
		fail(&trouble{errand.Forbidden, fmt.Sprintf("more than half of the %d documents are forbidden", len(v.seen))})
	}
	knew := map[snapshot.ID]errand.Known{}
	for _, k := range known {
		if k.ID.Scope != v.scope {
			continue
		}
		knew[k.ID] = k
		if _, ok := v.seen[k.ID]; !ok && listed {
			d.removed = append(d.removed, errand.Removed{ID: k.ID, Why: "it is not listed any more"})
		}
	}
	for _, id := range sorted(v.seen) {
		s := v.seen[id]
		k, have := knew[id]
		switch s.state {
		case present:
			switch order := compare(s, k); {
			case !have || order > 0:
				d.read = append(d.read, id)
			case order < 0:
				d.faults = append(d.faults, errand.Fault{Path: id.String(), Detail: olderText(s, k)})
			}
		case gone:
			if have && listed {
				d.removed = append(d.removed, errand.Removed{ID: id, Why: s.why.detail})
			}
		case forbidden:
			if have && listed && believe {
				d.removed = append(d.removed, errand.Removed{ID: id, Why: "this machine may not read it any more"})
			}
		case unknown:
			fail(s.why)
			d.faults = append(d.faults, errand.Fault{Path: id.String(), Detail: s.why.Error()})
		case refused:
			d.faults = append(d.faults, errand.Fault{Path: id.String(), Detail: s.why.detail})
		}
	}
	slices.SortFunc(d.removed, func(a, b errand.Removed) int { return order(a.ID, b.ID) })
	d.doubtful = massive(len(d.removed), len(knew))
	d.scope.Read = whole
	return d
}

// believed reports whether single refusals can be taken for the withdrawal of
// single documents: when more than half of a scope is forbidden, it is rather
// the machine's Vault policy that is broken.
func believed(v *view) bool {
	n := 0
	for _, s := range v.seen {
		if s.state == forbidden {
			n++
		}
	}
	return 2*n <= len(v.seen)
}

// massive reports a loss that takes a second look: of everything, or of over
// half of twenty or more.
func massive(lost, known int) bool {
	return lost > 0 && (lost == known || known >= 20 && 2*lost > known)
}

// compare orders by (created, version): a document that was removed for good
// and written anew begins with version 1 again.
func compare(s sight, k errand.Known) int {
	return cmp.Or(s.created.Compare(k.Created), cmp.Compare(s.version, k.Version))
}

func olderText(s sight, k errand.Known) string {
	return fmt.Sprintf("older: Vault has version %d of %s, this machine version %d of %s",
		s.version, s.created.UTC().Format(time.RFC3339), k.Version, k.Created.UTC().Format(time.RFC3339))
}

// agree leaves of d's removals those that the second look shows too. It does
// nothing else: what the second look found beyond them waits for the next run.
func agree(d, second verdict) verdict {
	again := map[snapshot.ID]bool{}
	for _, r := range second.removed {
		again[r.ID] = true
	}
	before := len(d.removed)
	d.removed = slices.DeleteFunc(d.removed, func(r errand.Removed) bool { return !again[r.ID] })
	n := before - len(d.removed)
	switch {
	case n == 0:
		return d
	case second.scope.Code != errand.OK:
		return doubt(d, &trouble{second.scope.Code, second.scope.Detail})
	}
	return doubt(d, &trouble{errand.Answer, fmt.Sprintf("%d documents were missing at one look and not at the next", n)})
}

// doubt makes d a scope that was not read.
func doubt(d verdict, t *trouble) verdict {
	d.scope.Read = false
	if d.scope.Code == errand.OK {
		d.scope.Code, d.scope.Detail = t.code, t.detail
	}
	return d
}

// index is a scope's own account of itself.
type index struct {
	removed bool                              // the machine is to drop everything
	names   map[snapshot.Kind]map[string]bool // a kind that is missing was not accounted for
}

// confirms reports whether the index, which was read, accounts for every kind
// that would be removed and names none of it.
func (x *index) confirms(removed []errand.Removed) bool {
	return x != nil && !slices.ContainsFunc(removed, func(r errand.Removed) bool {
		names, ok := x.names[r.ID.Kind]
		return !ok || names[r.ID.Name]
	})
}

func sorted(m map[snapshot.ID]sight) []snapshot.ID {
	ids := make([]snapshot.ID, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, order)
	return ids
}

func order(a, b snapshot.ID) int {
	return cmp.Or(strings.Compare(string(a.Kind), string(b.Kind)), strings.Compare(a.Name, b.Name))
}
