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
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/broker"
	"batchwarden/daemon/config"
	"batchwarden/daemon/policy"
	"batchwarden/ipc/server"
	"batchwarden/ipc/wire"
	"batchwarden/platform/hostkey"
	"batchwarden/platform/launch"
	"batchwarden/platform/lockmem"
	"batchwarden/platform/safefile"
	"batchwarden/vault/refresh"
	"batchwarden/vault/sealed"
)

// ErrSetup reports that the configuration, the key or the local vault do not
// fit together. Starting again will not help; a person has to look.
var ErrSetup = errors.New("set-up")

// slots is how many passwords can be in the open at once, in locked memory.
const slots = 64

// drain is how long requests may take to end when the daemon stops.
const drain = 5 * time.Second

// Run serves until ctx ends, which is no error. It starts, waits for and ends
// everything it needs. models are the policy models by the name that the
// configuration gives them.
func Run(ctx context.Context, c *config.Config, models map[string]policy.Model, version string, log *slog.Logger) (err error) {
	if err := lockmem.Harden(); err != nil {
		log.Warn("the memory of this process is not protected from others of the same user", "err", err)
	}
	arena, err := lockmem.New(slots)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, arena.Close()) }()
	store, err := openStore(c, arena)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSetup, err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	records, err := audit.Open(c.Audit.File, c.Audit.Sync)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSetup, err)
	}
	for realm, r := range c.Realms {
		if models[r.Model] == nil {
			return fmt.Errorf("%w: realms.%s.model: %q: %w by this version", ErrSetup, realm, r.Model, errors.ErrUnsupported)
		}
	}

	launcher := launch.New(c.Launcher.Socket, log)
	late := &lateSyncer{}
	b := broker.New(broker.Parts{
		Config: c, Models: models, Audit: records, Launcher: launcher, Secrets: store, Arena: arena, Syncer: late,
		Local: func() wire.LocalVault { return localVault(store.Status()) },
		Memory: func() wire.Memory {
			return wire.Memory{Backend: arena.Backend(), Degraded: arena.Degraded(), Dumpable: lockmem.Hardened() != nil}
		},
		Version: version, Log: log,
	})
	refresher, err := refresh.New(ctx, refresh.Options{
		Machine: c.Machine, Scopes: scopes(c), Interval: c.Sync.Interval, Store: store, Worker: worker{launcher},
		Check: b.CheckPolicy, Activate: b.Activate, Changed: b.Synced, Log: log,
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSetup, err)
	}
	late.set(syncer{refresher, c.Vault.Address})

	front := server.New(b, log)
	return serve(ctx, parts{c, records, launcher, b, refresher, front, log})
}

// parts are what runs beside each other.
type parts struct {
	config    *config.Config
	audit     *audit.Log
	launcher  *launch.Launcher
	broker    *broker.Broker
	refresher *refresh.Refresher
	front     *server.Server
	log       *slog.Logger
}

// serve runs the parts until ctx ends or one of them fails. The audit log is
// the last to end: whatever the others still do has to be written.
func serve(ctx context.Context, p parts) error {
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
	start("refresh", p.refresher.Run)
	start("job ends", p.auditEnds)
	doors := make(chan net.Listener)
	start("sockets", func(ctx context.Context) error { return p.answer(ctx, doors) })
	start("launcher", func(ctx context.Context) error {
		return p.launcher.Run(ctx, func(public *net.UnixListener) {
			p.refresher.Kick()
			select {
			case doors <- public:
			case <-ctx.Done():
				_ = public.Close() // nobody will serve it
			}
		})
	})
	p.log.Info("running", "machine", p.config.Machine, "socket", p.config.Socket)
	<-ctx.Done()

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
	endAudit()
	return errors.Join(failure, <-audited)
}

// answer serves the public socket. The launcher owns it and hands us a
// descriptor at each session; a new one takes the place of the last.
func (p parts) answer(ctx context.Context, doors <-chan net.Listener) error {
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
		}
	}
}

// auditEnds writes down the ends of jobs, beginning after the last one that
// was written before the daemon was last stopped.
func (p parts) auditEnds(ctx context.Context) error {
	file := filepath.Join(p.config.StateDir, "journal.seen")
	seen, err := readSeen(file)
	if err != nil {
		return err
	}
	return p.broker.AuditEnds(ctx, seen, func(seq uint64) error {
		return safefile.WriteAtomic(file, []byte(strconv.FormatUint(seq, 10)+"\n"), 0o600)
	})
}

func readSeen(file string) (uint64, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	seq, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return 0, nil // unreadable: ends are written again, with their numbers, rather than lost
	}
	return seq, nil
}

// openStore opens the local vault. A key is made only where there is neither
// key nor vault: a vault whose key has gone must not be replaced in silence.
func openStore(c *config.Config, arena *lockmem.Arena) (*sealed.Store, error) {
	dir := filepath.Join(c.StateDir, "vault")
	there, err := sealed.Exists(dir)
	if err != nil {
		return nil, err
	}
	key, err := hostkey.Open(c.LocalVault.Key, !there, arena)
	if err != nil {
		return nil, err
	}
	defer arena.Drop(key.KEK) // the store needs it to open, and not after
	own := sealed.Key{KEK: key.KEK, Kind: key.Kind, ID: key.ID}
	return sealed.Open(dir, &own, arena)
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
var _ server.Broker = (*broker.Broker)(nil)
