package remote

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"batchwarden/vault/errand"
	"batchwarden/vault/snapshot"
)

// maxNames bounds the documents of one kind in one scope.
const maxNames = 20000

// folders is where the documents of each kind lie.
var folders = map[snapshot.Kind]string{snapshot.BatchUserKind: "batch_users", snapshot.PolicyKind: "policies"}

// observe looks at lists and metadata of one scope. No document is read.
func (r *run) observe(ctx context.Context, scope string) *view {
	v := &view{scope: scope, lists: map[snapshot.Kind]*trouble{}, seen: map[snapshot.ID]sight{}}
	for kind := range folders {
		names, t := r.list(ctx, scope, kind, v)
		v.lists[kind] = t
		for _, n := range names {
			v.seen[snapshot.ID{Scope: scope, Kind: kind, Name: n}] = sight{}
		}
	}
	ids := sorted(v.seen)
	sights := make([]sight, len(ids))
	each(len(ids), func(i int) { sights[i] = r.metadata(ctx, ids[i]) })
	for i, id := range ids {
		v.seen[id] = sights[i]
	}
	return v
}

// list returns the names of one kind. Names that are none become faults of v.
func (r *run) list(ctx context.Context, scope string, kind snapshot.Kind, v *view) ([]string, *trouble) {
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
	var names []string
	for _, key := range *got.Data.Keys {
		switch {
		case goodName(key):
			names = append(names, key)
		case kind == snapshot.PolicyKind && strings.HasSuffix(key, ".parts/"):
		default:
			v.faults = append(v.faults, errand.Fault{Path: clean(at + "/" + key), Detail: "not a name: 1 to 61 of A-Z a-z 0-9 . _ -"})
		}
	}
	slices.Sort(names)
	if len(names) > maxNames {
		return names[:maxNames], &trouble{errand.Answer, fmt.Sprintf("%s holds %d documents; the first %d are read", at, len(names), maxNames)}
	}
	return names, nil
}

// metadata asks for the current version of one document.
func (r *run) metadata(ctx context.Context, id snapshot.ID) sight {
	a, t := r.do(ctx, "metadata/"+id.String(), nil)
	switch {
	case t != nil:
		return sight{state: unknown, why: t}
	case a.status == http.StatusForbidden:
		return sight{state: forbidden}
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

// do is a GET below the mount.
func (r *run) do(ctx context.Context, at string, query url.Values) (answer, *trouble) {
	mount := strings.Trim(r.source.conf.Mount, "/")
	a, t := r.client.do(ctx, mount+"/"+at, query, nil)
	if t != nil && t.fatal() {
		r.stop(t) // nobody else need ask
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

// readIndex reads a scope's index; nil when there is none, or none that is understood.
func (r *run) readIndex(ctx context.Context, scope string) (*index, *trouble) {
	a, t := r.do(ctx, "data/"+scope+"/index", nil)
	if t != nil || a.status >= 400 {
		return nil, t
	}
	doc, t := documentOf(a)
	if t != nil {
		return nil, t
	}
	o, err := parseObject(doc.text)
	if err != nil {
		return nil, nil // a hint that cannot be read is none
	}
	f := newFields(o)
	if f.format() > newest || len(*f.faults) > 0 {
		return nil, nil // likewise
	}
	x := &index{names: map[snapshot.Kind]map[string]bool{}}
	x.removed = f.flag("removed", false)
	for kind, folder := range folders {
		in := f.inner(folder)
		if in == nil {
			continue
		}
		x.names[kind] = map[string]bool{}
		for n := range in.o {
			x.names[kind][n] = true
		}
	}
	if len(*f.faults) > 0 {
		return nil, nil // likewise
	}
	return x, nil
}

// document is one version of one document.
type document struct {
	text json.RawMessage
	age  versionAge
}

// documentOf takes the document out of an answer of the data path. A deleted
// one has no text.
func documentOf(a answer) (document, *trouble) {
	var got struct {
		Data *struct {
			Data     json.RawMessage `json:"data"`
			Metadata *versionAge     `json:"metadata"`
		} `json:"data"`
	}
	if t := unmarshal(a, &got); t != nil {
		return document{}, t
	}
	if got.Data == nil || got.Data.Metadata == nil || got.Data.Metadata.Version == 0 || got.Data.Metadata.Created.IsZero() {
		return document{}, &trouble{errand.Answer, "an answer without version"}
	}
	d := document{text: got.Data.Data, age: *got.Data.Metadata}
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
