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
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"time"

	"batchwarden/vault/sealed"
	"batchwarden/vault/snapshot"
)

// Worker runs one sync worker to its end; the two files become its stdin and
// stdout and stay the caller's to close.
type Worker interface {
	Sync(ctx context.Context, stdin, stdout *os.File) error
}

// Options of a Refresher. All are needed.
type Options struct {
	Machine  string
	Scopes   []string // those this machine is configured for; what lies in others is not served
	Interval time.Duration
	Store    *sealed.Store
	Worker   Worker
	// Check refuses a policy document that could not come into force.
	Check func(*snapshot.Entry) error
	// Activate puts a snapshot into force.
	Activate func(*snapshot.Snapshot)
	// Changed is told, after the fact, which documents were replaced and removed.
	Changed func(put, removed []string)
	Log     *slog.Logger
}

// Codes of outcomes that arise here; the worker's own are in errand.
const (
	OK         = "ok"
	Pending    = "sync.pending"     // no attempt has ended yet
	NoWorker   = "sync.worker"      // the worker did not run or did not report
	NotWritten = "local_vault.full" // Vault answered, but the local vault could not take it
)

// State is how far this machine is behind Vault.
type State struct {
	Code         string // OK, or why the last attempt failed
	Detail       string // for people
	LastSuccess  time.Time
	LastAttempt  time.Time
	NextAttempt  time.Time
	OfflineSince time.Time // zero while online
	Changed      int       // documents that the last attempt replaced
	Removed      int
	Faults       []Fault // documents that were refused; the last good ones stay in force
	TokenExpires time.Time
}

// Fault is a document in Vault that this machine cannot use.
type Fault struct{ Path, Detail string }

// Refresher is made by New and works in Run.
type Refresher struct {
	o      Options
	asked  chan chan State // somebody waits for an attempt that begins after he asked
	kicked chan struct{}   // something suggests that an attempt would succeed now

	// Guards state.
	mu    sync.Mutex
	state State

	// Only Run's goroutine touches what is below.
	held   map[snapshot.ID]snapshot.Held
	memory memory
	owed   map[snapshot.ID]bool // removed, and the local vault could not take it yet
	failed int                  // attempts in a row
}

// memory is what has to survive a restart beside the records: when Vault last
// confirmed what. It is sealed with them.
type memory struct {
	LastSuccess time.Time               `json:"last_success,omitzero"`
	Confirmed   map[string]time.Time    `json:"confirmed"`        // by scope
	Behind      map[string]behindRecord `json:"behind,omitempty"` // by path: the newer document was refused
}

// behindRecord is an entry that Vault has a newer version of, which we refuse:
// it does not get any fresher.
type behindRecord struct {
	Since time.Time `json:"since"`
	Why   string    `json:"why"`
}

// New loads what the store holds and puts it into force, so that the machine
// can serve before it has spoken with Vault.
func New(ctx context.Context, o Options) (*Refresher, error) {
	r := &Refresher{
		o: o, asked: make(chan chan State), kicked: make(chan struct{}, 1),
		held:   map[snapshot.ID]snapshot.Held{},
		owed:   map[snapshot.ID]bool{},
		memory: memory{Confirmed: map[string]time.Time{}, Behind: map[string]behindRecord{}},
		state:  State{Code: Pending, Detail: "the first attempt has not ended yet"},
	}
	if text := o.Store.State(); len(text) > 0 {
		if err := json.Unmarshal(text, &r.memory); err != nil {
			return nil, fmt.Errorf("refresh: state in the local vault: %w", err)
		}
	}
	entries, err := o.Store.Entries(ctx)
	if err != nil {
		return nil, fmt.Errorf("refresh: %w", err)
	}
	for _, h := range entries {
		r.held[h.ID] = h
	}
	r.state.LastSuccess = r.memory.LastSuccess
	r.state.OfflineSince = r.memory.LastSuccess
	o.Activate(r.snapshot())
	return r, nil
}

// snapshot is what is held, with the time of Vault's last word on each.
func (r *Refresher) snapshot() *snapshot.Snapshot {
	serve := make([]snapshot.Held, 0, len(r.held))
	for _, h := range r.held {
		if !r.serves(h.ID.Scope) {
			continue
		}
		h.Confirmed, h.Fault = r.memory.Confirmed[h.ID.Scope], ""
		if b, behind := r.memory.Behind[h.ID.String()]; behind {
			h.Confirmed, h.Fault = b.Since, b.Why
		}
		serve = append(serve, h)
	}
	return snapshot.New(r.o.Machine, serve)
}

func (r *Refresher) serves(scope string) bool { return slices.Contains(r.o.Scopes, scope) }

// State is how things stand.
func (r *Refresher) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.state
}

// Kick suggests an attempt before the next one is due.
func (r *Refresher) Kick() {
	select {
	case r.kicked <- struct{}{}:
	default: // one suggestion is enough
	}
}

// Sync makes an attempt now and returns when its outcome is in force. It needs
// Run; without it, it waits until ctx ends.
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

// firstTry is when Run makes its first attempt at the latest.
const firstTry = 2 * time.Second

// Run makes attempts, one at a time, until ctx ends.
func (r *Refresher) Run(ctx context.Context) error {
	due := time.NewTimer(firstTry) // a Kick comes as soon as there is a worker to send
	defer due.Stop()
	for {
		var waiting []chan State
		select {
		case <-ctx.Done():
			return nil
		case <-due.C:
		case <-r.kicked:
		case reply := <-r.asked:
			waiting = append(waiting, reply)
		}
		waiting = append(waiting, r.alsoAsked()...)
		state := r.attempt(ctx)
		delay := r.delay(state.Code)
		state.NextAttempt = time.Now().Add(delay)
		r.publish(state)
		for _, reply := range waiting {
			reply <- state
		}
		due.Reset(delay)
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

// delay is when to try again: at the interval while all is well; after a
// failure soon, and then less and less often, so that a Vault that comes back
// is not met by every machine at once. All with jitter, for the same reason.
func (r *Refresher) delay(code string) time.Duration {
	d := r.o.Interval
	if code == OK {
		r.failed = 0
	} else {
		r.failed++
		most := r.o.Interval
		if code == loginRefused { // repeating a wrong secret gets an identity locked
			most = 10 * r.o.Interval
		}
		d = min(most, time.Second<<min(r.failed-1, 12))
	}
	return d*9/10 + rand.N(d/5+1)
}

const loginRefused = "vault.login_refused"

// attempt runs the worker once and puts what it brought into force.
func (r *Refresher) attempt(ctx context.Context) State {
	s := r.State()
	s.LastAttempt, s.Changed, s.Removed = time.Now(), 0, 0
	brought, err := r.fetch(ctx)
	if err != nil {
		r.o.Log.Warn("sync failed", "err", err)
		return offline(s, codeOf(err), err.Error())
	}
	if !brought.report.TokenExpires.IsZero() {
		s.TokenExpires = brought.report.TokenExpires
	}
	done, err := r.accept(ctx, brought)
	s.Changed, s.Removed = len(done.put), len(done.removed)
	if s.Changed+s.Removed > 0 {
		r.o.Changed(done.put, done.removed)
	}
	if err != nil {
		r.o.Log.Error("sync not kept", "err", err)
		return offline(s, NotWritten, err.Error())
	}
	s.Faults = done.faults
	if brought.report.Code != OK {
		r.o.Log.Warn("sync incomplete", "code", brought.report.Code, "detail", brought.report.Detail)
		return offline(s, brought.report.Code, brought.report.Detail)
	}
	s.Code, s.Detail, s.LastSuccess, s.OfflineSince = OK, "", r.memory.LastSuccess, time.Time{}
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
