package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"batchwarden/platform/service"
)

// tell tells the service manager; that it does not hear it changes nothing here.
func tell(log *slog.Logger, states ...string) {
	if err := service.Notify(states...); err != nil {
		log.Error("the service manager was not told", "err", err)
	}
}

// watchdog tells the service manager how the daemon is, until ctx ends, and that it is alive as long as it is.
func (p parts) watchdog(ctx context.Context) error {
	var last time.Time
	service.Live(ctx, func(ctx context.Context) (string, error) {
		// A clock that stands still would keep in force what Vault has confirmed long ago.
		now := p.broker.Clock.Now()
		if !now.After(last) {
			return "", fmt.Errorf("the clock stands still at %s", now.Format(time.RFC3339Nano))
		}
		last = now
		// One that is not there is waited for, and one that hangs is its own watchdog's to end. But if there is a
		// session that nothing comes back through, only a new one helps.
		if p.launcher.Status().Connected {
			if err := p.launcher.Answers(ctx); err != nil && p.launcher.Status().Connected {
				return "", fmt.Errorf("the launcher does not answer: %w", err)
			}
		}
		return p.condition(ctx)
	}, func(err error) { p.log.Error("the daemon does not work as it should", "err", err) })
	return nil
}

// condition has the broker answer a request, and is what it said in one line.
func (p parts) condition(ctx context.Context) (string, error) {
	answered := make(chan string, 1)
	go func() { // ends when the broker answers; the watchdog ends the process if it does not
		h := p.broker.Health()
		text := []string{h.State}
		for _, reason := range h.Reasons {
			text = append(text, reason.Detail)
		}
		answered <- strings.Replace(strings.Join(text, "; "), "; ", ": ", 1)
	}()
	select {
	case text := <-answered:
		return text, nil
	case <-ctx.Done():
		return "", errors.New("the broker does not answer")
	}
}
