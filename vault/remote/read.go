package remote

import (
	"context"
	"errors"
	"net/http"
	"strings"

	"batchwarden/vault/documents"
	"batchwarden/vault/errand"
	"batchwarden/vault/sealed"
	"batchwarden/vault/snapshot"
)

// fetch reads one document, of which before was seen, and hands it on. The sight
// it returns is what the document itself showed.
func (r *run) fetch(ctx context.Context, id snapshot.ID, before sight) sight {
	if s, ok := r.handed.Load(id); ok {
		// It was read in this run already, before more was looked at.
		if s := s.(sight); before.state == unread || s.version == before.version && s.created.Equal(before.created) {
			return s
		}
	}
	return r.fetchWith(ctx, id, nil)
}

// fetchWith is fetch with what was read at the document's source already, if
// anything was: then the version that is known is read once more.
func (r *run) fetchWith(ctx context.Context, id snapshot.ID, have *sourced) sight {
	a, t := r.do(ctx, "data/"+id.String(), nil)
	if t != nil {
		return sight{state: unknown, why: t}
	}
	switch {
	case a.status == http.StatusForbidden:
		return sight{state: forbidden}
	case a.status == http.StatusNotFound && len(a.errors) == 0:
		return deleted(a)
	case a.status >= 400:
		return sight{state: unknown, why: r.refusal(a, "read")}
	}
	doc, t := documentOf(a)
	if t != nil {
		return sight{state: unknown, why: t}
	}
	if why := doc.age.gone(a.date); why != "" {
		return sight{state: gone, why: &trouble{detail: why}} // this second, as its metadata says
	}
	s := sight{version: doc.age.Version, created: doc.age.Created}
	k, known := r.knowledge(id.Scope).known.get(id)
	if known && compare(s, k) < 0 || known && compare(s, k) == 0 && have == nil {
		return s // older than its metadata, which was newer than what is known
	}
	e := snapshot.Entry{ID: id, Version: s.version, Created: s.created, Generation: r.task.Generation}
	secret, bad := r.parse(ctx, &e, doc, have)
	defer clear(secret)
	if bad == nil {
		bad = r.hand(e, secret)
	}
	switch {
	case bad == nil:
		s.read = true
		r.handed.Store(id, s)
	case bad.code != "":
		s.state, s.why = unknown, bad.trouble
	default:
		s.state, s.why, s.again = refused, bad.trouble, bad.again
	}
	return s
}

// deleted is the sight of a 404 without an error text.
func deleted(a answer) sight {
	doc, t := documentOf(a)
	switch {
	case t != nil:
		return sight{state: absent}
	case doc.text == nil && doc.age.Destroyed:
		return sight{state: gone, why: &trouble{detail: "its current version was destroyed"}}
	case doc.text == nil && doc.age.Deletion != "":
		return sight{state: gone, why: &trouble{detail: "it was deleted"}}
	}
	return sight{state: unknown, why: &trouble{errand.Answer, "a 404 that does not say why"}}
}

// fault is what is wrong with a document, and when it is worth reading again.
// One whose trouble has a code is not the document's own.
type fault struct {
	*trouble
	again again
}

// A sealed record holds whatever a document may; this does not compile otherwise.
const _ = uint(sealed.MaxSecret-documents.MaxPassword) + uint(sealed.MaxDocument-documents.MaxPolicy)

// parse fills in what the document holds, and what lies at its source.
func (r *run) parse(ctx context.Context, e *snapshot.Entry, doc document, have *sourced) (secret []byte, bad *fault) {
	wrong := func(err error) *fault { return &fault{&trouble{detail: clean(err.Error())}, never} }
	if e.ID.Kind == snapshot.BatchUserKind {
		platform := r.source.conf.Platforms[0]
		if p, ok := strings.CutPrefix(e.ID.Scope, "platforms/"); ok {
			platform = p
		}
		u, password, err := documents.ParseBatchUser(doc.text, platform)
		if err != nil {
			return nil, wrong(err)
		}
		e.BatchUser = u
		if u.Source == "" {
			return password, nil
		}
		return r.fromSource(ctx, e, have)
	}
	model, parts, err := documents.ParsePolicy(doc.text)
	if err != nil {
		return nil, wrong(err)
	}
	text := []byte(doc.text)
	if parts != nil {
		var t *trouble
		if text, t = r.join(ctx, e.ID, parts, model); t != nil {
			return nil, &fault{t, later}
		}
	}
	e.Policy = &snapshot.Policy{Model: model, Document: text}
	return nil, nil
}

// hand seals an entry and hands it on. What it returns is wrong with the entry;
// out's own errors end the run.
func (r *run) hand(e snapshot.Entry, secret []byte) *fault {
	record, err := sealed.Seal(r.task.Generation, &r.keys.Batch, e, secret)
	if err != nil {
		return &fault{&trouble{detail: clean(err.Error())}, never}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.putErr == nil {
		err = r.out.Put(record)
	}
	switch {
	case r.putErr != nil:
		return &fault{&trouble{detail: "it could not be handed on"}, soon}
	case errors.Is(err, errand.ErrTooLong):
		return &fault{&trouble{detail: clean(err.Error()) + "; the next run brings it"}, soon}
	case err != nil:
		r.putErr = err
		r.stop(err)
		return &fault{&trouble{detail: "it could not be handed on"}, soon}
	}
	return nil
}
