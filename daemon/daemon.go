// Package daemon assembles the parts of batchwardend and runs them: what was
// synced is served from locked memory and the local vault, decisions are made
// by the broker, jobs are started by the launcher.
//
// The daemon itself opens no network socket and starts no process.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/broker"
	"batchwarden/daemon/config"
	"batchwarden/daemon/metrics"
	"batchwarden/daemon/policy"
	"batchwarden/ipc/server"
	"batchwarden/ipc/wire"
	"batchwarden/platform/boottime"
	"batchwarden/platform/heap"
	"batchwarden/platform/hostkey"
	"batchwarden/platform/launch"
	"batchwarden/platform/lockmem"
	"batchwarden/platform/service"
	"batchwarden/vault/refresh"
	"batchwarden/vault/sealed"
)

// ErrSetup reports that the configuration, the key or the local vault do not
// fit together. Starting again will not help; a person has to look.
var ErrSetup = errors.New("set-up")

// slots is how many passwords can be in the open at once, in locked memory.
const slots = 64

// gcPercent is how much garbage there may be, in percent of what is in use, before it is collected. Go's
// own choice, 100, is for programs that allocate all the time. This one allocates little once it runs,
// but holds much for long: half of its memory would be garbage that nobody hurries to collect.
const gcPercent = 10

// ballast is memory that nobody touches, so that none is taken from the system. It counts as in use, so that there may
// be about as much garbage, 10 MiB, wherever little is in use and wherever much is: collecting as often as that
// alone would have it costs more than answering. In octets.
const ballast = 96 << 20

// Until the vault is taken in there is next to no garbage to collect, and somebody may be waiting for a password:
// it is loadPercent until settled has passed. Taking the vault in needs loadFactor times its size; for that of a
// vault of mostReserved octets, and no more, memory is prepared.
const (
	loadPercent  = 800
	loadFactor   = 5
	mostReserved = 16 << 20
	settled      = time.Second
)

// watchEvery is between two looks at the protection of our own memory.
const watchEvery = time.Minute

// drain is how long requests may take to end when the daemon stops.
const drain = 5 * time.Second

// Run serves until ctx ends, which is no error. It starts, waits for and ends
// everything it needs. models are the policy models by the name that the
// configuration gives them.
func Run(ctx context.Context, c *config.Config, again Reading, models map[string]policy.Model, program Program, log *slog.Logger) (err error) {
	if err := lockmem.Harden(); err != nil {
		log.Warn("the memory of this process is not protected from others of the same user", "err", err)
	}
	defer runtime.KeepAlive(make([]byte, ballast)) // before anything that was used is free for it
	arena, err := allocate(c)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, arena.Close()) }()
	store, err := openStore(c, arena)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSetup, err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	counted := metrics.New(metrics.Options{
		Realms: slices.Sorted(maps.Keys(c.Realms)), Version: program.Version, Textfile: c.Metrics.Textfile,
	})
	records, err := audit.Open(c.Audit.File, audit.Options{
		Sync: c.Audit.Sync, Rotate: c.Audit.Rotate, Keep: c.Audit.Keep, Journald: c.Audit.Journald, Observer: counted,
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSetup, err)
	}
	if err := supported(c, models); err != nil {
		return fmt.Errorf("%w: %w", ErrSetup, err)
	}

	launcher := launch.New(c.Launcher.Socket, log)
	late := &lateSyncer{}
	clock := newClock(log)
	b := broker.New(broker.Parts{
		Config: c, Models: models, Audit: records, Launcher: launcher, Secrets: store, Arena: arena, Syncer: late,
		Local: func() wire.LocalVault { return localVault(store.Status(), late.wentBack()) },
		Memory: func() wire.Memory {
			return wire.Memory{Backend: arena.Backend(), Degraded: arena.Degraded(), Dumpable: lockmem.Hardened() != nil}
		},
		Clock: clock, Monitor: counted, Version: program.Version, Log: log, Level: again.Level,
		Suspension: suspension(c, log), KeepSuspension: keepSuspension(c),
	})
	counted.Watch(metrics.Source{Broker: b, Audit: records, Arena: arena})
	if foreign := foreign(store.Status()); foreign != "" {
		b.Noticed("local_vault.foreign", foreign)
	}
	load := func(ctx context.Context) (*refresh.Refresher, error) {
		r, err := refresh.New(ctx, refresh.Options{
			Machine: c.Machine, Scopes: scopes(c), Interval: c.Sync.Interval, Sweep: c.Sync.Sweep,
			MaxStale: c.Sync.MaxStale, PolicyMaxStale: c.Sync.PolicyMaxStale,
			Clock: clock, Store: store, Worker: worker{launcher}, Witness: launcher,
			Check: b.CheckPolicy, Activate: b.Activate, Changed: b.Synced, Attempted: counted.Attempted, Noticed: b.Noticed, Log: log,
		})
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrSetup, err)
		}
		late.set(syncer{r, func() string { return b.Config().Vault.Address }})
		return r, nil
	}
	reloads := newReloader(again, c, models, b, records, counted, log)
	processors := service.NewProcessors()
	front := server.New(measured{&rekeying{reloads, store, arena, records, log}, counted, processors}, log)
	started(records, program, c, log)
	return serve(ctx, parts{c, records, launcher, b, front, newCredentials(launcher, b, log), reloads, processors, program, counted, log}, load)
}

// allocate takes the memory that secrets are in, and beside that as much as taking the vault in needs.
func allocate(c *config.Config) (*lockmem.Arena, error) {
	debug.SetGCPercent(loadPercent)
	var ordinary sync.WaitGroup
	ordinary.Go(func() { heap.Reserve(loadFactor * int(min(sealed.Size(vaultDir(c)), mostReserved))) })
	defer ordinary.Wait()
	return lockmem.New(slots)
}

// parts are what runs beside each other.
type parts struct {
	config      *config.Config
	audit       *audit.Log
	launcher    *launch.Launcher
	broker      *broker.Broker
	front       *server.Server
	credentials *credentials
	reloads     *reloader
	processors  *service.Processors
	program     Program
	metrics     *metrics.Metrics
	log         *slog.Logger
}

// serve runs the parts, and what load makes of the vault, until ctx ends or one
// of them fails. The launcher is met while the vault is loaded, and nobody is
// answered before both are there. The audit log is the last to end: whatever the
// others still do has to be written.
func serve(ctx context.Context, p parts, load func(context.Context) (*refresh.Refresher, error)) error {
	auditCtx, endAudit := context.WithCancel(context.WithoutCancel(ctx))
	defer endAudit()
	audited := make(chan error, 1)
	go func() { audited <- p.audit.Run(auditCtx) }() // ends below, after all others

	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var running sync.WaitGroup
	start := func(name string, run func(context.Context) error) {
		running.Go(func() { // ends with ctx, and ends ctx when it fails
			if err := run(ctx); err != nil {
				stop(fmt.Errorf("%s: %w", name, err))
			}
		})
	}
	doors := make(chan *net.UnixListener)
	start("launcher", func(ctx context.Context) error {
		return p.launcher.Run(ctx, func(public *net.UnixListener) {
			select {
			case doors <- public:
			case <-ctx.Done():
				_ = public.Close() // nobody will serve it
			}
		})
	})
	if refresher, err := load(ctx); err != nil {
		stop(err)
	} else {
		p.startAll(start, refresher, doors)
	}
	<-ctx.Done()
	tell(p.log, service.Stopping)

	shut, cancel := context.WithTimeout(context.WithoutCancel(ctx), drain)
	defer cancel()
	failure := context.Cause(ctx)
	if errors.Is(failure, context.Canceled) {
		failure = nil // we were asked to stop
	}
	if err := p.front.Shutdown(shut); err != nil {
		p.log.Warn("requests were cut off", "err", err)
	}
	running.Wait()
	stopped(p.audit, p.program, failure, p.log)
	endAudit()
	return errors.Join(failure, <-audited)
}

// startAll starts everything but the launcher's session.
func (p parts) startAll(start func(string, func(context.Context) error), refresher *refresh.Refresher, doors <-chan *net.UnixListener) {
	start("refresh", refresher.Run)
	start("memory", func(ctx context.Context) error {
		if !settle(ctx) {
			return nil
		}
		debug.SetGCPercent(gcPercent) // which collects at once
		if err := heap.ForgetProgram(); err != nil {
			p.log.Debug("what only the beginning needs of the program stays in memory", "err", err)
		}
		lockmem.Watch(ctx, watchEvery, func(err error) {
			p.log.Error("the protection of this process's memory was undone", "err", err)
		})
		return nil
	})
	start("processors", func(ctx context.Context) error {
		if settle(ctx) { // whoever waits for the beginning is served by all of them
			p.processors.Run(ctx)
		}
		return nil
	})
	start("job ends", p.broker.AuditEnds)
	start("state", p.broker.WatchState)
	start("watchdog", p.watchdog)
	begun := make(chan struct{}, 1)
	start("names", func(ctx context.Context) error { return p.broker.WatchNames(ctx, begun) })
	start("sockets", func(ctx context.Context) error {
		return p.answer(ctx, doors, func() {
			refresher.Kick()
			select {
			case begun <- struct{}{}:
			default: // it will be asked anyway
			}
		})
	})
	start("credentials", p.credentials.run)
	if p.config.Metrics.Textfile != "" {
		start("textfile", func(ctx context.Context) error { return p.metrics.KeepTextfile(ctx, p.log) })
	}
	start("reload", func(ctx context.Context) error { return p.reloads.run(ctx, refresher) })
	p.log.Info("running", "machine", p.config.Machine, "socket", p.config.Socket)
}

// settle waits until the beginning is over, and reports whether ctx goes on.
func settle(ctx context.Context) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(settled):
		return true
	}
}

// answer serves the public socket. The launcher owns it and hands us a
// descriptor at each session; a new one takes the place of the last. begun is
// told of each: what needs the launcher may succeed from now on.
func (p parts) answer(ctx context.Context, doors <-chan *net.UnixListener, begun func()) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	end := func() {}
	for {
		select {
		case <-ctx.Done():
			end()
			return nil
		case door := <-doors:
			end() // requests that were accepted already are answered all the same
			doorCtx, cancel := context.WithCancel(ctx)
			end = cancel
			serving.Go(func() { // ends with doorCtx
				if err := p.front.Serve(doorCtx, door); err != nil {
					p.log.Error("socket failed", "err", err)
				}
			})
			begun()
			tell(p.log, service.Ready) // again after each session, which changes nothing
			if p.config.SystemdSocket != "" {
				p.credentials.session()
			}
		}
	}
}

func vaultDir(c *config.Config) string { return filepath.Join(c.StateDir, "vault") }

// openStore opens the local vault. A key is made only where there is neither
// key nor vault: a vault whose key has gone must not be replaced in silence.
func openStore(c *config.Config, arena *lockmem.Arena) (*sealed.Store, error) {
	dir := vaultDir(c)
	host := hostkey.Host()
	there, err := sealed.Peek(dir)
	none := errors.Is(err, fs.ErrNotExist)
	if err != nil && !none && !errors.Is(err, sealed.ErrDamaged) {
		return nil, err
	}
	// A vault of another host opens with no key of this one, so a new key does it no harm.
	key, err := hostkey.Open(c.LocalVault.Key, none || there.Foreign(host), arena)
	if err != nil {
		return nil, err
	}
	defer arena.Drop(key.KEK) // the store needs it to open, and not after
	own := sealed.Key{KEK: key.KEK, Kind: key.Kind, ID: key.ID, Host: host}
	return sealed.Open(dir, &own, arena)
}

// newClock is the clock that ages and expiries are judged by.
func newClock(log *slog.Logger) *refresh.Clock {
	start := time.Now()
	up, boot := func() time.Duration { return time.Since(start) }, ""
	if _, err := boottime.Now(); err != nil {
		log.Warn("time asleep does not count where the clock was set back", "err", err)
		return refresh.NewClock(time.Now, up, boot)
	}
	return refresh.NewClock(time.Now, seldom(time.Second, func() time.Duration {
		d, err := boottime.Now()
		if err != nil {
			return 0 // it told a moment ago; and then nothing is added to the highest time seen
		}
		return d
	}), boottime.Boot())
}

// seldom is up for one goroutine at a time, which asks the system only when so much time has passed: every decision
// wants to know. In between Go's own clock tells, without the system; a sleep of the machine shows that much later.
func seldom(every time.Duration, up func() time.Duration) func() time.Duration {
	var asked time.Time
	var was time.Duration
	return func() time.Duration {
		passed := time.Since(asked)
		if asked.IsZero() || passed >= every {
			was, asked, passed = up(), time.Now(), 0
		}
		return was + passed
	}
}

// scopes are where in Vault this machine looks, the nearest first.
func scopes(c *config.Config) []string {
	list := []string{"machines/" + c.Machine}
	for _, group := range c.Groups {
		list = append(list, "groups/"+group)
	}
	for _, platform := range c.Platforms {
		list = append(list, "platforms/"+platform)
	}
	return list
}

var _ broker.Launcher = (*launch.Launcher)(nil)
var _ broker.Secrets = (*sealed.Store)(nil)
var _ broker.Clock = (*refresh.Clock)(nil)
var _ refresh.Store = (*sealed.Store)(nil)
