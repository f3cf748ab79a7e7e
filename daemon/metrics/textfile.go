package metrics

import (
	"context"
	"log/slog"
	"time"

	"batchwarden/platform/safefile"
)

// every is between two writes of the textfile, and first before the first one:
// the start has other things to do.
const (
	every = 15 * time.Second
	first = time.Second
)

// KeepTextfile writes the page to the file of the options, whole or not at
// all, until ctx ends. That it cannot is a problem in status, and tried again.
// The last page stays when it ends: that it grows old is how monitoring learns
// that the daemon does not run.
func (m *Metrics) KeepTextfile(ctx context.Context, log *slog.Logger) error {
	next := time.NewTimer(first)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-next.C:
		}
		m.leave(log)
		next.Reset(every)
	}
}

// leave writes the textfile once.
func (m *Metrics) leave(log *slog.Logger) {
	page, err := m.Page()
	if err == nil {
		err = safefile.WriteAtomic(m.o.Textfile, page, 0o644)
	}
	if err == nil {
		m.unwritten.Store(nil)
		return
	}
	why := "monitoring sees old numbers: the daemon cannot write there: " + err.Error()
	if was := m.unwritten.Swap(&why); was == nil || *was != why {
		log.Warn("metrics.textfile not written", "err", err)
	}
}

// Unwritten says why the textfile is not there; "" when it is.
func (m *Metrics) Unwritten() string {
	if why := m.unwritten.Load(); why != nil {
		return *why
	}
	return ""
}
