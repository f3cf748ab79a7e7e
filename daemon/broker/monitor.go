package broker

import (
	"context"
	"iter"
	"time"

	"batchwarden/ipc/wire"
	"batchwarden/platform/peer"
)

// Steps of a launch, in their order, for a Monitor. One that was refused did not go through all.
const (
	StepCaller = "caller" // who is asking: the launcher attests it anew
	StepPlan   = "plan"   // what is wanted, and whether it was asked before
	StepDecide = "decide"
	StepAudit  = "audit"
	StepStart  = "start" // the launcher checks, journals and starts the job
)

// Steps lists them.
var Steps = []string{StepCaller, StepPlan, StepDecide, StepAudit, StepStart}

// laps measures the steps of one launch.
func (b *Broker) laps() (lap func(step string)) {
	if b.Monitor == nil {
		return func(string) {}
	}
	last := time.Now()
	return func(step string) {
		now := time.Now()
		b.Monitor.LaunchStep(step, now.Sub(last))
		last = now
	}
}

// Metrics is the page of the monitor, for operators.
func (b *Broker) Metrics(ctx context.Context, p *peer.Connection) ([]byte, error) {
	c := b.identify(ctx, p)
	if refusal := c.isOperator(); refusal != nil {
		return nil, refusal
	}
	return b.Monitor.Page()
}

// Standing is how one batch user stands.
type Standing struct {
	Name, Scope, State string
	Version            int64
	Age                time.Duration // since Vault last confirmed it
	StaleIn            time.Duration // negative: since it is
	Rotates            bool          // RotatesIn is known
	RotatesIn          time.Duration // until the next password was announced; negative: it is overdue
}

// Standings are those of all batch users, in order of name.
func (b *Broker) Standings() iter.Seq[Standing] {
	return func(yield func(Standing) bool) {
		now, v := b.Clock.Now(), b.view.Load()
		for _, u := range v.known.Users() {
			age := now.Sub(u.Confirmed)
			s := Standing{
				Name: u.Name, Scope: u.ID.Scope, State: b.stateOf(v, u, now), Version: u.SecretVersion(),
				Age: age, StaleIn: v.maxStale(u) - age, Rotates: !u.Rotates.IsZero(),
			}
			if s.Rotates {
				s.RotatesIn = u.Rotates.Sub(now)
			}
			if !yield(s) {
				return
			}
		}
	}
}

// Now tells the time that ages and expiries are judged by.
func (b *Broker) Now() time.Time { return b.Clock.Now() }

// Picture is how things stand, as in Status, with the jobs as the launcher last counted them: it asks nobody.
func (b *Broker) Picture() wire.Status {
	s := b.standing(b.view.Load())
	l := b.Launcher.Status()
	s.Jobs = wire.JobCount{Running: l.JobsRunning, Kept: l.JobsKept}
	return s
}
