package refresh

import "time"

// Settings are those of the Options that can be others from some moment on.
type Settings struct {
	Scopes         []string
	Interval       time.Duration
	Sweep          time.Duration
	MaxStale       time.Duration
	PolicyMaxStale time.Duration
}

func (r *Refresher) settings() *Settings { return r.set.Load() }

// Configure changes the settings, and has everything looked at soon: documents that were refused too, since what refused
// them may be another. What it returns is closed when nothing of a scope that is not among the settings' any more is
// served, and what is known of those that are new is: at once, or with the end of the attempt that is being made.
func (r *Refresher) Configure(s Settings) (inForce <-chan struct{}) {
	r.set.Store(&s)
	done := make(chan struct{})
	r.mu.Lock()
	r.renews = append(r.renews, done)
	r.mu.Unlock()
	select {
	case r.renewed <- struct{}{}:
	default: // one word is enough for all
	}
	return done
}

// renew puts the settings into force. Run's goroutine makes an attempt after it.
func (r *Refresher) renew() {
	r.mu.Lock()
	waiting := r.renews
	r.renews = nil
	r.mu.Unlock()
	clear(r.refused)
	r.swept, r.retry = time.Time{}, time.Time{}
	r.o.Activate(r.snapshot())
	for _, done := range waiting {
		close(done)
	}
}
