package broker

import (
	"cmp"
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"

	"batchwarden/daemon/audit"
	"batchwarden/ipc/wire"
	"batchwarden/platform/peer"
)

// Suspend keeps this machine from starting jobs until Resume, also after a
// restart of it; what runs goes on to its end. Suspending twice is once: the
// first operator and his reason stay.
func (b *Broker) Suspend(ctx context.Context, p *peer.Connection, body *wire.Suspend) (wire.Suspension, error) {
	if len(body.Reason) > wire.MaxReason || strings.ContainsFunc(body.Reason, unicode.IsControl) {
		return wire.Suspension{}, wire.Invalid("reason", fmt.Sprintf("reason must be one line of at most %d octets", wire.MaxReason))
	}
	return b.steer(ctx, p, audit.Suspend, body.Reason, func(c *caller) *wire.Suspension {
		if s := b.suspension.Load(); s != nil {
			return s
		}
		return &wire.Suspension{Suspended: true, Since: b.Clock.Now().UTC(), By: cmp.Or(c.user, fmt.Sprintf("uid %d", c.peer.UID)), Reason: body.Reason}
	})
}

// Resume lets jobs be started again.
func (b *Broker) Resume(ctx context.Context, p *peer.Connection) (wire.Suspension, error) {
	return b.steer(ctx, p, audit.Resume, "", func(*caller) *wire.Suspension { return nil })
}

// steer writes down what an operator wants, then on the disk, and then it is so.
func (b *Broker) steer(ctx context.Context, p *peer.Connection, kind, reason string, next func(*caller) *wire.Suspension) (wire.Suspension, error) {
	c := b.identify(ctx, p)
	record := b.record(kind, &c, "", wire.Subject{}, "")
	record.Operator, record.Subject, record.Reason = c.operator, nil, reason
	if refusal := c.isOperator(); refusal != nil {
		return wire.Suspension{}, b.refuse(record, refusal)
	}
	b.steering.Lock()
	defer b.steering.Unlock()
	record.Verdict = audit.Allow
	if err := b.Audit.Append(record); err != nil {
		b.Log.Error("not done: its audit record cannot be written", "what", kind, "err", err)
		return wire.Suspension{}, wire.NewProblem(wire.AuditUnavailable, "it could not be written down, so nothing was changed")
	}
	was, now := b.suspension.Load(), next(&c)
	if now == was {
		return stateOf(now), nil
	}
	if now != nil {
		b.suspension.Store(now) // also when the disk does not take it: whoever stops a machine means it
	}
	if err := b.KeepSuspension(now); err != nil {
		b.Log.Error("suspension not kept", "what", kind, "err", err)
		detail := "the machine is suspended, and the next start will not know: that could not be written: "
		if now == nil {
			detail = "the machine stays suspended: the file that says so could not be removed: "
		}
		return wire.Suspension{}, wire.NewProblem(wire.LocalVaultUnwritable, detail+err.Error())
	}
	b.suspension.Store(now)
	b.Log.Info("launching was switched", "suspended", now != nil, "by", c.user)
	b.events.add(wire.Event{Type: kindOfSteering(now), Detail: strings.Trim(c.user+": "+reason, ": ")})
	return stateOf(now), nil
}

func kindOfSteering(s *wire.Suspension) string {
	if s != nil {
		return wire.EventSuspended
	}
	return wire.EventResumed
}

func stateOf(s *wire.Suspension) wire.Suspension {
	if s == nil {
		return wire.Suspension{}
	}
	return *s
}

// suspended refuses launches while the machine is suspended.
func (b *Broker) suspended() *wire.Problem {
	s := b.suspension.Load()
	if s == nil {
		return nil
	}
	return wire.NewProblem(wire.MachineSuspended, s.Words())
}

// Forget removes an ended job and its output before its time. The client that
// launched it may; its id can be used again then. An end that was not written
// into the audit yet is written first.
func (b *Broker) Forget(ctx context.Context, p *peer.Connection, id string) error {
	c := b.identify(ctx, p)
	if refusal := c.known(); refusal != nil {
		return refusal
	}
	if c.client == nil {
		return wire.NewProblem(wire.CallerForbidden, "operators do not forget jobs without a client entry: they are the clients'")
	}
	job, err := b.Launcher.Job(ctx, c.client.Name, id, 0)
	if err != nil {
		return b.problemOf(err)
	}
	if !job.Over() {
		return wire.NewProblem(wire.JobRunning, fmt.Sprintf("job %q is %s; a job can be forgotten when it has ended", id, job.State))
	}
	n := noteOf(&job)
	record := b.record(audit.Forget, &c, n.Realm, n.Subject, n.BatchUser)
	record.Job = &audit.Job{ID: job.ID, Serial: job.Serial, State: job.State, EndSeq: job.EndSeq}
	if !b.ends.reached(ctx, job.EndSeq) {
		return b.refuse(record, wire.NewProblem(wire.AuditUnavailable, "the end of the job is not written down yet, so it is not forgotten"))
	}
	record.Verdict = audit.Allow
	if err := b.Audit.Append(record); err != nil {
		b.Log.Error("job not forgotten: its audit record cannot be written", "err", err)
		return wire.NewProblem(wire.AuditUnavailable, "it could not be written down, so nothing was forgotten")
	}
	if err := b.Launcher.Forget(ctx, job.Owner, job.ID, job.Serial); err != nil {
		return b.problemOf(err)
	}
	return nil
}

// endsWait is how long a Forget waits for the job's end to be audited.
const endsWait = 5 * time.Second

// position is how far the ends of jobs have been written into the audit.
type position struct {
	mu   sync.Mutex // guards what follows
	seen uint64
	news chan struct{} // closed and replaced when seen grows; nil: nobody waits
}

func (p *position) set(seen uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if seen <= p.seen {
		return
	}
	p.seen = seen
	if p.news != nil {
		close(p.news)
		p.news = nil
	}
}

// reached waits until seen is at least seq.
func (p *position) reached(ctx context.Context, seq uint64) bool {
	ctx, cancel := context.WithTimeout(ctx, endsWait)
	defer cancel()
	for {
		p.mu.Lock()
		if p.seen >= seq {
			p.mu.Unlock()
			return true
		}
		if p.news == nil {
			p.news = make(chan struct{})
		}
		news := p.news
		p.mu.Unlock()
		select {
		case <-news:
		case <-ctx.Done():
			return false
		}
	}
}
