package broker

import (
	"context"
	"errors"
	"net"
	"os"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/config"
	"batchwarden/ipc/wire"
	"batchwarden/platform/launch"
	"batchwarden/platform/peer"
)

// Launch is the story of a job, in the order that nothing may change: who is
// asking, may they ask, what do they want run, was it asked before, what does
// the policy say, write that down, and only then start it.
//
// Once Launch returns a job, the launcher has journalled it, and it runs or
// has failed to start. Stdio are the descriptors that the request came with,
// three where it says so and none otherwise; they stay the caller's to close.
// Again means that the same request had been granted
// earlier and nothing new was started. Every error is a *wire.Problem, and
// nothing was started.
func (b *Broker) Launch(ctx context.Context, p *peer.Connection, conn *net.UnixConn, body *wire.Launch, stdio []*os.File) (job wire.Job, again bool, err error) {
	lap := b.laps()
	c := b.identifyAfresh(ctx, p)
	lap(StepCaller)
	record := b.record(audit.Launch, &c, body.Realm, body.Subject, body.BatchUser)
	if refusal := c.mayDo(config.MayLaunch); refusal != nil {
		return wire.Job{}, false, b.refuse(record, refusal)
	}
	spec, refusal := b.plan(&c, body)
	if refusal != nil {
		return wire.Job{}, false, refusal // malformed: no decision was made, and no id was used
	}
	if job, found, err := b.askedBefore(ctx, spec); found || err != nil {
		return job, found, err
	}
	if refusal := b.suspended(); refusal != nil {
		return wire.Job{}, false, b.refuse(record, refusal)
	}
	spec.Started = c.peer.Started // the same process, for the launcher

	words := wordsOf(body)
	record.Job = &audit.Job{ID: spec.ID, CommandSHA256: argvSum(words), ScriptSHA256: scriptSum(body.Script), EnvSHA256: envSum(spec.Env)}
	if c.view.config.Audit.Argv {
		record.Job.Tell(words, spec.Env)
	}
	lap(StepPlan)
	a := b.decide(&c, ask{realm: body.Realm, subject: body.Subject, object: body.Object, batchUser: body.BatchUser, use: toLaunch}, record)
	lap(StepDecide)
	if a.refusal != nil {
		return wire.Job{}, false, b.refuse(record, a.refusal)
	}
	grant, allowed := a.decision.Grant()
	if !allowed {
		return wire.Job{}, false, b.refuse(record, b.denial(&a))
	}

	record.Verdict = audit.Allow
	if err := b.Audit.Append(record); err != nil {
		b.Log.Error("launch refused: its audit record cannot be written", "err", err)
		return wire.Job{}, false, wire.NewProblem(wire.AuditUnavailable, "the decision could not be written down, so nothing was started")
	}
	lap(StepAudit)
	defer lap(StepStart)
	return b.start(ctx, granted{grant: grant, answer: a, decisionID: record.DecisionID, job: record.Job}, conn, spec, body, stdio)
}

// start hands the granted job to the launcher, which checks the host's own
// limits and the requester for itself before it believes us.
func (b *Broker) start(ctx context.Context, g granted, conn *net.UnixConn, spec launch.Spec, body *wire.Launch, stdio []*os.File) (wire.Job, bool, error) {
	if !g.grant.Valid() {
		return wire.Job{}, false, wire.NewProblem(wire.Internal, "")
	}
	u := g.answer.user
	runAs(&spec, u.BatchUser)
	spec.Note = note{
		Realm: body.Realm, Subject: body.Subject, BatchUser: u.Name, Labels: body.Labels,
		RealmName: u.RealmName, Platform: u.BatchUser.Platform, ObjectName: g.grant.Request().Object.Name,
		CredentialVersion: u.SecretVersion(), DecisionID: g.decisionID,
		CommandSHA256: g.job.CommandSHA256, ScriptSHA256: g.job.ScriptSHA256, Withheld: g.answer.decision.Withheld,
	}.marshal()

	started, again, err := b.Launcher.Start(ctx, conn, spec, stdio...)
	if err != nil {
		problem := b.problemOf(err)
		problem.DecisionID = g.decisionID
		b.note(&audit.Record{
			Kind: audit.NotStarted, DecisionID: g.decisionID, Verdict: audit.Deny, Code: problem.Code, Reason: brief(problem.Detail),
			Client: spec.Owner, Realm: body.Realm, BatchUser: u.Name, Username: spec.Account, Job: &audit.Job{ID: spec.ID},
		})
		return wire.Job{}, false, problem
	}
	if !again {
		b.events.jobStarted(&started)
	}
	return jobOf(&started), again, nil
}

// askedBefore finds the job that an identical request has been granted
// already, so that an agent which lost our answer can simply ask again. A
// different request under the same id is refused.
func (b *Broker) askedBefore(ctx context.Context, spec launch.Spec) (wire.Job, bool, error) {
	if spec.ID == "" {
		return wire.Job{}, false, nil
	}
	job, err := b.Launcher.Job(ctx, spec.Owner, spec.ID, 0)
	var refused *launch.Refused
	switch {
	case errors.As(err, &refused) && refused.Code == wire.JobUnknown:
		return wire.Job{}, false, nil
	case err != nil:
		return wire.Job{}, false, b.problemOf(err)
	case job.Hash != spec.Hash:
		return wire.Job{}, false, wire.NewProblem(wire.IDConflict, "the id was used for a job with another body")
	}
	return jobOf(&job), true, nil
}
