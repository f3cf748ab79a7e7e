// Package watch tells when files may have been changed, however that was done.
//
// Not the files are watched but the directories that they lie in, and those of every symbolic link on the way: an editor
// that puts a new file in the place of the old one, a link that is swapped, as in a mounted ConfigMap, and a file that
// did not exist are seen like a file that is written in place. What happens in short succession is told once.
package watch

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/fsnotify/fsnotify"
)

// After a change it is told when there was none for Quiet, but no later than Longest after the first.
const (
	Quiet   = 200 * time.Millisecond
	Longest = 2 * time.Second
)

// again is how long after a failure the next try follows, and how often it is looked until one succeeds.
const again = time.Minute

// maxLinks is how many links are followed, as the system does.
const maxLinks = 40

// Run calls changed, one call at a time, after anything happened in the directories of the files that are named by paths,
// until ctx ends. paths is asked again each time, as there may be others then; of a directory among them everything in it
// counts. failed is told why not everything can be watched, and nil when it can be (again): until then changes may be seen
// late, as changed is then called every minute. It is also called when watching has begun, for what happened before.
func Run(ctx context.Context, paths func() []string, changed func(), failed func(error)) {
	for {
		err := run(ctx, paths, changed, failed)
		if ctx.Err() != nil {
			return
		}
		failed(err)
		changed()
		select {
		case <-ctx.Done():
			return
		case <-time.After(again):
		}
	}
}

// run watches until ctx ends or watching is not possible any more.
func run(ctx context.Context, paths func() []string, changed func(), failed func(error)) error {
	w, err := fsnotify.NewWatcher()
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	defer w.Close() // nothing was written
	events := make(chan struct{})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var blind atomic.Bool // not all of it could be watched
	ended := make(chan error, 1)
	go func() { // ends with ctx or the watcher, and is waited for
		ended <- forward(ctx, w, events, &blind)
		cancel()
	}()
	debounce(ctx, events, Quiet, Longest, func() {
		err := add(w, paths())
		blind.Store(err != nil)
		failed(err)
		changed()
	})
	cancel()
	return <-ended
}

// forward passes on that something happened, or may have where that cannot be seen, until ctx ends or the watcher does.
func forward(ctx context.Context, w *fsnotify.Watcher, events chan<- struct{}, blind *atomic.Bool) error {
	tick := time.NewTicker(again)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			if !blind.Load() {
				continue
			}
		case _, open := <-w.Events:
			if !open {
				return errors.New("watch: the system stopped it")
			}
		case err, open := <-w.Errors:
			if !open {
				return errors.New("watch: the system stopped it")
			}
			if !errors.Is(err, fsnotify.ErrEventOverflow) { // else something happened, and nobody knows what
				return fmt.Errorf("watch: %w", err)
			}
		}
		select {
		case events <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
	}
}

// debounce calls f at once, and then after events: when there were none for quiet, or longest after the first.
func debounce(ctx context.Context, events <-chan struct{}, quiet, longest time.Duration, f func()) {
	f()
	var last time.Time // by when it has to be told; zero: there is nothing to tell
	var due <-chan time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-events:
			now := time.Now()
			if last.IsZero() {
				last = now.Add(longest)
			}
			due = time.After(min(quiet, last.Sub(now)))
		case <-due:
			last, due = time.Time{}, nil
			f()
		}
	}
}

// add watches the directories that lead to the files, and no others.
func add(w *fsnotify.Watcher, paths []string) error {
	var wanted []string
	for _, path := range paths {
		wanted = append(wanted, places(path)...)
	}
	var errs []error
	slices.Sort(wanted)
	for _, dir := range slices.Compact(wanted) {
		if err := w.Add(dir); err != nil { // one that is watched already is watched once
			errs = append(errs, fmt.Errorf("watch: %q: %w", dir, err))
		}
	}
	for _, dir := range w.WatchList() {
		if !slices.Contains(wanted, dir) {
			_ = w.Remove(dir) // one that is gone was removed already
		}
	}
	return errors.Join(errs...)
}

// places are the directories in which something has to happen for path to lead to something else or to be changed: that
// of each link on the way, and its own in the end; of a directory, itself too.
func places(path string) (dirs []string) {
	at, rest := string(filepath.Separator), strings.Split(filepath.Clean(path), string(filepath.Separator))
	if volume := filepath.VolumeName(path); volume != "" {
		at, rest = volume+at, rest[1:]
	}
	for links := 0; len(rest) > 0; {
		next := filepath.Join(at, rest[0])
		rest = rest[1:]
		info, err := os.Lstat(next)
		switch {
		case err != nil:
			return append(dirs, at) // where it would appear
		case info.Mode()&os.ModeSymlink != 0 && links < maxLinks:
			links++
			target, err := os.Readlink(next)
			if err != nil {
				return append(dirs, at)
			}
			dirs = append(dirs, at)
			if filepath.IsAbs(target) {
				at = string(filepath.Separator)
			}
			rest = append(strings.Split(filepath.Clean(target), string(filepath.Separator)), rest...)
		case info.IsDir() && len(rest) == 0:
			return append(dirs, at, next)
		case len(rest) == 0:
			return append(dirs, at)
		default:
			at = next
		}
	}
	return append(dirs, at)
}
