package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/broker"
	"batchwarden/daemon/config"
	"batchwarden/daemon/logs"
	"batchwarden/daemon/metrics"
	"batchwarden/daemon/policy"
	"batchwarden/daemon/strict"
	"batchwarden/ipc/wire"
	"batchwarden/platform/peer"
	"batchwarden/platform/service"
	"batchwarden/platform/watch"
	"batchwarden/vault/refresh"
)

// Reading is how the configuration is read again.
type Reading struct {
	File    string
	Hangups <-chan os.Signal // each asks for it
	Level   *slog.LevelVar   // of the log
}

// Bounds of a reload.
const (
	scopesWait  = 5 * time.Second  // for a sync that is being made to let go of other scopes' documents
	auditRetry  = 30 * time.Second // after a change that could not be written down
	mostFaults  = 100              // that an audit record names
	mostProblem = 20               // that the status shows
)

// reloader is the broker, and beside it what puts another configuration into force: whole, or nothing of it. It alone
// knows which parts have to be told what.
type reloader struct {
	*broker.Broker
	reading Reading
	models  map[string]policy.Model
	audit   *audit.Log
	metrics *metrics.Metrics
	log     *slog.Logger
	asked   chan struct{} // what could not be written down before is to be tried again
	started chan struct{} // closed when refresher is there

	mu        sync.Mutex // held for the time of a reload; guards what follows
	refresher *refresh.Refresher
	running   *config.Config // in force; SHA256 and Files are of what was read last and taken
	refused   string         // the sum of what was refused last, when that is the last that was read
	restart   []string

	look      sync.Mutex // guards what follows, and calls of ConfigAmiss
	faults    []wire.Finding
	waiting   []wire.Finding // for a restart
	unwatched []wire.Finding
}

func newReloader(again Reading, c *config.Config, models map[string]policy.Model, b *broker.Broker, records *audit.Log, counted *metrics.Metrics, log *slog.Logger) *reloader {
	return &reloader{
		Broker: b, reading: again, models: models, audit: records, metrics: counted, log: log, running: c,
		asked: make(chan struct{}, 1), started: make(chan struct{}),
	}
}

// supported refuses realms of models that this version does not have.
func supported(c *config.Config, models map[string]policy.Model) error {
	for _, realm := range slices.Sorted(maps.Keys(c.Realms)) {
		if model := c.Realms[realm].Model; models[model] == nil {
			return fmt.Errorf("realms.%s.model: %q: %w by this version", realm, model, errors.ErrUnsupported)
		}
	}
	return nil
}

// run reads the configuration again whenever a signal or its files ask for it, until ctx ends.
func (r *reloader) run(ctx context.Context, refresher *refresh.Refresher) error {
	r.mu.Lock()
	r.refresher = refresher
	r.mu.Unlock()
	close(r.started)
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { // ends with ctx
		watch.Run(ctx, func() []string { return config.Paths(r.reading.File) }, func() { r.reload(ctx, audit.ByFile, nil) }, r.notWatched)
	})
	for {
		var by string
		select {
		case <-ctx.Done():
			return nil
		case <-r.reading.Hangups:
			tell(r.log, service.Reloading())
			by = audit.BySignal
		case <-r.asked:
			by = audit.ByFile
		}
		r.reload(ctx, by, nil)
		if by == audit.BySignal {
			tell(r.log, service.Ready)
		}
	}
}

// Reload reads the configuration again for an operator.
func (r *reloader) Reload(ctx context.Context, p *peer.Connection) (wire.Reload, error) {
	by, err := r.MayReload(ctx, p)
	if err != nil {
		return wire.Reload{}, err
	}
	select {
	case <-r.started:
	case <-ctx.Done():
		return wire.Reload{}, wire.NewProblem(wire.Overloaded, "the service is being stopped or started")
	}
	// Once begun it goes on, whether or not somebody waits for the answer.
	return r.reload(context.WithoutCancel(ctx), audit.ByOperator, by)
}

// reload reads the configuration, and puts it into force when it has no fault. Its error is a problem document: then
// nothing was changed.
func (r *reloader) reload(ctx context.Context, by string, who *audit.Peer) (wire.Reload, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	read, sum, err := config.LoadSum(r.reading.File)
	if err == nil {
		if err = supported(read, r.models); err != nil {
			err = strict.Faults{{File: r.reading.File, Text: err.Error()}}
		}
	}
	a := wire.Reload{Outcome: wire.ReloadUnchanged, Changed: []string{}, RestartNeeded: []string{}, SHA256: sum, InForce: r.running.SHA256}
	record := &audit.Record{Operator: who != nil, Peer: who, Config: &audit.Config{SHA256: sum, Old: r.running.SHA256, By: by}}
	if err != nil {
		r.refuse(&a, record, err)
		return a, nil
	}
	next, restart := config.Keep(r.running, read)
	changed := config.Diff(r.running, next)
	a.Changed, a.RestartNeeded, a.Warnings = append(a.Changed, changed...), append(a.RestartNeeded, restart...), next.Warnings
	if sum == r.running.SHA256 {
		r.refused = ""
		r.accepted(restart)
		if by == audit.BySignal {
			r.log.Info("configuration read again: nothing is another than before")
		}
		return a, nil
	}
	record.Kind, record.Config.Changed, record.Config.Restart = audit.ConfigChanged, few(changed, mostFaults), restart
	if err := r.audit.Append(record); err != nil {
		r.log.Error("another configuration is not taken: its audit record cannot be written", "err", err)
		r.askAgain()
		return a, wire.NewProblem(wire.AuditUnavailable, "it could not be written down, so the configuration in force stays; it is tried again")
	}
	r.apply(ctx, next, changed)
	a.Outcome, a.InForce = wire.ReloadChanged, sum
	r.running, r.refused = next, ""
	r.accepted(restart)
	r.log.Info("configuration changed", "by", by, "changed", changed, "restart_needed", restart, "sha256", sum)
	r.Tell(wire.ConfigChanged, words(changed, restart))
	return a, nil
}

// askAgain has the configuration read again after some time. A reload by anybody else does not wait for that.
func (r *reloader) askAgain() {
	time.AfterFunc(auditRetry, func() {
		select {
		case r.asked <- struct{}{}:
		default: // one that is asked for is enough
		}
	})
}

// apply puts the configuration into force.
func (r *reloader) apply(ctx context.Context, next *config.Config, changed []string) {
	if level, err := logs.Level(next.Log.Level); err == nil && slices.Contains(changed, "log.level") { // else one that was set by hand stays
		r.reading.Level.Set(level)
	}
	r.metrics.Configured(slices.Collect(maps.Keys(next.Realms)))
	r.audit.Resize(next.Audit.Rotate, next.Audit.Keep)
	r.Adopt(ctx, next)
	if !config.Syncs(changed) {
		return
	}
	inForce := r.refresher.Configure(refresh.Settings{
		Scopes: scopes(next), Interval: next.Sync.Interval, Sweep: next.Sync.Sweep, MaxStale: next.Sync.MaxStale, PolicyMaxStale: next.Sync.PolicyMaxStale,
	})
	if slices.Equal(scopes(r.running), scopes(next)) {
		return
	}
	select {
	case <-inForce:
	case <-time.After(scopesWait):
		r.log.Warn("a sync is being made: until it ends the documents of the scopes before are served")
	case <-ctx.Done():
	}
}

// refuse says what is wrong, once for each state of the files, and to an operator each time.
func (r *reloader) refuse(a *wire.Reload, record *audit.Record, err error) {
	var faults strict.Faults
	if !errors.As(err, &faults) {
		faults = strict.Faults{{File: r.reading.File, Text: err.Error()}}
	}
	a.Outcome = wire.ReloadRefused
	var places []string
	var problems []wire.Finding
	for _, f := range faults {
		a.Faults = append(a.Faults, wire.ConfigFault{File: f.File, Line: f.Line, Column: f.Column, Place: f.Place, Text: f.Text})
		problems = append(problems, wire.Finding{Code: wire.ConfigFaulty, Path: at(f), Detail: f.Text + "; the configuration in force stays"})
		places = append(places, strings.TrimSuffix(at(f)+": "+f.Place, ": "))
	}
	// What cannot be read has no sum; then its faults tell the states apart.
	state := record.Config.SHA256 + faults.Error()
	again := state == r.refused
	r.refused = state
	r.amiss(func() { r.faults = problems[:min(len(problems), mostProblem)] })
	if again && record.Peer == nil {
		return
	}
	record.Kind, record.Config.Faults = audit.ConfigRefused, few(places, mostFaults)
	if err := r.audit.Append(record); err != nil {
		r.log.Error("audit record lost", "kind", record.Kind, "err", err)
	}
	r.log.Error("configuration not taken; the one in force stays", "by", record.Config.By, "faults", len(faults), "first", faults[0].String())
	r.Tell(wire.ConfigRefused, fmt.Sprintf("%d faults; the first: %s", len(faults), faults[0]))
}

// accepted takes over that the files are without a fault.
func (r *reloader) accepted(restart []string) {
	var waiting []wire.Finding
	if len(restart) > 0 {
		if !slices.Equal(restart, r.restart) {
			r.log.Warn("what was configured is in force after a restart of batchwardend and batchwarden-launcher", "settings", restart)
		}
		waiting = []wire.Finding{{Code: wire.ConfigRestartNeeded, Path: r.reading.File, Detail: "changed in the files, and in force after a restart of batchwardend and batchwarden-launcher: " + strings.Join(restart, ", ")}}
	}
	r.restart = restart
	r.amiss(func() { r.faults, r.waiting = nil, waiting })
}

// notWatched takes over why not everything can be watched; nil: it can.
func (r *reloader) notWatched(err error) {
	var unwatched []wire.Finding
	if err != nil {
		unwatched = []wire.Finding{{Code: wire.ConfigUnwatched, Path: filepath.Dir(r.reading.File),
			Detail: "changes of the configuration's files are not noticed at once; SIGHUP and batchwarden reload work: " + err.Error()}}
	}
	r.amiss(func() {
		if len(unwatched) != len(r.unwatched) {
			r.log.Warn("watching the configuration's files", "works", err == nil, "err", err)
		}
		r.unwatched = unwatched
	})
}

// amiss changes what is wrong with the configuration's files, and has the status show it.
func (r *reloader) amiss(change func()) {
	r.look.Lock()
	defer r.look.Unlock()
	change()
	r.ConfigAmiss(slices.Concat(r.faults, r.waiting, r.unwatched))
}

// at is where a fault is.
func at(f strict.Fault) string {
	if f.Line == 0 {
		return f.File
	}
	return fmt.Sprintf("%s:%d:%d", f.File, f.Line, f.Column)
}

// words say what changed, for an event.
func words(changed, restart []string) string {
	text := "changed: " + strings.Join(changed, ", ")
	if len(changed) == 0 {
		text = "no setting is another"
	}
	if len(restart) > 0 {
		text += "; after a restart: " + strings.Join(restart, ", ")
	}
	return text
}

// few is a list with a bound, which says that it was longer.
func few(list []string, most int) []string {
	if len(list) <= most {
		return list
	}
	return append(slices.Clone(list[:most]), fmt.Sprintf("… and %d more", len(list)-most))
}
