package broker

import (
	"context"
	"encoding/json"
	"os"
	"time"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/policy"
	"batchwarden/ipc/wire"
	"batchwarden/platform/launch"
	"batchwarden/platform/peer"
)

// control is what is wanted with a job, and what is known of it.
type control struct {
	what policy.Control
	note note
}

// Signal sends a signal to all of a job. The client that launched the job may,
// and operators; where the client's entry says subject_required, only for a
// subject whom the realm's policy allows it. It is written down before it is
// done.
func (b *Broker) Signal(ctx context.Context, p *peer.Connection, id string, body *wire.Signal) (wire.Job, error) {
	c := b.identify(ctx, p)
	owner, refusal := b.ownerOf(ctx, &c, id)
	if refusal != nil {
		return wire.Job{}, refusal
	}
	if body.Signal == "" {
		return wire.Job{}, wire.Invalid("signal", "signal is missing")
	}
	if time.Duration(body.Grace) > launch.MaxGrace {
		return wire.Job{}, wire.Invalid("grace", "grace is more than "+launch.MaxGrace.String())
	}
	grace := time.Duration(body.Grace)
	if body.Signal == launch.Cancel && grace == 0 {
		grace = c.view.config.Jobs.Grace
	}
	job, err := b.Launcher.Job(ctx, owner, id, 0)
	if err != nil {
		return wire.Job{}, b.problemOf(err)
	}
	record, refusal := b.mayControl(&c, audit.Signal, policy.Signal, &job, body.Subject, body.Object)
	if refusal != nil {
		return wire.Job{}, refusal
	}
	record.Verdict, record.Reason = audit.Allow, brief(body.Signal)
	if err := b.Audit.Append(record); err != nil {
		b.Log.Error("signal refused: its audit record cannot be written", "err", err)
		return wire.Job{}, wire.NewProblem(wire.AuditUnavailable, "the decision could not be written down, so nothing was signalled")
	}
	job, err = b.Launcher.Signal(ctx, owner, id, body.Signal, grace)
	if err != nil {
		return wire.Job{}, b.problemOf(err)
	}
	return jobOf(&job), nil
}

// Output opens what one of the caller's own jobs has written so far. The
// caller closes the file. Operators read no output: it is the client's data.
// Subject and object are judged as for Signal, and then audited.
func (b *Broker) Output(ctx context.Context, p *peer.Connection, id, stream string, subject wire.Subject, object json.RawMessage) (*os.File, error) {
	c := b.identify(ctx, p)
	if refusal := c.known(); refusal != nil {
		return nil, refusal
	}
	if c.client == nil {
		return nil, wire.NewProblem(wire.CallerForbidden, "operators do not read output without a client entry")
	}
	job, err := b.Launcher.Job(ctx, c.client.Name, id, 0)
	if err != nil {
		return nil, b.problemOf(err)
	}
	record, refusal := b.mayControl(&c, audit.Output, policy.Output, &job, subject, object)
	if refusal != nil {
		return nil, refusal
	}
	if c.client.SubjectRequired || !subject.IsZero() {
		record.Verdict = audit.Allow
		if err := b.Audit.Append(record); err != nil {
			b.Log.Error("output refused: its audit record cannot be written", "err", err)
			return nil, wire.NewProblem(wire.AuditUnavailable, "the decision could not be written down, so nothing is read")
		}
	}
	file, err := b.Launcher.Output(ctx, c.client.Name, id, stream)
	if err != nil {
		return nil, b.problemOf(err)
	}
	return file, nil
}

// mayControl judges what is wanted with a job, where it has to be judged: when
// the client entry says so, and whenever a subject is named. A client may name
// nobody where its entry does not ask for it; an operator may too.
func (b *Broker) mayControl(c *caller, kind string, what policy.Control, job *launch.Job, subject wire.Subject, object json.RawMessage) (*audit.Record, *wire.Problem) {
	n := noteOf(job)
	record := b.record(kind, c, n.Realm, subject, n.BatchUser)
	record.Job = &audit.Job{ID: job.ID, PID: job.PID, State: job.State}
	record.Username, record.CredentialVersion = job.User, n.CredentialVersion
	required := c.client != nil && c.client.SubjectRequired && !c.operator
	if !required && subject.IsZero() {
		return record, nil
	}
	if c.client == nil {
		return record, wire.Invalid("subject", "an operator acts for himself and names no subject")
	}
	a := b.decide(c, ask{realm: n.Realm, subject: subject, object: object, control: &control{what, n}}, record)
	if a.refusal != nil {
		return record, b.refuse(record, a.refusal)
	}
	if _, allowed := a.decision.Grant(); !allowed {
		return record, b.refuse(record, b.denial(&a))
	}
	return record, nil
}

// fillControl writes into the request what the daemon knows of the job, as it
// was at its launch: the batch user may have been removed in Vault since, and
// whoever may end the job must still be able to.
func (b *Broker) fillControl(v *view, q ask, request *policy.Request) *wire.Problem {
	realm := v.config.Realms[q.realm]
	request.Action = ""
	err := b.Models[realm.Model].FillControl(request, q.control.what, policy.Job{
		Host:      policy.Host{Agent: realm.Agent, AgentServices: realm.AgentServices},
		BatchUser: policy.BatchUser{Name: q.control.note.RealmName, Platform: q.control.note.Platform},
		Name:      q.control.note.ObjectName,
	})
	if err != nil {
		return invalid(err)
	}
	return nil
}
