// Package refresh keeps what this machine knows up to date with Vault: it
// decides when the sync worker runs, and puts what the worker brought first
// into the local vault and then into force.
//
// The worker alone speaks with Vault. What comes back from it is sealed, and
// is judged here once more before it replaces anything.
package refresh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"batchwarden/platform/lockmem"
	"batchwarden/vault/errand"
	"batchwarden/vault/sealed"
	"batchwarden/vault/snapshot"
)

// Worker runs one sync worker to its end; the two files become its stdin and
// stdout and stay the caller's to close.
type Worker interface {
	Sync(ctx context.Context, stdin, stdout *os.File) error
}

// Witness keeps a number where whoever can replace the local vault cannot reach
// it. It returns the highest number that it was ever told; with settle it goes
// on from this one instead.
type Witness interface {
	Witness(ctx context.Context, number uint64, settle bool) (highest uint64, err error)
}

// Store is the local vault; *sealed.Store.
type Store interface {
	NewBatch(ctx context.Context, f func(generation uint64, key *lockmem.Buffer) error) error
	WithBatch(ctx context.Context, generation uint64, f func(key *lockmem.Buffer) error) error
	Apply(ctx context.Context, c sealed.Change) error
	OpenHeads(ctx context.Context, records []sealed.Record) ([]sealed.Opened, error)
	Entries(ctx context.Context) ([]*snapshot.Held, error)
	Token() *sealed.Token
	State() json.RawMessage
	Status() sealed.Status
}

// Options of a Refresher. All are needed, save where it says otherwise. Scopes and the times are as in Settings, at first.
type Options struct {
	Machine string
	Scopes  []string // those this machine is configured for; what lies in others is not served

	Interval       time.Duration // between polls
	Sweep          time.Duration // between sweeps, at most
	MaxStale       time.Duration
	PolicyMaxStale time.Duration

	Clock   *Clock
	Store   Store
	Worker  Worker
	Witness Witness
	// Check refuses a policy document that could not come into force.
	Check func(*snapshot.Entry) error
	// Activate puts a snapshot into force.
	Activate func(*snapshot.Snapshot)
	// Changed is told, after the fact, which documents were replaced and removed.
	Changed func(put, removed []string)
	// Attempted, unless it is nil, is told how each attempt of Run ended and how long it took. A report's own look at one
	// password is none.
	Attempted func(code string, took time.Duration)
	// Noticed is told what an auditor should know of the local vault.
	Noticed func(code, detail string)
	Log     *slog.Logger
}

// Codes of outcomes that arise here; the worker's own are in errand.
const (
	OK         = errand.OK
	Pending    = "sync.pending"           // no attempt has ended yet
	NoWorker   = "sync.worker"            // the worker did not run or did not report
	NotKept    = "local_vault.refused"    // Vault answered, and what it answered cannot be kept
	NotWritten = "local_vault.unwritable" // what Vault answered is in force, but not on the disk
	WentBack   = "local_vault.went_back"  // the local vault is older than one that was here before
)

const notWritten = "what Vault answered is in force, and this machine goes on from memory; after a restart without Vault it has what was written before: "

// State is how far this machine is behind Vault.
type State struct {
	Code         string // OK, or why the last attempt failed
	Detail       string // for people
	LastSuccess  time.Time
	LastAttempt  time.Time
	LastSweep    time.Time // when everything was looked at
	NextAttempt  time.Time
	OfflineSince time.Time // zero while online
	Changed      int       // documents that the last attempt replaced
	Removed      int
	Requests     int     // of the last attempt
	Arrived      int     // documents that the attempt being made has brought so far
	Faults       []Fault // documents that were refused; the last good ones stay in force
	TokenExpires time.Time
	SecretID     *errand.SecretID // as of the last login or renewal; nil: not known
	WentBack     string           // what is known of it; "" when the local vault did not
}

// Fault is a document in Vault that this machine cannot use.
type Fault struct{ Path, Detail string }

// Refresher is made by New and works in Run.
type Refresher struct {
	o        Options
	asked    chan chan State            // somebody waits for an attempt that begins after he asked
	kicked   chan struct{}              // something suggests that an attempt would succeed now
	reported chan *verdict              // somebody says how a password did
	inside   chan func(context.Context) // something to be done between attempts
	renewed  chan struct{}              // there are other settings
	set      atomic.Pointer[Settings]
	arrived  atomic.Int64 // see State

	// Guards what is below.
	mu     sync.Mutex
	state  State
	renews []chan struct{} // closed when the settings are in force

	// Only Run's goroutine touches what is below.
	schedule
	last    *snapshot.Snapshot // and what it was made of
	served  []*snapshot.Held
	held    entries
	memory  memory
	indexes map[string]errand.Index   // by scope: the index as it was last dealt with
	refused map[string]errand.Refused // by path: versions that need not be read again
	faults  map[string]string         // by path: why a document cannot be used
	spare   uint64                    // generation of a batch that nothing was sealed with; 0: none
	disk    disk
	leaving sync.WaitGroup // of the last worker, which may have reported and not ended
	ahead   *journey       // a worker that was started ahead of what it is for; nil: none
	told    uint64         // to the witness
}

// New loads what the store holds and puts it into force, so that the machine
// can serve before it has spoken with Vault.
func New(ctx context.Context, o Options) (*Refresher, error) {
	r := &Refresher{
		o: o, asked: make(chan chan State), kicked: make(chan struct{}, 1), reported: make(chan *verdict), inside: make(chan func(context.Context)),
		renewed:  make(chan struct{}, 1),
		schedule: schedule{turning: map[snapshot.ID]turn{}},
		indexes:  map[string]errand.Index{},
		refused:  map[string]errand.Refused{},
		faults:   map[string]string{},
		disk:     disk{removed: map[snapshot.ID]bool{}},
		state:    State{Code: Pending, Detail: "the first attempt has not ended yet"},
	}
	r.set.Store(&Settings{Scopes: o.Scopes, Interval: o.Interval, Sweep: o.Sweep, MaxStale: o.MaxStale, PolicyMaxStale: o.PolicyMaxStale})
	if text := o.Store.State(); len(text) > 0 {
		if err := json.Unmarshal(text, &r.memory); err != nil {
			return nil, fmt.Errorf("refresh: state in the local vault: %w", err)
		}
	}
	if r.memory.Confirmed == nil {
		r.memory.Confirmed = map[string]time.Time{}
	}
	o.Clock.restore(r.memory.Clock)
	r.disk.saved, r.disk.at = r.memory, o.Clock.Now()
	var err error
	if r.held, err = o.Store.Entries(ctx); err != nil {
		return nil, fmt.Errorf("refresh: %w", err)
	}
	r.held.sort()
	standing := r.standings()
	for _, h := range r.held {
		standing(h).give(h)
	}
	r.watchTurns(task{}, o.Clock.Now(), false)
	r.state.LastSuccess = r.memory.LastSuccess
	r.state.OfflineSince = r.memory.LastSuccess
	o.Activate(r.snapshot())
	return r, nil
}

func (r *Refresher) serves(scope string) bool { return slices.Contains(r.settings().Scopes, scope) }

// State is how things stand.
func (r *Refresher) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := r.state
	s.Arrived = int(r.arrived.Load())
	return s
}

// Kick suggests an attempt before the next one is due.
func (r *Refresher) Kick() {
	select {
	case r.kicked <- struct{}{}:
	default: // one suggestion is enough
	}
}

// Sync looks at everything now and returns when the outcome is in force. It is
// an operator's: passwords that were reported as rejected get another chance.
// It needs Run; without it, it waits until ctx ends.
func (r *Refresher) Sync(ctx context.Context) (State, error) {
	reply := make(chan State, 1)
	select {
	case r.asked <- reply:
	case <-ctx.Done():
		return State{}, ctx.Err()
	}
	select {
	case s := <-reply:
		return s, nil
	case <-ctx.Done():
		return State{}, ctx.Err()
	}
}

// Run makes attempts, one at a time, until ctx ends.
func (r *Refresher) Run(ctx context.Context) error {
	var next time.Time             // when the next attempt is due
	due := time.NewTimer(firstTry) // a Kick comes as soon as there is a worker to send
	defer due.Stop()
	save := time.NewTicker(saveEvery) // also while no attempt is made
	defer save.Stop()
	for {
		var waiting []chan State
		scheduled := false
		select {
		case <-ctx.Done():
			r.end(ctx)
			return nil
		case <-save.C:
			r.save(ctx)
			continue
		case first := <-r.reported:
			r.judgeReports(ctx, append(r.alsoReported(), first))
			continue
		case f := <-r.inside:
			f(ctx)
			continue
		case <-r.renewed:
			r.renew()
		case <-due.C:
			if wait := next.Sub(r.o.Clock.Now()); wait > 0 && r.ahead == nil {
				r.departAhead(ctx)
				due.Reset(wait)
				continue
			}
			scheduled = true
		case <-r.kicked:
		case reply := <-r.asked:
			waiting = append(waiting, reply)
		}
		if !scheduled {
			r.turnBack() // it read its configuration before whatever happened now
		}
		waiting = append(waiting, r.alsoAsked()...)
		t := r.due(r.o.Clock.Now())
		if len(waiting) > 0 {
			t.sweep = true
			r.forgive()
		}
		begun := time.Now()
		state := r.attempt(ctx, t)
		if r.o.Attempted != nil && ctx.Err() == nil {
			r.o.Attempted(state.Code, time.Since(begun))
		}
		now := r.o.Clock.Now()
		next = r.next(state.LastAttempt, now, state.Code)
		state.NextAttempt = next
		r.publish(state)
		for _, reply := range waiting {
			reply <- state
		}
		due.Reset(next.Sub(now) - departure)
		// What came passed through here several times, and callers left garbage. Until the next attempt that much is
		// not needed again, and others on this machine may have it.
		debug.FreeOSMemory()
	}
}

// alsoAsked is who else waits already; one attempt serves them all.
func (r *Refresher) alsoAsked() (waiting []chan State) {
	for {
		select {
		case reply := <-r.asked:
			waiting = append(waiting, reply)
		default:
			return waiting
		}
	}
}

func (r *Refresher) publish(s State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.state = s
}

// attempt runs the worker once and puts what it brought into force.
func (r *Refresher) attempt(ctx context.Context, t task) State {
	s := r.State()
	s.LastAttempt, s.Changed, s.Removed, s.Requests = r.o.Clock.Now(), 0, 0, 0
	s.WentBack = r.witness(ctx, s.WentBack)
	defer r.arrived.Store(0)
	brought, err := r.fetch(ctx, t)
	if err != nil {
		r.done(t, r.o.Clock.Now(), false, false)
		r.saveIfDue(ctx)
		if ctx.Err() == nil { // else we are ending, which is no failure
			r.o.Log.Warn("sync failed", "err", err)
		}
		return offline(s, codeOf(err), err.Error())
	}
	report := &brought.report
	if !report.TokenExpires.IsZero() {
		s.TokenExpires, s.SecretID = report.TokenExpires, report.SecretID
	}
	s.Requests = report.Requests
	done, err := r.accept(ctx, t, brought)
	s.Changed, s.Removed, s.Faults = len(done.put), len(done.removed), done.faults
	if s.Changed+s.Removed > 0 {
		r.o.Changed(done.put, done.removed)
	}
	if t.sweep {
		r.trouble = trouble{}
		if report.Code != OK {
			r.trouble = trouble{report.Code, report.Detail}
		}
	}
	r.done(t, r.o.Clock.Now(), done.whole, len(report.Scopes) > 0)
	s.WentBack = r.witness(ctx, s.WentBack)
	if done.whole && t.sweep {
		s.LastSweep = r.swept
		s.WentBack = r.settle(ctx, s.WentBack)
	}
	switch {
	case errors.Is(err, sealed.ErrUnwritten):
		r.o.Log.Error("what was synced is in force, but not on the disk", "err", err)
		s.Code, s.Detail, s.LastSuccess = NotWritten, notWritten+err.Error(), r.memory.LastSuccess
		if report.Code == OK {
			s.OfflineSince = time.Time{}
		}
		return s
	case err != nil:
		r.o.Log.Error("sync not kept", "err", err)
		return offline(s, NotKept, err.Error())
	case report.Code != OK:
		r.o.Log.Warn("sync incomplete", "code", report.Code, "detail", report.Detail)
		return offline(s, report.Code, report.Detail)
	case r.trouble.code != "":
		return offline(s, r.trouble.code, r.trouble.detail) // what this poll asked for is well; the sweep was not
	}
	s.Code, s.Detail, s.LastSuccess, s.OfflineSince = OK, report.Detail, r.memory.LastSuccess, time.Time{}
	return s
}

func offline(s State, code, detail string) State {
	s.Code, s.Detail = code, detail
	if s.OfflineSince.IsZero() {
		s.OfflineSince = s.LastAttempt
	}
	return s
}

// codeOf is the stable code of a failure to run the worker.
func codeOf(err error) string {
	var coded interface{ Problem() string }
	if errors.As(err, &coded) {
		return coded.Problem()
	}
	return NoWorker
}
