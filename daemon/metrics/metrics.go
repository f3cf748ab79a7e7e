// Package metrics counts what the daemon does and says how it stands, in the
// text format of Prometheus.
//
// What happens is counted as it happens, in atomics and small tables; how
// things stand is looked at when somebody asks. METRICS.md describes each
// metric. No label is a subject's name, a job or a secret, and each has few
// values.
package metrics

import (
	"errors"
	"iter"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/broker"
	"batchwarden/ipc/wire"
	"batchwarden/platform/lockmem"
)

// Source is what is looked at when somebody asks. It answers from memory.
type Source struct {
	Broker interface {
		Now() time.Time // by the clock that ages and expiries are judged by
		Picture() wire.Status
		Standings() iter.Seq[broker.Standing]
	}
	Audit interface {
		Stats() audit.Stats
		Err() error
		Low() string
		Lost() uint64
	}
	Arena interface{ Usage() lockmem.Usage }
}

// Options say what is known before anything happens.
type Options struct {
	Realms   []string // as in Configured, at first
	Version  string
	Textfile string // "": none is written
}

// Calls whose time is measured.
const (
	Authorize = "authorize"
	Launch    = "launch"
	Retrieve  = "retrieve"
)

// Metrics is made by New, and shows nothing of how things stand before Watch.
// Its methods may be called from any goroutine.
type Metrics struct {
	o      Options
	realms atomic.Pointer[map[string]string] // those configured, by themselves
	source atomic.Pointer[Source]

	registry *prometheus.Registry

	calls map[string]prometheus.Observer // by call
	steps map[string]prometheus.Observer // of a launch
	syncs prometheus.Observer
	flush prometheus.Observer

	requests   *tally
	overloaded prometheus.Counter
	decisions  *tally
	notStarted *tally
	deliveries *tally
	jobsEnded  *tally
	attempts   *tally

	unwritten atomic.Pointer[string] // why the textfile is not there; nil: it is
}

// New measures from now on.
func New(o Options) *Metrics {
	m := &Metrics{o: o, registry: prometheus.NewPedanticRegistry()}
	m.Configured(o.Realms)
	m.registry.MustRegister(standing{m})
	m.decisions = m.tally("batchwarden_decisions_total", "Decisions by kind, verdict, code and realm; each has an audit record, or was refused because it could not have one.", "kind", "verdict", "code", "realm")
	m.requests = m.tally("batchwarden_requests_total", `Answered requests by call and code; code "" is success, "failed" a caller that left.`, "call", "code")
	m.overloaded = prometheus.NewCounter(prometheus.CounterOpts{Name: "batchwarden_requests_overloaded_total", Help: "Requests beyond what the client's entry allows at once or in a time (rate, concurrent)."})
	m.registry.MustRegister(m.overloaded)
	m.calls = m.times("batchwarden_request_seconds", "From a request that was read to its answer, by call.", "call", Authorize, Launch, Retrieve)
	m.steps = m.times("batchwarden_launch_step_seconds", "Steps of a launch: caller, plan, decide, audit, start; one that was refused did not go through all.", "step", broker.Steps...)
	m.deliveries = m.tally("batchwarden_deliveries_total", "Passwords that were granted, by what came of it: delivered, failed (the caller left) or the code.", "outcome")
	m.notStarted = m.tally("batchwarden_launches_not_started_total", "Launches that were granted and that the launcher refused or could not journal, by code and realm.", "code", "realm")
	m.attempts = m.tally("batchwarden_sync_attempts_total", "Attempts to sync by outcome: ok or the code of the failure.", "outcome")
	m.syncs = m.time("batchwarden_sync_seconds", "How long attempts to sync took.")
	m.jobsEnded = m.tally("batchwarden_jobs_ended_total", "Ends of jobs by state (exited, failed, lost), code and realm; those while the daemon was down are counted when it is back.", "state", "code", "realm")
	m.flush = m.time("batchwarden_audit_flush_seconds", "From writing the oldest audit record of a flush until it is on the disk; audit.sync is part of it.")
	return m
}

// Watch says where to look. It is called once, before anybody asks.
func (m *Metrics) Watch(s Source) { m.source.Store(&s) }

// Called is told how long one of the Calls took and what came of it.
func (m *Metrics) Called(call string, took time.Duration, err error) {
	m.calls[call].Observe(took.Seconds())
	m.requests.add(call, codeOf(err))
}

// codeOf is the code of a problem; "" without one.
func codeOf(err error) string {
	if err == nil {
		return ""
	}
	if p, ok := errors.AsType[*wire.Problem](err); ok {
		return p.Code
	}
	return "failed" // the caller went away while the answer was sent
}

// Overloaded is told of a request that was not let in.
func (m *Metrics) Overloaded() { m.overloaded.Inc() }

// LaunchStep is told how long a step of a launch took.
func (m *Metrics) LaunchStep(step string, took time.Duration) { m.steps[step].Observe(took.Seconds()) }

// Attempted is told how an attempt to sync ended and how long it took.
func (m *Metrics) Attempted(code string, took time.Duration) {
	m.attempts.add(code)
	m.syncs.Observe(took.Seconds())
}

// Flushed is told how long the oldest of the audit records that came onto the
// disk had waited.
func (m *Metrics) Flushed(waited time.Duration) { m.flush.Observe(waited.Seconds()) }

// decided are the kinds of audit records that are decisions.
var decided = map[string]bool{
	audit.Authorize: true, audit.Launch: true, audit.Retrieve: true, audit.DryRun: true, audit.Signal: true, audit.Output: true,
	audit.Forget: true, audit.Report: true, audit.Suspend: true, audit.Resume: true, audit.Rekey: true, audit.Reload: true,
}

// Configured says which realms there are from now on; callers may name others.
func (m *Metrics) Configured(realms []string) {
	own := make(map[string]string, len(realms))
	for _, realm := range realms {
		own[realm] = realm
	}
	m.realms.Store(&own)
}

// Recorded is told of each audit record, and so of each decision. One that
// could not be written was not given: the answer was audit.unavailable.
func (m *Metrics) Recorded(r *audit.Record, err error) {
	realm := (*m.realms.Load())[r.Realm]
	if realm == "" && r.Realm != "" {
		realm = "unknown" // callers may write anything
	}
	switch {
	case decided[r.Kind] && err != nil:
		m.decisions.add(r.Kind, audit.Deny, wire.AuditUnavailable, realm)
	case err != nil: // what was told happened all the same; an end of a job comes again
	case decided[r.Kind]:
		m.decisions.add(r.Kind, r.Verdict, r.Code, realm)
	case r.Kind == audit.NotStarted:
		m.notStarted.add(r.Code, realm)
	case r.Kind == audit.Delivered:
		m.deliveries.add(r.Code)
	case r.Kind == audit.JobEnded && r.Job != nil:
		m.jobsEnded.add(r.Job.State, r.Code, realm)
	}
}

var _ audit.Observer = (*Metrics)(nil)
var _ broker.Monitor = (*Metrics)(nil)
