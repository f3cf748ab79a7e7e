package broker

import (
	"context"
	"net"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/config"
	"batchwarden/ipc/wire"
	"batchwarden/platform/launch"
	"batchwarden/platform/peer"
)

// Steps of a dry run, in the order of a launch. The launcher adds its own.
const (
	stepCaller    = "caller"     // may the caller launch at all
	stepRequest   = "request"    // is the request well formed
	stepID        = "id"         // is it new
	stepMachine   = "machine"    // is anything started here
	stepRealm     = "realm"      // may the caller enter the realm
	stepDocument  = "document"   // has the realm a policy that can decide
	stepSubject   = "subject"    // may the caller speak for the subject
	stepBatchUser = "batch_user" // is the batch user known, covered and usable
	stepPolicy    = "policy"     // what does the policy say
	stepLauncher  = "launcher"   // can the launcher be asked
)

// steps are what a dry run has found so far.
type steps struct{ wire.DryRun }

// note adds a step, and reports whether it is passed.
func (s *steps) note(step string, refusal *wire.Problem) bool {
	c := wire.Check{Step: step, OK: refusal == nil}
	if refusal != nil {
		c.Code, c.Detail = refusal.Code, refusal.Detail
		if s.Code == "" {
			s.Code = refusal.Code
		}
	}
	s.Checks = append(s.Checks, c)
	return c.OK
}

// DryRun goes through every step of a launch short of starting it, also past
// one that is not passed. For clients that may authorize, and operators. A
// step that another one must have passed for it is not there.
func (b *Broker) DryRun(ctx context.Context, p *peer.Connection, conn *net.UnixConn, body *wire.Launch) (wire.DryRun, error) {
	c := b.identifyAfresh(ctx, p)
	record := b.record(audit.DryRun, &c, body.Realm, body.Subject, body.BatchUser)
	anyone := c.operator && c.client == nil
	if refusal := mayAsk(&c, false, anyone); refusal != nil {
		return wire.DryRun{}, b.refuse(record, refusal)
	}
	var s steps
	s.note(stepCaller, c.mayDo(config.MayLaunch))
	planned := c
	if anyone {
		planned.client = &config.Client{Name: "operator"} // whose jobs there are none
	}
	spec, refusal := b.plan(&planned, body)
	sound := s.note(stepRequest, refusal)
	if sound && !anyone {
		b.noteID(ctx, &s, spec)
	}
	s.note(stepMachine, b.suspended())
	a := b.dryDecide(&s, &c, body, anyone, record)
	if sound && a.user != nil {
		spec.Started = c.peer.Started
		runAs(&spec, a.user.BatchUser)
		b.noteLauncher(ctx, &s, conn, spec)
	}
	s.DecisionID, s.Start = record.DecisionID, s.Code == ""
	record.Code = s.Code
	if s.Start {
		record.Verdict = audit.Allow
	}
	if err := b.Audit.Append(record); err != nil {
		b.Log.Error("dry run refused: its audit record cannot be written", "err", err)
		return wire.DryRun{}, wire.NewProblem(wire.AuditUnavailable, "the decision could not be written down, so it is not given")
	}
	return s.DryRun, nil
}

// noteID looks whether the request was made before: then it gets that job.
func (b *Broker) noteID(ctx context.Context, s *steps, spec launch.Spec) {
	job, found, err := b.askedBefore(ctx, spec)
	refusal, _ := err.(*wire.Problem)
	s.note(stepID, refusal)
	if found {
		s.Checks[len(s.Checks)-1].Detail = "the same request was granted before: the answer would be its job, which is " + job.State
	}
}

// dryDecide is decide in its single steps.
func (b *Broker) dryDecide(s *steps, c *caller, body *wire.Launch, anyone bool, record *audit.Record) (a answer) {
	q := ask{
		realm: body.Realm, subject: body.Subject, object: body.Object, batchUser: body.BatchUser, use: toLaunch, anyone: anyone,
	}
	if !s.note(stepRealm, b.entered(c, q)) {
		return a
	}
	request, refusal := parseRequest(q)
	if refusal != nil {
		s.note(stepPolicy, refusal)
		return a
	}
	v := b.view.Load()
	inForce, refusal := b.policyFor(v, q.realm)
	documented := s.note(stepDocument, refusal)
	spoken := anyone
	if documented && !anyone {
		spoken = s.note(stepSubject, c.maySpeakFor(request.Subject, inForce.engine))
	}
	u, refusal := b.find(c, v, q, b.Config.Realms[q.realm].Model, body.BatchUser)
	if !s.note(stepBatchUser, refusal) || !documented || !spoken {
		if refusal == nil {
			a.user = u // the launcher can still be asked
		}
		return a
	}
	a = b.decide(c, q, record)
	refusal = a.refusal
	if _, allowed := a.decision.Grant(); refusal == nil && !allowed {
		refusal = b.denial(&a)
		if anyone || c.operator || c.client.Allows(config.MayExplain) {
			refusal.Detail = a.decision.Reason
		}
	}
	s.note(stepPolicy, refusal)
	a.user = u
	return a
}

// entered is why the realm cannot be entered, or nil.
func (b *Broker) entered(c *caller, q ask) *wire.Problem {
	if q.anyone {
		return b.configured(q.realm)
	}
	return c.mayEnter(q.realm, b.Config.Realms)
}

// noteLauncher asks the launcher, which has the host owner's limits.
func (b *Broker) noteLauncher(ctx context.Context, s *steps, conn *net.UnixConn, spec launch.Spec) {
	checks, err := b.Launcher.Check(ctx, conn, spec, nil)
	if err != nil {
		s.note(stepLauncher, b.problemOf(err))
		return
	}
	for _, check := range checks {
		var refusal *wire.Problem
		if check.Code != "" {
			refusal = &wire.Problem{Code: check.Code, Detail: check.Reason} // a failed job's code may be no problem's
		}
		s.note(check.Step, refusal)
	}
}
