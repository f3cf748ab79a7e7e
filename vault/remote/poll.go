package remote

import (
	"context"
	"encoding/json"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"

	"batchwarden/vault/documents"
	"batchwarden/vault/errand"
	"batchwarden/vault/snapshot"
)

// small is how many known documents of a scope without an index are looked at
// in every run. A larger one waits for the sweep.
const small = 50

// oneByOne is how many scopes are seen over one connection: until another one is
// there it has taken as many round trips, and each end its work.
const oneByOne = 4

// hint is a scope's index, as far as it was asked for.
type hint struct {
	before  *errand.Index // what the task says
	now     *errand.Index // what is there; nil: none, or none that is understood
	index   *index        // what it says, once it was read
	trouble *trouble      // it could not be asked for
}

// same reports whether everything that the index hints at was looked at before.
func (h *hint) same() bool {
	return h.now != nil && h.before != nil && h.now.Version == h.before.Version && h.now.Created.Equal(h.before.Created)
}

// news reports whether there is an index that was not dealt with.
func (h *hint) news() bool { return h.now != nil && !h.same() }

// next is the index for the next task. As long as something that it hints at is
// open, it stays the one from before, so that the next run looks again.
func (h *hint) next(open bool) *errand.Index {
	if open || h.trouble != nil {
		return h.before
	}
	return h.now
}

// sortTask sorts what the task says by scope.
func (r *run) sortTask() {
	r.rejected = map[string]map[snapshot.ID]errand.Refused{}
	r.room = room{maxDocuments, map[snapshot.ID]bool{}}
	for _, s := range r.source.scopes {
		r.rejected[s] = map[snapshot.ID]errand.Refused{}
		r.room.left -= r.task.Held[s]
	}
	for _, f := range r.task.Refused {
		if in, ok := r.rejected[f.ID.Scope]; ok {
			in[f.ID] = f
		}
	}
	r.learn = sync.OnceFunc(func() { r.known = byScope(r.ask()) })
}

// ask asks for what is known. An error ends the run, in which nothing counts then.
func (r *run) ask() []errand.Known {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.putErr != nil {
		return nil
	}
	all, err := r.out.Known()
	if err != nil {
		r.putErr = err
		r.stop(err)
	}
	return all
}

// byScope sorts what is known by scope. The daemon says it in order.
func byScope(all []errand.Known) map[string]known {
	m := map[string]known{}
	for i := 0; i < len(all); {
		scope, end := all[i].ID.Scope, i
		for ; end < len(all) && all[end].ID.Scope == scope; end++ {
		}
		if m[scope] == nil {
			m[scope] = all[i:end:end]
		} else {
			m[scope] = append(m[scope], all[i:end]...)
		}
		i = end
	}
	for _, k := range m {
		k.sort()
	}
	return m
}

// learnAhead lets what is known come while something else is waited for.
func (r *run) learnAhead() {
	if len(r.task.Held) > 0 {
		r.asking.Go(r.learn)
	}
}

// knowledge is what is known of a scope, once that is there.
func (r *run) knowledge(scope string) knowledge {
	k := knowledge{refused: r.rejected[scope]}
	if r.task.Held[scope] > 0 {
		r.learn()
		k.known = r.known[scope]
	}
	return k
}

// compared is what the documents that were looked at are compared with. Where
// none was, nothing need be known.
func (r *run) compared(v *view) knowledge {
	if v.part && len(v.seen) == 0 {
		return knowledge{}
	}
	return r.knowledge(v.scope)
}

// survey looks at every scope: at all of it, or at what its index hints at. It
// returns nil when the machine's own index says that it is to drop everything,
// before any document is asked for, and when the run was stopped. The first few
// requests go one after another over one connection, which is all that a poll
// needs that finds nothing.
func (r *run) survey(ctx context.Context) []*view {
	scopes := r.source.scopes
	hints := make([]hint, len(scopes))
	see := func(i int) {
		hints[i] = r.seeIndex(ctx, scopes[i])
		if hints[i].news() {
			r.learnAhead()
		}
	}
	few := min(len(scopes), oneByOne)
	for i := range few {
		see(i)
	}
	each(len(scopes)-few, func(i int) { see(few + i) })
	each(len(scopes), func(i int) {
		if h := &hints[i]; h.news() && (i == 0 || !r.task.Sweep) {
			h.read(r.readIndex(ctx, scopes[i]))
		}
	})
	if x := hints[0].index; x != nil && x.removed || ctx.Err() != nil {
		return nil
	}
	views := make([]*view, len(scopes))
	for i, s := range scopes {
		views[i] = r.follow(ctx, s, hints[i])
	}
	return views
}

// seeIndex asks which version of its index a scope has.
func (r *run) seeIndex(ctx context.Context, scope string) hint {
	h := hint{}
	for i := range r.task.Indexes {
		if x := &r.task.Indexes[i]; x.Scope == scope {
			h.before = x
		}
	}
	switch s := r.metadata(ctx, scope+"/index"); s.state {
	case present:
		h.now = &errand.Index{Scope: scope, Version: s.version, Created: s.created}
	case forbidden:
		h.trouble = &trouble{errand.Forbidden, "index: permission denied"}
	case unknown:
		h.trouble = s.why
	}
	return h
}

// read takes what the index says. Its version is then the one that was read.
func (h *hint) read(x *index, at errand.Index, t *trouble) {
	switch {
	case t != nil:
		h.trouble = t
	case x == nil:
		h.now = nil // a hint that cannot be read is none
	default:
		at.Scope = h.now.Scope
		h.index, h.now = x, &at
	}
}

// follow looks at a scope as far as its index hints at something, and at all of
// it where that cannot tell.
func (r *run) follow(ctx context.Context, scope string, h hint) *view {
	switch {
	case r.task.Sweep:
		return r.observe(ctx, scope, h)
	case h.trouble != nil && h.trouble.code != errand.Forbidden, h.same():
		return r.glance(ctx, scope, h, nil)
	case h.index != nil:
		if ids, whole := h.index.news(r.knowledge(scope), scope); !whole {
			return r.glance(ctx, scope, h, ids)
		}
		return r.observe(ctx, scope, h)
	case r.task.Held[scope] <= small:
		return r.observe(ctx, scope, h)
	}
	return r.glance(ctx, scope, h, nil)
}

// glances looks at what the task names and at nothing else.
func (r *run) glances(ctx context.Context) []*view {
	in := map[string][]snapshot.ID{}
	for _, id := range r.task.Only {
		in[id.Scope] = append(in[id.Scope], id)
	}
	for _, id := range r.task.Sources {
		if in[id.Scope] == nil {
			in[id.Scope] = []snapshot.ID{}
		}
	}
	views := []*view{}
	for _, scope := range r.source.scopes {
		if ids, ok := in[scope]; ok {
			h := hint{}
			for i := range r.task.Indexes {
				if x := &r.task.Indexes[i]; x.Scope == scope {
					h.before, h.now = x, x
				}
			}
			views = append(views, r.glance(ctx, scope, h, ids))
		}
	}
	return views
}

// glance looks at some documents of a scope. It can bring something new; what
// is missing takes a look at the whole scope.
func (r *run) glance(ctx context.Context, scope string, h hint, ids []snapshot.ID) *view {
	v := &view{scope: scope, part: true, seen: map[snapshot.ID]sight{}, hint: h}
	if len(ids) > 0 {
		v.admit(r.knowledge(scope), slices.DeleteFunc(slices.Clone(ids), func(id snapshot.ID) bool { return !isDocument(id) }), &r.room)
		r.examine(ctx, v)
	}
	return v
}

// account is what the scope's index says, read now if it was not yet; nil when
// there is none.
func (r *run) account(ctx context.Context, v *view) (*index, *trouble) {
	if v.hint.index == nil && v.hint.now != nil {
		v.hint.read(r.readIndex(ctx, v.scope))
	}
	return v.hint.index, v.hint.trouble
}

// readIndex reads a scope's index; nil when there is none, or none that is understood.
func (r *run) readIndex(ctx context.Context, scope string) (*index, errand.Index, *trouble) {
	a, t := r.do(ctx, "data/"+scope+"/index", nil)
	switch {
	case t != nil:
		return nil, errand.Index{}, t
	case a.status == http.StatusForbidden:
		return nil, errand.Index{}, &trouble{errand.Forbidden, "index: permission denied"}
	case a.status >= 400:
		return nil, errand.Index{}, nil
	}
	doc, t := documentOf(a)
	if t != nil {
		return nil, errand.Index{}, t
	}
	return parseIndex(doc.text), errand.Index{Version: doc.age.Version, Created: doc.age.Created}, nil
}

// parseIndex is nil for an index that this program does not understand: a hint
// that cannot be read is none.
func parseIndex(text []byte) *index {
	var o map[string]part
	if json.Unmarshal(text, &o) != nil || o == nil {
		return nil
	}
	format, x := int64(1), &index{names: map[snapshot.Kind]versions{}}
	if !optional(o, "format", &format) || format < 1 || format > documents.Newest || !optional(o, "removed", &x.removed) {
		return nil
	}
	for _, kind := range kinds {
		text, given := o[folders[kind]]
		if !given {
			continue
		}
		names, plain := plainVersions(string(text))
		if !plain {
			var m map[string]int64
			if _ = json.Unmarshal(text, &m); m == nil { // what is no number is 0, which is no version
				return nil
			}
			for _, name := range slices.Sorted(maps.Keys(m)) {
				names = append(names, version{name, m[name]})
			}
		}
		x.names[kind] = names
	}
	return x
}

// plainVersions reads {"NAME":VERSION,…} as Vault answers it: without space, in
// order. Of anything else, which need not be wrong, it takes nothing. A JSON
// decoder takes three times as long, which shows in a poll over thousands.
func plainVersions(text string) (names versions, plain bool) {
	if !strings.HasPrefix(text, "{") || !strings.HasSuffix(text, "}") {
		return nil, false
	}
	names = make(versions, 0, strings.Count(text, ":"))
	before := ""
	for rest := text[1 : len(text)-1]; len(rest) > 0; {
		member, more, _ := strings.Cut(rest, ",")
		quoted, number, _ := strings.Cut(member, ":")
		n, err := strconv.ParseUint(number, 10, 63)
		last := len(quoted) - 1
		if err != nil || number[0] == '0' || last < 2 || quoted[0] != '"' || quoted[last] != '"' {
			return nil, false
		}
		name := quoted[1:last]
		if name <= before || !documents.GoodName(name) {
			return nil, false
		}
		names = append(names, version{name, int64(n)})
		before, rest = name, more
	}
	return names, true
}

// part is a piece of JSON where it lies: of a text that json.Unmarshal was given
// and nobody changes. An index is long, and would be copied at every level.
type part []byte

func (p *part) UnmarshalJSON(text []byte) error { *p = text; return nil }

// optional fills in v from a member, if there is one, and reports whether it could.
func optional(o map[string]part, name string, v any) bool {
	text, given := o[name]
	return !given || string(text) != "null" && json.Unmarshal(text, v) == nil
}
