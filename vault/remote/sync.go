package remote

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"batchwarden/platform/secret"
	"batchwarden/vault/errand"
	"batchwarden/vault/sealed"
	"batchwarden/vault/snapshot"
)

const (
	runTime    = 2 * time.Minute
	secondLook = 200 * time.Millisecond // between two looks at a scope that would lose much
	maxFaults  = 2000                   // a report has to fit a frame
)

// run is one errand.
type run struct {
	secret.Mute
	source  *Source
	client  *client
	session *session
	login   login                   // the source's, completed
	keep    keep                    // from the worker before, for the next one
	warn    *trouble                // what must be said although the run goes on
	refused *trouble                // a login, in this run
	stop    context.CancelCauseFunc // ends every request, with the trouble that makes them useless
	keys    *errand.Keys
	task    *errand.Task

	rejected map[string]map[snapshot.ID]errand.Refused // by scope, as the task says
	known    map[string]known                          // by scope, once learn has returned
	learn    func()                                    // asks for what is known, once
	asking   sync.WaitGroup                            // of calls of learn that nothing waits for yet
	room     room

	handed sync.Map // of snapshot.ID and sight: what this run handed on

	mu     sync.Mutex // guards out and putErr
	out    Out
	putErr error
}

// Out is the way back to who gave the task, one call at a time. Its errors end
// the run.
type Out struct {
	Put   func(sealed.Record) error
	Token func(sealed.Token) error       // to be kept at once, whatever becomes of the run
	Known func() ([]errand.Known, error) // all that the task counts; asked for once at most, and before Put
}

// Sync carries out the task: out.Put gets every document that is newer than what
// is known, sealed, one call at a time; the report says the rest. A task that asks
// for no sweep costs one request for each scope whose index has not changed, and
// what is known is asked for only where there is something to compare with it. What went wrong with Vault is part of the report. The error is out's,
// and then the report is not to be sent.
func (s *Source) Sync(ctx context.Context, keys *errand.Keys, task *errand.Task, out Out) (*errand.Report, error) {
	ctx, cancel := context.WithTimeout(ctx, runTime)
	defer cancel()
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	c, err := newClient(s.conf, s.tls, s.login.secret)
	if err != nil {
		return Unable(err), nil
	}
	r := &run{source: s, client: c, login: s.login, stop: stop, keys: keys, task: task, out: out}
	r.keep.restore(keys, task.Token)
	r.sortTask()
	if task.Sweep || len(task.Only) > 0 || len(task.Sources) > 0 {
		r.learnAhead()
	}
	report := &errand.Report{Code: errand.OK}
	if t := r.work(ctx, report); t != nil {
		report.Code, report.Detail = t.code, t.detail
		report.Scopes, report.Removed, report.Faults = nil, nil, nil
	}
	r.asking.Wait()
	r.admit(report)
	report.Requests = int(c.requests.Load())
	if r.putErr != nil {
		return nil, r.putErr
	}
	if err := r.leave(report); err != nil {
		return nil, err
	}
	return report, nil
}

// work fills in the report. With a trouble nothing in it counts.
func (r *run) work(ctx context.Context, report *errand.Report) *trouble {
	if t := r.begin(ctx); t != nil {
		return t
	}
	views, t := r.look(ctx)
	if t != nil && !t.fatal() && !r.session.fresh {
		// A token of before may have been withdrawn. Only a new one can tell.
		alive, lt := r.lookUp(ctx)
		if lt != nil {
			return lt
		}
		if !alive {
			r.forget()
			if t := r.logIn(ctx); t != nil {
				return t
			}
			views, t = r.look(ctx)
		}
	}
	if t != nil {
		return t
	}
	if views == nil {
		r.dropAll(report)
		return nil
	}
	for _, v := range views {
		if t := r.settle(ctx, v, report); t != nil {
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

// look identifies the token and observes every scope as far as the task asks;
// no views at all mean that the machine is to drop everything. A 403 on the way
// is looked into first: a token that is not valid any more gets one everywhere,
// and then nothing was observed at all.
func (r *run) look(ctx context.Context) ([]*view, *trouble) {
	if t := r.identify(ctx); t != nil {
		return nil, t
	}
	var views []*view
	if len(r.task.Only) > 0 {
		views = r.glances(ctx)
	} else if views = r.survey(ctx); views == nil {
		return nil, stopped(ctx)
	}
	if t := stopped(ctx); t != nil {
		return nil, t
	}
	if slices.ContainsFunc(views, (*view).refusals) {
		return views, r.stillMine(ctx)
	}
	return views, nil
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
	if t := v.hint.trouble; t != nil && t.code == errand.Forbidden {
		return true
	}
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
	for _, s := range r.source.scopes {
		for _, k := range r.knowledge(s).known {
			report.Removed = append(report.Removed, errand.Removed{ID: k.ID, Why: "this machine was removed in Vault"})
		}
		report.Scopes = append(report.Scopes, errand.Scope{Scope: s, Read: true, Code: errand.OK})
	}
	report.Detail = "this machine was removed in Vault"
}

// settle reads what is newer in a scope and adds to the report what follows.
func (r *run) settle(ctx context.Context, v *view, report *errand.Report) *trouble {
	d, t := r.read(ctx, v)
	if t != nil {
		return t
	}
	if d.sweep {
		// A look at single documents showed what only lists and metadata can explain.
		v = r.observe(ctx, v.scope, v.hint)
		if t := r.mine(ctx, v); t != nil {
			return t
		}
		if d, t = r.read(ctx, v); t != nil {
			return t
		}
	}
	if d.doubtful {
		if d, t = r.lookAgain(ctx, d, v); t != nil {
			return t
		}
	}
	if room := max(0, maxFaults-len(report.Faults)); len(d.faults) > room {
		d = doubt(d, &trouble{errand.Answer, fmt.Sprintf("%d documents are refused; %d are named", len(d.faults), room)})
		d.faults = d.faults[:room]
	}
	d.scope.Index = v.hint.next(d.open)
	report.Scopes = append(report.Scopes, d.scope)
	report.Removed = append(report.Removed, d.removed...)
	report.Faults = append(report.Faults, d.faults...)
	return nil
}

// read reads what is new in v, and the sources that are due, and decides.
func (r *run) read(ctx context.Context, v *view) (verdict, *trouble) {
	ids := decide(r.compared(v), v).read
	sights := make([]sight, len(ids))
	each(len(ids), func(i int) { sights[i] = r.fetch(ctx, ids[i], v.seen[ids[i]]) })
	refused := false
	for i, id := range ids {
		v.seen[id] = sights[i]
		refused = refused || sights[i].state == forbidden
	}
	if r.sources(ctx, v) || refused {
		if t := stopped(ctx); t != nil {
			return verdict{}, t
		}
		if t := r.stillMine(ctx); t != nil {
			return verdict{}, t
		}
	}
	return decide(r.compared(v), v), stopped(ctx)
}

// mine is nil when nothing in v says that the token is not this machine's any more.
func (r *run) mine(ctx context.Context, v *view) *trouble {
	if t := stopped(ctx); t != nil {
		return t
	}
	if v.refusals() {
		return r.stillMine(ctx)
	}
	return nil
}

// lookAgain makes sure of a verdict that would remove much, by the scope's
// index or by a second look.
func (r *run) lookAgain(ctx context.Context, d verdict, v *view) (verdict, *trouble) {
	if x, t := r.account(ctx, v); t != nil && t.fatal() {
		return d, t
	} else if x.confirms(d.removed) {
		return d, nil
	}
	select {
	case <-time.After(secondLook):
	case <-ctx.Done():
	}
	again := r.observe(ctx, v.scope, v.hint)
	if t := r.mine(ctx, again); t != nil {
		return d, t
	}
	return agree(d, decide(r.knowledge(v.scope), again)), nil
}
