package remote

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"batchwarden/vault/errand"
	"batchwarden/vault/sealed"
	"batchwarden/vault/snapshot"
)

const (
	runTime    = 2 * time.Minute
	secondLook = 200 * time.Millisecond // between two looks at a scope that would lose much
	maxFaults  = 2000                   // of one scope; a report has to fit a frame
)

// run is one errand.
type run struct {
	source  *Source
	client  *client
	session *session
	stop    context.CancelCauseFunc // ends every request, with the trouble that makes them useless
	keys    *errand.Keys
	task    *errand.Task

	known map[snapshot.ID]errand.Known

	mu     sync.Mutex // guards put and putErr
	put    func(sealed.Record) error
	putErr error
}

// Sync carries out the task: put gets every document that is newer than what
// the task knows, sealed, one call at a time; the report says the rest. Every
// list and every document's metadata is looked at, whether the task asks for a
// sweep or not. What went wrong with Vault is part of the report. The error is
// put's, and then the report is not to be sent.
func (s *Source) Sync(ctx context.Context, keys *errand.Keys, task *errand.Task, put func(sealed.Record) error) (*errand.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	c, err := newClient(s.conf, s.tls, s.login.secret)
	if err != nil {
		return Unable(err), nil
	}
	r := &run{source: s, client: c, stop: stop, keys: keys, task: task, put: put, known: map[snapshot.ID]errand.Known{}}
	for _, k := range task.Known {
		r.known[k.ID] = k
	}
	report := &errand.Report{Code: errand.OK}
	if t := r.work(ctx, report); t != nil {
		report.Code, report.Detail = t.code, t.detail
		report.Scopes, report.Removed, report.Faults = nil, nil, nil
	}
	report.Requests = int(c.requests.Load())
	if r.putErr != nil {
		return nil, r.putErr
	}
	if r.session == nil {
		return report, nil
	}
	report.TokenExpires = r.session.expires()
	if r.session.Print != "" {
		if report.Token, err = r.session.seal(task.Generation, keys); err != nil {
			return nil, err
		}
	}
	return report, nil
}

// work fills in the report. With a trouble nothing in it counts.
func (r *run) work(ctx context.Context, report *errand.Report) *trouble {
	old := restore(r.keys, r.task.Token, r.source.login.print, time.Now())
	if t := r.begin(ctx, old); t != nil {
		return t
	}
	views, x, t := r.look(ctx)
	if t != nil && !t.fatal() && !r.session.fresh {
		// A token of before may have been withdrawn. Only a new one can tell.
		alive, lt := r.lookUp(ctx)
		if lt != nil {
			return lt
		}
		if !alive {
			r.session = nil
			if t := r.logIn(ctx); t != nil {
				return t
			}
			views, x, t = r.look(ctx)
		}
	}
	if t != nil {
		return t
	}
	if x != nil && x.removed {
		r.dropAll(report)
		return nil
	}
	for _, v := range views {
		if t := r.settle(ctx, v, x, report); t != nil {
			return t
		}
	}
	for _, s := range report.Scopes {
		if s.Code != errand.OK && report.Code == errand.OK {
			report.Code, report.Detail = s.Code, strings.TrimSuffix(s.Scope+": "+s.Detail, ": ")
		}
	}
	return nil
}

// look identifies the token and observes every scope and the machine's index.
// A 403 on the way is looked into first: a token that is not valid any more gets
// one everywhere, and then nothing was observed at all.
func (r *run) look(ctx context.Context) ([]*view, *index, *trouble) {
	if t := r.identify(ctx); t != nil {
		return nil, nil, t
	}
	x, t := r.readIndex(ctx, r.source.scopes[0])
	if t != nil && t.fatal() {
		return nil, nil, t
	}
	views := make([]*view, len(r.source.scopes))
	each(len(views), func(i int) { views[i] = r.observe(ctx, r.source.scopes[i]) })
	if t := stopped(ctx); t != nil {
		return nil, nil, t
	}
	if slices.ContainsFunc(views, (*view).refusals) {
		return views, x, r.stillMine(ctx)
	}
	return views, x, nil
}

// stopped is the trouble that ended ctx, nil while it goes on.
func stopped(ctx context.Context) *trouble {
	if ctx.Err() == nil {
		return nil
	}
	var t *trouble
	if errors.As(context.Cause(ctx), &t) {
		return t
	}
	return &trouble{errand.Unreachable, fmt.Sprintf("not done within %v", runTime)}
}

// refusals reports whether any request about v was answered 403.
func (v *view) refusals() bool {
	for _, t := range v.lists {
		if t != nil && t.code == errand.Forbidden {
			return true
		}
	}
	for _, s := range v.seen {
		if s.state == forbidden {
			return true
		}
	}
	return false
}

// stillMine is nil when the token lives and is this machine's.
func (r *run) stillMine(ctx context.Context) *trouble {
	alive, t := r.lookUp(ctx)
	switch {
	case t != nil:
		return t
	case !alive:
		return r.tokenGone()
	}
	r.session.Machine = false
	return r.identify(ctx)
}

// dropAll reports everything as removed: the machine's index says so.
func (r *run) dropAll(report *errand.Report) {
	for _, k := range r.task.Known {
		report.Removed = append(report.Removed, errand.Removed{ID: k.ID, Why: "this machine was removed in Vault"})
	}
	for _, s := range r.source.scopes {
		report.Scopes = append(report.Scopes, errand.Scope{Scope: s, Read: true, Code: errand.OK})
	}
	report.Detail = "this machine was removed in Vault"
}

// settle reads what is newer in a scope and adds to the report what follows.
func (r *run) settle(ctx context.Context, v *view, x *index, report *errand.Report) *trouble {
	ids := decide(r.task.Known, v).read
	sights := make([]sight, len(ids))
	each(len(ids), func(i int) { sights[i] = r.fetch(ctx, ids[i]) })
	if t := stopped(ctx); t != nil {
		return t
	}
	for i, id := range ids {
		v.seen[id] = sights[i]
	}
	if slices.ContainsFunc(sights, func(s sight) bool { return s.state == forbidden }) {
		if t := r.stillMine(ctx); t != nil {
			return t
		}
	}
	d := decide(r.task.Known, v)
	if d.doubtful {
		var t *trouble
		if d, t = r.lookAgain(ctx, d, x); t != nil {
			return t
		}
	}
	if n := len(d.faults); n > maxFaults {
		d.faults = d.faults[:maxFaults]
		d = doubt(d, &trouble{errand.Answer, fmt.Sprintf("%d documents are refused; %d are named", n, maxFaults)})
	}
	report.Scopes = append(report.Scopes, d.scope)
	report.Removed = append(report.Removed, d.removed...)
	report.Faults = append(report.Faults, d.faults...)
	return nil
}

// lookAgain makes sure of a verdict that would remove much, by the scope's
// index or by a second look.
func (r *run) lookAgain(ctx context.Context, d verdict, x *index) (verdict, *trouble) {
	if d.scope.Scope != r.source.scopes[0] {
		var t *trouble
		if x, t = r.readIndex(ctx, d.scope.Scope); t != nil && t.fatal() {
			return d, t
		}
	}
	if x.confirms(d.removed) {
		return d, nil
	}
	select {
	case <-time.After(secondLook):
	case <-ctx.Done():
	}
	again := r.observe(ctx, d.scope.Scope)
	if t := stopped(ctx); t != nil {
		return d, t
	}
	if again.refusals() {
		if t := r.stillMine(ctx); t != nil {
			return d, t
		}
	}
	return agree(d, decide(r.task.Known, again)), nil
}

// fetch reads one document and hands it on. The sight it returns is what the
// document itself showed.
func (r *run) fetch(ctx context.Context, id snapshot.ID) sight {
	a, t := r.do(ctx, "data/"+id.String(), nil)
	switch {
	case t != nil:
		return sight{state: unknown, why: t}
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
	s := sight{version: doc.age.Version, created: doc.age.Created}
	if k, have := r.known[id]; have && compare(s, k) <= 0 {
		return s // older than its metadata, which was newer than what is known
	}
	entry := snapshot.Entry{ID: id, Version: s.version, Created: s.created, Generation: r.task.Generation}
	secret, t := r.parse(ctx, &entry, doc)
	if t != nil {
		s.state, s.why = refused, t
		if t.code != "" {
			s.state = unknown
		}
		return s
	}
	defer clear(secret)
	if err := r.hand(entry, secret); err != nil {
		s.state, s.why = refused, &trouble{detail: err.Error()}
	}
	return s
}

// deleted is the sight of a 404 without an error text. One that was removed
// altogether since it was listed is seen for what it is in the next run.
func deleted(a answer) sight {
	doc, t := documentOf(a)
	if t != nil {
		return sight{state: unknown, why: &trouble{errand.Answer, "it vanished while it was read"}}
	}
	switch {
	case doc.text == nil && doc.age.Destroyed:
		return sight{state: gone, why: &trouble{detail: "its current version was destroyed"}}
	case doc.text == nil && doc.age.Deletion != "":
		return sight{state: gone, why: &trouble{detail: "it was deleted"}}
	}
	return sight{state: unknown, why: &trouble{errand.Answer, "a 404 that does not say why"}}
}

// parse fills in what the document holds. A trouble without a code is the
// document's own fault.
func (r *run) parse(ctx context.Context, e *snapshot.Entry, doc document) (secret []byte, t *trouble) {
	if e.ID.Kind == snapshot.BatchUserKind {
		platform := r.source.conf.Platforms[0]
		if p, ok := strings.CutPrefix(e.ID.Scope, "platforms/"); ok {
			platform = p
		}
		u, password, err := parseBatchUser(doc.text, platform)
		if err != nil {
			return nil, &trouble{detail: clean(err.Error())}
		}
		e.BatchUser = u
		return password, nil
	}
	model, parts, err := parsePolicy(doc.text)
	if err != nil {
		return nil, &trouble{detail: clean(err.Error())}
	}
	text := []byte(doc.text)
	if parts != nil {
		if text, t = r.join(ctx, e.ID, parts, model); t != nil {
			return nil, t
		}
	}
	e.Policy = &snapshot.Policy{Model: model, Document: text}
	return nil, nil
}

// hand seals an entry and hands it on. The error is what is wrong with the
// entry; put's own ends the run.
func (r *run) hand(e snapshot.Entry, secret []byte) error {
	record, err := sealed.Seal(r.task.Generation, &r.keys.Batch, e, secret)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.putErr != nil {
		return r.putErr
	}
	err = r.put(record)
	if err != nil && !errors.Is(err, errand.ErrTooLong) {
		r.putErr = err
		r.stop(err)
	}
	return err // too much for one answer: the next run brings the rest
}
