package broker

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"time"

	"batchwarden/daemon/config"
	"batchwarden/ipc/wire"
	"batchwarden/platform/launch"
	"batchwarden/platform/peer"
	"batchwarden/vault/snapshot"
)

// Bounds of what is kept for callers that ask later, and of one answer.
const (
	maxEvents     = 8192
	maxEventBytes = 16 << 20
	maxEventPage  = 512
	stateTick     = time.Second // how soon state.changed tells
)

// events keeps the latest that happened, in the order in which it did, for
// whoever comes and asks for what is after the last that he saw.
type events struct {
	mu    sync.Mutex // guards what follows
	list  []event    // numbered without a gap, up to last
	last  uint64
	bytes int
	news  chan struct{} // closed and replaced at each event

	since  time.Time
	told   map[uint64]bool // serials of jobs whose start was told and whose end was not
	caught map[uint64]bool // and of those whose end was seen before anybody told of their start
}

// event is what happened, and whom it is for.
type event struct {
	wire.Event
	size int
}

// newEvents begins to number where no service on this machine has been before:
// a number of an earlier one is known to be too old.
func newEvents(now time.Time) *events {
	return &events{
		last: uint64(max(now.UnixMicro(), 0)), news: make(chan struct{}),
		since: time.Now(), told: map[uint64]bool{}, caught: map[uint64]bool{},
	}
}

func (e *events) add(w wire.Event) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.append(w)
}

// append needs e.mu.
func (e *events) append(w wire.Event) {
	size := 256
	if w.Job != nil {
		if text, err := json.Marshal(w.Job); err == nil {
			size += len(text)
		}
	}
	e.last++
	w.Seq, w.Time = e.last, time.Now().UTC()
	e.list = append(e.list, event{w, size})
	for e.bytes += size; len(e.list) > maxEvents || e.bytes > maxEventBytes; {
		e.bytes -= e.list[0].size
		e.list[0] = event{}
		e.list = e.list[1:]
	}
	close(e.news)
	e.news = make(chan struct{})
}

// page returns what is kept after a number for those whom sees lets through,
// the number of the last that was looked at, and a channel that is closed when
// there is more. gone: what came next is not kept any more. 0 is before
// everything that is kept.
func (e *events) page(after uint64, sees func(*wire.Event) bool) (found []wire.Event, next uint64, news <-chan struct{}, gone bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	before := e.last - uint64(len(e.list)) // the number ahead of the first
	if after == 0 {
		after = before
	}
	if after < before || after > e.last {
		return nil, 0, nil, true
	}
	next = after
	for i := range e.list[after-before:] {
		w := &e.list[after-before+uint64(i)].Event
		if len(found) == maxEventPage {
			break
		}
		next = w.Seq
		if sees(w) {
			found = append(found, *w)
		}
	}
	return found, next, e.news, false
}

// jobStarted tells of a job that the launcher answered with. One that could
// not be started has ended, which is told elsewhere.
func (e *events) jobStarted(j *launch.Job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.caught[j.Serial]:
		delete(e.caught, j.Serial)
	case j.PID != 0:
		e.told[j.Serial] = true
		e.append(started(j))
	}
}

// maxCaught bounds what is remembered of jobs whose starter went away before
// the launcher answered him.
const maxCaught = 4096

// jobEnded tells of an end, and first of the start where the end was quicker
// than the launcher's answer to whoever started the job.
func (e *events) jobEnded(j *launch.Job) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if !e.told[j.Serial] && j.PID != 0 && j.Started.After(e.since) {
		if len(e.caught) >= maxCaught {
			clear(e.caught)
		}
		e.caught[j.Serial] = true
		e.append(started(j))
	}
	delete(e.told, j.Serial)
	w := jobOf(j)
	e.append(wire.Event{Type: wire.JobEnded, Job: &w})
}

// started is the event of a job's start, whatever became of it since.
func started(j *launch.Job) wire.Event {
	w := jobOf(j)
	w.State, w.ExitCode, w.Signal, w.CoreDumped, w.Ended, w.Rusage = wire.Running, nil, "", false, time.Time{}, nil
	w.Survivors, w.Code, w.Reason = 0, "", ""
	return wire.Event{Type: wire.JobStarted, Job: &w}
}

// synced tells which batch users are others now. Policies tell for themselves.
func (e *events) synced(paths []string, known *snapshot.Snapshot, removed bool) {
	names := map[string]bool{}
	for _, path := range paths {
		if _, name, ok := strings.Cut(path, "/batch_users/"); ok {
			names[name] = true
		}
	}
	if len(names) == 0 {
		return
	}
	versions := make(map[string]int64, len(names))
	for _, u := range known.Users() {
		if names[u.Name] {
			versions[u.Name] = u.SecretVersion()
		}
	}
	for name := range names {
		version, there := versions[name]
		if removed && there {
			continue // another scope's has taken its place, or it was put again
		}
		e.add(wire.Event{Type: wire.BatchUserChanged, BatchUser: name, Version: version, Removed: !there})
	}
}

// Events returns what happened after a number, as soon as there is something
// for this caller, but after wait in any case. A client learns of its own jobs,
// batch users and realms.
func (b *Broker) Events(ctx context.Context, p *peer.Connection, after uint64, wait time.Duration) (wire.Events, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		c := b.identify(ctx, p) // each time: he may not be a client any more
		if refusal := c.known(); refusal != nil {
			return wire.Events{}, refusal
		}
		found, next, news, gone := b.events.page(after, c.hears)
		switch {
		case gone:
			return wire.Events{}, wire.NewProblem(wire.EventsGone,
				"what came after that number is not kept any more, or the service was started anew: begin with after=0, and see in GET /v1/jobs how things are")
		case len(found) > 0 || wait <= 0:
			return wire.Events{Events: append([]wire.Event{}, found...), Next: next}, nil
		}
		after = next
		select {
		case <-news:
		case <-timer.C:
			wait = 0 // one last look
		case <-ctx.Done():
			wait = 0
		}
	}
}

// hears tells whether an event is for this caller.
func (c *caller) hears(w *wire.Event) bool {
	switch {
	case c.operator:
		return true
	case c.client == nil:
		return false
	case w.Job != nil:
		return w.Job.Client == c.client.Name
	case w.BatchUser != "":
		return config.MatchAny(c.client.BatchUsers, w.BatchUser)
	case w.Realm != "":
		return c.client.InRealm(w.Realm)
	case w.Type == wire.ConfigChanged, w.Type == wire.ConfigRefused:
		return false
	}
	return true
}

// WatchState tells when the state of the service changes, until ctx ends.
func (b *Broker) WatchState(ctx context.Context) error {
	tick := time.NewTicker(stateTick)
	defer tick.Stop()
	for was := ""; ; {
		if now := b.state(b.Syncer.Status()); now != was {
			b.events.add(wire.Event{Type: wire.StateChanged, State: now})
			was = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
