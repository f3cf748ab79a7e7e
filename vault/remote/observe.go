package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"batchwarden/platform/secret"
	"batchwarden/vault/documents"
	"batchwarden/vault/errand"
	"batchwarden/vault/snapshot"
)

// maxDocuments bounds what a machine holds. Everything known has to fit the
// frame of the next task, with names and sources as long as they may be.
const maxDocuments = 20000

// maxBad bounds how many names of one list are reported that are none.
const maxBad = 100

var (
	kinds   = []snapshot.Kind{snapshot.PolicyKind, snapshot.BatchUserKind}
	folders = map[snapshot.Kind]string{snapshot.BatchUserKind: "batch_users", snapshot.PolicyKind: "policies"}
)

// isDocument reports whether id can name one.
func isDocument(id snapshot.ID) bool { return folders[id.Kind] != "" && documents.GoodName(id.Name) }

// observe looks at lists and metadata of one scope. Nothing unknown is looked
// at, as it is going to be read anyway.
func (r *run) observe(ctx context.Context, scope string, h hint) *view {
	v := &view{scope: scope, lists: map[snapshot.Kind]*trouble{}, seen: map[snapshot.ID]sight{}, hint: h}
	r.learnAhead()
	for _, kind := range kinds {
		ids, t := r.list(ctx, scope, kind, v)
		v.lists[kind] = t
		v.admit(r.knowledge(scope), ids, &r.room)
	}
	r.examine(ctx, v)
	return v
}

// examine asks for the metadata of what is known, or was refused before, and for
// the rights that this does not show.
func (r *run) examine(ctx context.Context, v *view) {
	k := r.knowledge(v.scope)
	ids := slices.DeleteFunc(sorted(v.seen), func(id snapshot.ID) bool {
		_, known := k.known.get(id)
		_, refused := k.refused[id]
		return !known && !refused
	})
	sights := make([]sight, len(ids))
	each(len(ids), func(i int) { sights[i] = r.metadata(ctx, ids[i].String()) })
	for i, id := range ids {
		v.seen[id] = sights[i]
	}
	r.capabilities(ctx, v)
}

// room is how many documents a machine may still take.
type room struct {
	left  int
	taken map[snapshot.ID]bool
}

// take reports whether there is room for id, which is asked once or often.
func (m *room) take(id snapshot.ID) bool {
	if m.taken[id] {
		return true
	}
	if m.left <= 0 {
		return false
	}
	m.left--
	m.taken[id] = true
	return true
}

// admit takes ids into the view: what is known, and of the rest, in order, what
// there is room for. What is left out is not known, so nothing of it can be lost.
func (v *view) admit(k knowledge, ids []snapshot.ID, m *room) {
	left := map[snapshot.Kind]int{}
	for _, id := range ids {
		if _, known := k.known.get(id); !known && !m.take(id) {
			left[id.Kind]++
			continue
		}
		v.seen[id] = sight{state: unread}
	}
	for _, kind := range kinds {
		if n := left[kind]; n > 0 {
			v.faults = append(v.faults, errand.Fault{Path: v.scope + "/" + folders[kind], Detail: fmt.Sprintf(
				"%d documents are left out: a machine takes %d in all", n, maxDocuments)})
		}
	}
}

// list returns the documents of one kind in order. Names that are none become faults of v.
func (r *run) list(ctx context.Context, scope string, kind snapshot.Kind, v *view) ([]snapshot.ID, *trouble) {
	at := scope + "/" + folders[kind]
	a, t := r.do(ctx, "metadata/"+at, url.Values{"list": {"true"}})
	switch {
	case t != nil:
		return nil, t
	case a.status == http.StatusNotFound && len(a.errors) == 0:
		return nil, nil // an empty folder answers like this
	case a.status >= 400:
		return nil, r.refusal(a, "list "+at)
	}
	var got struct {
		Data struct {
			Keys *[]string `json:"keys"`
		} `json:"data"`
	}
	if t := unmarshal(a, &got); t != nil {
		return nil, t
	}
	if got.Data.Keys == nil {
		return nil, &trouble{errand.Answer, "list " + at + ": an answer without a list"}
	}
	var ids []snapshot.ID
	bad := 0
	for _, key := range *got.Data.Keys {
		switch {
		case documents.GoodName(key):
			ids = append(ids, snapshot.ID{Scope: scope, Kind: kind, Name: key})
		case kind == snapshot.PolicyKind && strings.HasSuffix(key, ".parts/"):
		case bad < maxBad:
			v.faults = append(v.faults, errand.Fault{Path: clean(at + "/" + key), Detail: "not a name: 1 to 61 of A-Z a-z 0-9 . _ -"})
			fallthrough
		default:
			bad++
		}
	}
	if bad > maxBad {
		v.faults = append(v.faults, errand.Fault{Path: at, Detail: fmt.Sprintf("%d more names are not names", bad-maxBad)})
	}
	slices.SortFunc(ids, order)
	return slices.Compact(ids), nil
}

// metadata asks for the current version of the document at a path below the mount.
func (r *run) metadata(ctx context.Context, at string) sight {
	a, t := r.do(ctx, "metadata/"+at, nil)
	switch {
	case t != nil:
		return sight{state: unknown, why: t}
	case a.status == http.StatusForbidden:
		return sight{state: forbidden}
	case a.status == http.StatusNotFound && len(a.errors) == 0:
		return sight{state: absent}
	case a.status >= 400:
		return sight{state: unknown, why: r.refusal(a, "metadata")}
	}
	var got struct {
		Data struct {
			Current  *int64                `json:"current_version"`
			Versions map[string]versionAge `json:"versions"`
		} `json:"data"`
	}
	if t := unmarshal(a, &got); t != nil {
		return sight{state: unknown, why: t}
	}
	if got.Data.Current == nil {
		return sight{state: unknown, why: &trouble{errand.Answer, "metadata without a version"}}
	}
	n := *got.Data.Current
	if n == 0 {
		return sight{state: gone, why: &trouble{detail: "it has no version"}}
	}
	age, ok := got.Data.Versions[strconv.FormatInt(n, 10)]
	if !ok || age.Created.IsZero() {
		return sight{state: unknown, why: &trouble{errand.Answer, "metadata without its current version"}}
	}
	if why := age.gone(a.date); why != "" {
		return sight{state: gone, why: &trouble{detail: why}}
	}
	return sight{state: present, version: n, created: age.Created}
}

// versionAge is what Vault says of one version.
type versionAge struct {
	Version   int64     `json:"version"`
	Created   time.Time `json:"created_time"`
	Deletion  string    `json:"deletion_time"`
	Destroyed bool      `json:"destroyed"`
}

// gone says why this version exists no more, empty when it does. A deletion
// time may lie ahead, so it is held against the server's own clock, which shows
// whole seconds; only without one against ours.
func (a versionAge) gone(serverNow time.Time) string {
	if a.Destroyed {
		return "its current version was destroyed"
	}
	if a.Deletion == "" {
		return ""
	}
	if serverNow.IsZero() {
		serverNow = time.Now()
	}
	if t, err := time.Parse(time.RFC3339Nano, a.Deletion); err == nil && t.After(serverNow.Add(time.Second)) {
		return ""
	}
	return "it was deleted"
}

// How many rights are asked for: a server works as long on one as on reading
// the document, so that asking for all of them would double what a sweep costs.
const (
	manyPaths   = 100 // in one request
	mostData    = 500 // of a scope in one sweep
	mostUnknown = 50
)

// capabilities asks about what is not going to be asked for itself: the data of
// what has not changed, and the metadata of what is new and read at once. A right
// that was taken from one of the two is taken from the document. Of a large scope
// every sweep asks about another part; and many new documents at once are read
// first, as they will be known to the next sweep. A server that does not say
// leaves everything as it is.
func (r *run) capabilities(ctx context.Context, v *view) {
	k := r.knowledge(v.scope)
	var data, fresh []right
	for _, id := range sorted(v.seen) {
		s := v.seen[id]
		known, have := k.known.get(id)
		switch {
		case s.state == unread:
			fresh = append(fresh, right{id, "metadata/"})
		case s.state == present && have && compare(s, known) == 0:
			data = append(data, right{id, "data/"})
		}
	}
	switch n := len(data); {
	case !r.task.Sweep || v.part:
		data = nil
	case n > mostData:
		begin := rand.IntN(n)
		data = slices.Concat(data[begin:], data[:begin])[:mostData]
	}
	if len(fresh) > mostUnknown || len(k.known) == 0 {
		fresh = nil
	}
	chunks := slices.Collect(slices.Chunk(append(data, fresh...), manyPaths))
	denied := make([][]snapshot.ID, len(chunks))
	each(len(chunks), func(i int) { denied[i] = r.denied(ctx, chunks[i]) })
	for _, id := range slices.Concat(denied...) {
		v.seen[id] = sight{state: forbidden}
	}
}

// right is that of reading a document's data or metadata.
type right struct {
	id    snapshot.ID
	place string
}

// denied returns the documents of those rights that this machine does not have.
func (r *run) denied(ctx context.Context, rights []right) []snapshot.ID {
	paths := make([]string, len(rights))
	for i, right := range rights {
		paths[i] = strings.Trim(r.source.conf.Mount, "/") + "/" + right.place + right.id.String()
	}
	a, t := r.post(ctx, "sys/capabilities-self", map[string]any{"paths": paths})
	if t != nil || a.status >= 400 {
		return nil
	}
	var got struct {
		Data map[string][]string `json:"data"`
	}
	if t := unmarshal(a, &got); t != nil {
		return nil
	}
	var no []snapshot.ID
	for i, right := range rights {
		may, said := got.Data[paths[i]]
		if said && (slices.Contains(may, "deny") || !slices.Contains(may, "read") && !slices.Contains(may, "root")) {
			no = append(no, right.id)
		}
	}
	return no
}

// do is a GET below the mount.
func (r *run) do(ctx context.Context, at string, query url.Values) (answer, *trouble) {
	return r.get(ctx, strings.Trim(r.source.conf.Mount, "/")+"/"+at, query)
}

// get is a GET of any path.
func (r *run) get(ctx context.Context, path string, query url.Values) (answer, *trouble) {
	return r.ended(r.client.do(ctx, path, query, nil))
}

// post writes body to any path.
func (r *run) post(ctx context.Context, path string, body any) (answer, *trouble) {
	return r.ended(r.client.do(ctx, path, nil, body))
}

// ended ends the run with an answer after which nobody need ask.
func (r *run) ended(a answer, t *trouble) (answer, *trouble) {
	if t != nil && t.fatal() {
		r.stop(t)
	}
	return a, t
}

// refusal is the trouble of a 4xx that is not the path's own.
func (r *run) refusal(a answer, what string) *trouble {
	code := errand.Error
	switch a.status {
	case http.StatusForbidden:
		code = errand.Forbidden
	case http.StatusNotFound:
		code = errand.Missing
	}
	return &trouble{code, what + ": " + r.client.said(a)}
}

// document is one version of one document.
type document struct {
	secret.Mute
	text json.RawMessage
	age  versionAge
}

// documentOf takes the document out of an answer of the data path. A deleted
// one has no text.
func documentOf(a answer) (document, *trouble) {
	var got struct {
		Data *struct {
			Data     part        `json:"data"`
			Metadata *versionAge `json:"metadata"`
		} `json:"data"`
	}
	if t := unmarshal(a, &got); t != nil {
		return document{}, t
	}
	if got.Data == nil || got.Data.Metadata == nil || got.Data.Metadata.Version == 0 || got.Data.Metadata.Created.IsZero() {
		return document{}, &trouble{errand.Answer, "an answer without version"}
	}
	d := document{text: json.RawMessage(got.Data.Data), age: *got.Data.Metadata}
	if string(d.text) == "null" {
		d.text = nil
	}
	return d, nil
}

// each calls f for 0 to n-1, a few at a time, and returns when all have.
func each(n int, f func(int)) {
	var wg sync.WaitGroup
	next := make(chan int)
	for range min(n, parallel) {
		wg.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	wg.Wait()
}
