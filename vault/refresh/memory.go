package refresh

import (
	"maps"
	"slices"
	"strings"
	"time"

	"batchwarden/vault/errand"
	"batchwarden/vault/snapshot"
)

// memory is what has to survive a restart beside the records. It is sealed with
// them.
type memory struct {
	LastSuccess time.Time               `json:"last_success,omitzero"`
	Confirmed   map[string]time.Time    `json:"confirmed"`          // by scope: when all of it was looked at
	Fresh       map[string]time.Time    `json:"fresh,omitempty"`    // by path: it alone was read, later than its scope
	Behind      map[string]behindRecord `json:"behind,omitempty"`   // by path: the newer document was refused
	Rejected    map[string]rejection    `json:"rejected,omitempty"` // by path: callers say that the password is no good
	Attempts    map[string]attempt      `json:"attempts,omitempty"` // by path: the password was tried here
	Clock       mark                    `json:"clock,omitzero"`
}

// behindRecord is an entry that Vault has a newer version of, which we refuse:
// it does not get any fresher.
type behindRecord struct {
	Since time.Time `json:"since"`
	Why   string    `json:"why"`
}

// rejection is of one version of an entry.
type rejection struct {
	Created time.Time `json:"created"`
	Version int64     `json:"version"`
	Turn    int64     `json:"turn,omitempty"`
	Since   time.Time `json:"since"`
}

// attempt is made with one version of an entry, since when it has begun.
type attempt struct {
	rejection
	Outcome string `json:"outcome,omitempty"`
}

func (j rejection) of(e *snapshot.Entry) bool {
	return j.Created.Equal(e.Created) && j.Version == e.Version && j.Turn == e.Turn
}

// paths are those of documents of which more is remembered than of their scope.
func (m *memory) paths() []string {
	list := slices.AppendSeq(slices.Collect(maps.Keys(m.Fresh)), maps.Keys(m.Behind))
	return slices.AppendSeq(slices.AppendSeq(list, maps.Keys(m.Rejected)), maps.Keys(m.Attempts))
}

// unlike reports whether the difference to what was written before must not
// wait to be written.
func (m *memory) unlike(saved *memory) bool {
	return !maps.EqualFunc(m.Fresh, saved.Fresh, time.Time.Equal) ||
		!maps.EqualFunc(m.Behind, saved.Behind, func(a, b behindRecord) bool { return a.Why == b.Why && a.Since.Equal(b.Since) }) ||
		!maps.EqualFunc(m.Rejected, saved.Rejected, func(a, b rejection) bool { return a.Since.Equal(b.Since) && a.Version == b.Version }) ||
		!maps.EqualFunc(m.Attempts, saved.Attempts, func(a, b attempt) bool { return a.Since.Equal(b.Since) && a.Outcome == b.Outcome })
}

// confirmed is when Vault last said that what is held at path is in force.
func (m *memory) confirmed(id snapshot.ID, path string) time.Time {
	if b, behind := m.Behind[path]; behind {
		return b.Since
	}
	return later(m.Confirmed[id.Scope], m.Fresh[path])
}

// outcome is a report as it was judged here.
type outcome struct {
	report  errand.Report
	read    map[string]bool // scopes of which everything was looked at
	put     map[snapshot.ID]*snapshot.Held
	refused map[string]string // by path: why
	now     time.Time
}

// remember is the memory after o: a scope that was read whole is confirmed, and
// so is what was read by itself, but for the documents whose newer version was
// refused.
func (r *Refresher) remember(o *outcome) memory {
	next := memory{
		LastSuccess: r.memory.LastSuccess, Confirmed: maps.Clone(r.memory.Confirmed),
		Fresh: map[string]time.Time{}, Behind: map[string]behindRecord{}, Rejected: map[string]rejection{}, Attempts: map[string]attempt{},
	}
	for scope := range o.read {
		next.Confirmed[scope] = o.now
	}
	keep := func(e *snapshot.Entry) {
		id, path := e.ID, e.ID.String()
		_, isPut := o.put[id]
		was, wasBehind := r.memory.Behind[path]
		fresh, wasFresh := r.memory.Fresh[path]
		switch why, isRefused := o.refused[path]; {
		case isRefused:
			next.Behind[path] = behindRecord{r.memory.confirmed(id, path), why}
		case isPut && !o.read[id.Scope]:
			next.Fresh[path] = o.now
		case isPut || o.read[id.Scope]:
		case wasBehind:
			next.Behind[path] = was
		case wasFresh:
			next.Fresh[path] = fresh
		}
		if j, is := r.memory.Rejected[path]; is && j.of(e) {
			next.Rejected[path] = j
		}
		if a, is := r.memory.Attempts[path]; is && a.of(e) {
			next.Attempts[path] = a
		}
	}
	for _, h := range r.held.named(slices.Concat(slices.Collect(maps.Keys(o.refused)), r.memory.paths())) {
		if _, isPut := o.put[h.ID]; !isPut {
			keep(&h.Entry)
		}
	}
	for _, h := range o.put {
		keep(&h.Entry)
	}
	if o.report.Code == OK {
		next.LastSuccess = o.now
	}
	return next
}

// faulty takes over which documents this machine cannot use: of a scope that
// was read whole exactly those, of others those too.
func (r *Refresher) faulty(o *outcome, refusals []errand.Refused, done *accepted) {
	scopeOf := func(path string) string {
		for _, scope := range r.settings().Scopes {
			if strings.HasPrefix(path, scope+"/") {
				return scope
			}
		}
		return ""
	}
	for path := range r.faults {
		if scope := scopeOf(path); scope == "" || o.read[scope] {
			delete(r.faults, path)
		}
	}
	for _, path := range slices.Concat(done.put, done.removed) {
		delete(r.faults, path)
		delete(r.refused, path)
	}
	maps.Copy(r.faults, o.refused)
	for path, known := range r.refused {
		if _, still := o.refused[path]; o.read[known.ID.Scope] && !still {
			delete(r.refused, path)
		}
	}
	for _, f := range refusals {
		r.refused[f.ID.String()] = f
	}
}

// refusals are the versions that the worker refused.
func (r *Refresher) refusals(faults []errand.Fault) (list []errand.Refused) {
	for _, f := range faults {
		if id, ok := idOf(f.Path); ok && r.serves(id.Scope) && f.Version > 0 {
			list = append(list, errand.Refused{ID: id, Version: f.Version, Created: f.Created, Detail: f.Detail})
		}
	}
	return list
}

// idOf is the reverse of snapshot.ID's String.
func idOf(path string) (snapshot.ID, bool) {
	name := path[strings.LastIndex(path, "/")+1:]
	for _, kind := range []snapshot.Kind{snapshot.BatchUserKind, snapshot.PolicyKind} {
		scope, ok := strings.CutSuffix(path, snapshot.ID{Kind: kind, Name: name}.String())
		if ok && scope != "" && name != "" {
			return snapshot.ID{Scope: scope, Kind: kind, Name: name}, true
		}
	}
	return snapshot.ID{}, false
}
