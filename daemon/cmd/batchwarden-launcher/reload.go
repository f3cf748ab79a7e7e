package main

import (
	"context"
	"log/slog"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"batchwarden/daemon/config"
	"batchwarden/daemon/limits"
	"batchwarden/daemon/logs"
	"batchwarden/platform/launch/keeper"
	"batchwarden/platform/watch"
)

// reading is what the launcher goes by of files that may change. The daemon tells operators what of batchwarden.yaml
// changed and what needs a restart; here it is taken or not in the same way.
type reading struct {
	file, limitsFile string
	owner            *limits.File
	level            *slog.LevelVar
	log              *slog.Logger
	running          atomic.Pointer[config.Config]
	unwatched        atomic.Pointer[string]

	mu     sync.Mutex // held while the files are read; guards what follows
	amiss  []string   // that the log has told of limits.yaml
	faulty string     // and of the configuration
}

func newReading(file, limitsFile string, c *config.Config, owner *limits.File, level *slog.LevelVar, log *slog.Logger) *reading {
	r := &reading{file: file, limitsFile: limitsFile, owner: owner, level: level, log: log}
	r.running.Store(c)
	return r
}

// run reads again when the files change or a signal says so, until ctx ends.
func (r *reading) run(ctx context.Context, hangups <-chan os.Signal) {
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { // ends with ctx
		watch.Run(ctx, func() []string { return append(config.Paths(r.file), r.limitsFile) }, r.again, r.notWatched)
	})
	for {
		select {
		case <-ctx.Done():
			return
		case <-hangups:
			r.again()
		}
	}
}

// again reads both files.
func (r *reading) again() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.configuration()           // first, as it says what is logged
	amiss := r.owner.Problems() // which reads it when it has changed
	if !slices.Equal(amiss, r.amiss) {
		r.log.Warn("limits read", "file", r.limitsFile, "problems", amiss)
	}
	r.amiss = amiss
}

// configuration takes another one, unless it has a fault. It needs r.mu.
func (r *reading) configuration() {
	c, sum, err := config.LoadSum(r.file)
	if err != nil {
		if text := err.Error(); text != r.faulty {
			r.log.Error("configuration not taken; the one in force stays", "file", r.file, "err", text)
			r.faulty = text
		}
		return
	}
	running := r.running.Load()
	if r.faulty = ""; sum == running.SHA256 {
		return
	}
	next, restart := config.Keep(running, c)
	r.running.Store(next)
	if level, err := logs.Level(next.Log.Level); err == nil && next.Log.Level != running.Log.Level { // else one that was set by hand stays
		r.level.Set(level)
	}
	r.log.Info("configuration read", "changed", config.Diff(running, next), "restart_needed", restart, "sha256", sum)
}

func (r *reading) bounds() keeper.Bounds {
	j := &r.running.Load().Jobs
	return keeper.Bounds{Keep: j.Keep, Grace: j.Grace, CaptureMax: j.CaptureMax, MaxRunning: j.MaxRunning}
}

// problems are what an operator should mend.
func (r *reading) problems() []string {
	problems := r.owner.Problems()
	if why := r.unwatched.Load(); why != nil {
		problems = append(problems, "launcher: changes of "+r.limitsFile+" are noticed at the next launch only: "+*why)
	}
	return problems
}

func (r *reading) notWatched(err error) {
	if err == nil {
		r.unwatched.Store(nil)
		return
	}
	why := err.Error()
	r.unwatched.Store(&why)
	r.log.Warn("configuration files cannot be watched", "err", err)
}
