package remote

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"batchwarden/platform/secret"
	"batchwarden/vault/documents"
	"batchwarden/vault/errand"
	"batchwarden/vault/snapshot"
)

// view is one scope as the server showed it.
type view struct {
	secret.Mute
	scope  string
	part   bool                       // no list was asked for: what is not seen may be there
	lists  map[snapshot.Kind]*trouble // nil: the list was answered whole
	seen   map[snapshot.ID]sight      // what was listed, or is looked at; all of it that is known
	faults []errand.Fault             // names that were listed and are none, or too many
	hint   hint
}

// state is what is known of one document.
type state int

const (
	present   state = iota // version and created are the current ones
	gone                   // its metadata or itself says deleted or destroyed
	forbidden              // 403 on this path
	absent                 // 404 that says nothing more
	unknown                // no answer, or half of one
	refused                // it was read, and is not what it should be
	unread                 // not looked at, because it is to be read anyway
)

type sight struct {
	secret.Mute
	state   state
	version int64
	created time.Time
	why     *trouble // gone, unknown, refused: in words
	read    bool     // present: it was read and handed on
	again   again    // refused: when reading it again may help
	source  *trouble // present: where its password lies could not be read
}

// again says when a refused document is to be read again.
type again int

const (
	never again = iota // this version stays what it is
	later              // at the next sweep
	soon               // at the next look
)

// verdict is what follows for one scope.
type verdict struct {
	scope   errand.Scope
	read    []snapshot.ID // newer than known, or unknown: to be read
	removed []errand.Removed
	faults  []errand.Fault

	doubtful bool // so much would be removed that it takes a second look
	sweep    bool // only a look at the whole scope can tell
	open     bool // something is to be looked at again, whatever the index says
}

// knowledge is what the daemon said of one scope.
type knowledge struct {
	known   known
	refused map[snapshot.ID]errand.Refused
}

// known are documents of one scope in order of their IDs, and so those of each
// kind in order of their names. A poll makes one of thousands and asks for few of
// them, so it is no map.
type known []errand.Known

func (k known) sort() {
	inOrder := func(a, b errand.Known) int { return a.ID.Compare(b.ID) }
	if !slices.IsSortedFunc(k, inOrder) {
		slices.SortFunc(k, inOrder)
	}
}

// get returns the document and whether it is known.
func (k known) get(id snapshot.ID) (*errand.Known, bool) {
	i, have := slices.BinarySearchFunc(k, id, func(k errand.Known, id snapshot.ID) int { return k.ID.Compare(id) })
	if !have {
		return nil, false
	}
	return &k[i], true
}

// decide says what changes in one scope, given what was known of it and what
// was observed. It reads no clock and asks nobody. It may be called again when
// more of v is known.
func decide(k knowledge, v *view) verdict {
	d := verdict{scope: errand.Scope{Scope: v.scope, Code: errand.OK}, faults: slices.Clone(v.faults)}
	whole := !v.part
	fail := func(t *trouble) {
		whole, d.open = false, true
		if d.scope.Code == errand.OK {
			d.scope.Code, d.scope.Detail = t.code, t.detail
		}
	}
	if t := v.hint.trouble; t != nil && v.part {
		fail(t)
	}
	for _, kind := range kinds {
		if t := v.lists[kind]; t != nil {
			fail(t)
		}
	}
	listed := whole
	believe := v.part || believed(v)
	if !believe {
		fail(&trouble{errand.Forbidden, fmt.Sprintf("more than half of the %d documents are forbidden", len(v.seen))})
	}
	lose := func(id snapshot.ID, why string) {
		switch _, have := k.known.get(id); {
		case !have:
		case v.part:
			d.sweep = true
		case listed:
			d.removed = append(d.removed, errand.Removed{ID: id, Why: why})
		}
	}
	if listed {
		for _, have := range k.known {
			if _, seen := v.seen[have.ID]; !seen {
				lose(have.ID, "it is not listed any more")
			}
		}
	}
	for _, id := range sorted(v.seen) {
		switch s := v.seen[id]; s.state {
		case present:
			d.compare(k, id, s)
		case unread:
			d.read = append(d.read, id)
		case gone:
			lose(id, s.why.detail)
		case forbidden:
			if believe {
				lose(id, "this machine may not read it any more")
			}
		case absent:
			if v.part {
				lose(id, "it has no metadata")
				continue
			}
			t := &trouble{errand.Missing, "it is listed and has no metadata"}
			fail(&trouble{t.code, id.String() + ": " + t.detail})
			d.faults = append(d.faults, errand.Fault{Path: id.String(), Detail: t.Error()})
		case unknown:
			fail(s.why)
			d.faults = append(d.faults, errand.Fault{Path: id.String(), Detail: s.why.Error()})
		case refused:
			f := errand.Fault{Path: id.String(), Detail: s.why.detail}
			switch s.again {
			case never:
				f.Version, f.Created = s.version, s.created
			case soon:
				d.open = true
			}
			d.faults = append(d.faults, f)
		}
	}
	slices.SortFunc(d.removed, func(a, b errand.Removed) int { return order(a.ID, b.ID) })
	d.doubtful = massive(len(d.removed), len(k.known))
	d.scope.Read = whole
	return d
}

// compare says what follows from the version that is in Vault.
func (d *verdict) compare(k knowledge, id snapshot.ID, s sight) {
	known, have := k.known.get(id)
	newer := !have || compare(s, known) > 0
	before, wasRefused := k.refused[id]
	switch {
	case newer && s.read:
	case newer && wasRefused && before.Version == s.version && before.Created.Equal(s.created):
		d.faults = append(d.faults, errand.Fault{Path: id.String(), Detail: before.Detail, Version: s.version, Created: s.created})
	case newer:
		d.read = append(d.read, id)
	case compare(s, known) < 0:
		d.faults = append(d.faults, errand.Fault{Path: id.String(), Detail: olderText(s, known)})
	case s.source != nil:
		d.faults = append(d.faults, errand.Fault{Path: id.String(), Detail: s.source.detail})
	}
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
func compare(s sight, k *errand.Known) int {
	return cmp.Or(s.created.Compare(k.Created), cmp.Compare(s.version, k.Version))
}

func olderText(s sight, k *errand.Known) string {
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
	d.scope.Read, d.open = false, true
	if d.scope.Code == errand.OK {
		d.scope.Code, d.scope.Detail = t.code, t.detail
	}
	return d
}

// index is a scope's own account of itself.
type index struct {
	removed bool                       // the machine is to drop everything
	names   map[snapshot.Kind]versions // a kind that is missing was not accounted for
}

// versions are names and the versions that an index says they have, in order of
// the names.
type versions []version

type version struct {
	name   string
	number int64
}

// get returns the version of name and whether it is there.
func (v versions) get(name string) (int64, bool) {
	i, there := slices.BinarySearchFunc(v, name, func(v version, name string) int { return strings.Compare(v.name, name) })
	if !there {
		return 0, false
	}
	return v[i].number, true
}

// confirms reports whether the index, which was read, accounts for every kind
// that would be removed and names none of it.
func (x *index) confirms(removed []errand.Removed) bool {
	return x != nil && !slices.ContainsFunc(removed, func(r errand.Removed) bool {
		names, ok := x.names[r.ID.Kind]
		_, named := names.get(r.ID.Name)
		return !ok || named
	})
}

// news is what the index hints at, beyond what is known of the scope. whole is
// true when it does not account for a kind, or does not name all that is known:
// then only lists and metadata can tell about the rest.
func (x *index) news(k knowledge, scope string) (ids []snapshot.ID, whole bool) {
	if len(x.names) < len(kinds) {
		return nil, true
	}
	hint := func(kind snapshot.Kind, name string) {
		if documents.GoodName(name) {
			ids = append(ids, snapshot.ID{Scope: scope, Kind: kind, Name: name})
		}
	}
	left := maps.Clone(x.names) // both are in order, and a document that is passed by is not known
	for _, have := range k.known {
		kind, names := have.ID.Kind, left[have.ID.Kind]
		for len(names) > 0 && names[0].name < have.ID.Name {
			hint(kind, names[0].name)
			names = names[1:]
		}
		if len(names) == 0 || names[0].name != have.ID.Name {
			return nil, true
		}
		if names[0].number != have.Version {
			ids = append(ids, have.ID)
		}
		left[kind] = names[1:]
	}
	for kind, names := range left {
		for _, v := range names {
			hint(kind, v.name)
		}
	}
	slices.SortFunc(ids, order)
	return ids, false
}

func sorted(m map[snapshot.ID]sight) []snapshot.ID {
	ids := make([]snapshot.ID, 0, len(m))
	for id := range m {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, order)
	return ids
}

// order puts policies behind batch users, and each in order of name.
func order(a, b snapshot.ID) int {
	return cmp.Or(strings.Compare(string(a.Kind), string(b.Kind)), strings.Compare(a.Name, b.Name))
}
