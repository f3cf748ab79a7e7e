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

// dryRun is one that is going on, and what it has found so far.
type dryRun struct {
	wire.DryRun
	body   *wire.Launch
	record *audit.Record
	judged caller  // whose launch it would be
	anyone bool    // an operator's who is no client: the client entry's bounds do not apply
	as     *uint32 // the uid of a client that is supposed, for the launcher; nil: the caller's own
	hidden bool    // the uid of the client that is supposed is not known
}

// note adds a step, and reports whether it is passed. Where it is explained, found says what a step that is passed has
// found.
func (d *dryRun) note(step string, refusal *wire.Problem, found string) bool {
	c := wire.Check{Step: step, OK: refusal == nil}
	switch {
	case refusal != nil:
		c.Code, c.Detail = refusal.Code, refusal.Detail
		if d.Code == "" {
			d.Code = refusal.Code
		}
	case d.Explained != nil:
		c.Detail = found
	}
	d.Checks = append(d.Checks, c)
	return c.OK
}

// DryRun goes through every step of a launch short of starting it, also past
// one that is not passed. For clients that may authorize, and operators. A
// step that another one must have passed for it is not there.
//
// With explain it says what each step found and what the answer rests on: for
// operators, and clients that may explain. With client, as if that client had
// asked.
func (b *Broker) DryRun(ctx context.Context, p *peer.Connection, conn *net.UnixConn, body *wire.Launch, explain bool, client string) (wire.DryRun, error) {
	c := b.identifyBy(ctx, p, peer.Want{Program: explain}, true) // who asked is part of the explanation
	record := b.record(audit.DryRun, &c, body.Realm, body.Subject, body.BatchUser)
	d := &dryRun{body: body, record: record, judged: c, anyone: c.operator && c.client == nil}
	if refusal := mayAsk(&c, explain, d.anyone || explain && c.operator); refusal != nil {
		return wire.DryRun{}, b.refuse(record, refusal)
	}
	unfit := c.mayDo(config.MayLaunch)
	if explain {
		var refusal *wire.Problem
		if unfit, refusal = b.suppose(d, &c, client); refusal != nil {
			return wire.DryRun{}, b.refuse(record, refusal)
		}
		b.explainCaller(d, &c)
	}
	d.note(stepCaller, unfit, d.whoAsks())
	planned := d.judged
	if d.anyone {
		planned.client = &config.Client{Name: "operator"} // whose jobs there are none
	}
	spec, refusal := b.plan(&planned, body)
	sound := d.note(stepRequest, refusal, "well formed")
	if sound && !d.anyone && (c.operator || d.record.ForClient == "") { // another client's jobs are not a client's to know
		b.noteID(ctx, d, spec)
	}
	d.note(stepMachine, b.suspended(), "jobs are being started on machine "+c.view.config.Machine)
	a := b.dryDecide(d)
	if sound && a.user != nil {
		spec.Started = c.peer.Started
		runAs(&spec, a.user.BatchUser)
		b.noteLauncher(ctx, d, conn, spec)
	}
	d.DecisionID, d.Start = record.DecisionID, d.Code == ""
	record.Code = d.Code
	if d.Start {
		record.Verdict = audit.Allow
	}
	if err := b.Audit.Append(record); err != nil {
		b.Log.Error("dry run refused: its audit record cannot be written", "err", err)
		return wire.DryRun{}, wire.NewProblem(wire.AuditUnavailable, "the decision could not be written down, so it is not given")
	}
	return d.DryRun, nil
}

// noteID looks whether the request was made before: then it gets that job.
func (b *Broker) noteID(ctx context.Context, d *dryRun, spec launch.Spec) {
	job, found, err := b.askedBefore(ctx, spec)
	refusal, _ := err.(*wire.Problem)
	d.note(stepID, refusal, "not used before")
	if found {
		d.Checks[len(d.Checks)-1].Detail = "the same request was granted before: the answer would be its job, which is " + job.State
	}
}

// dryDecide is decide in its single steps.
func (b *Broker) dryDecide(d *dryRun) (a answer) {
	c, body := &d.judged, d.body
	q := ask{
		realm: body.Realm, subject: body.Subject, object: body.Object, batchUser: body.BatchUser, use: toLaunch, anyone: d.anyone,
		explain: d.Explained != nil,
	}
	if !d.note(stepRealm, entered(c, q), d.realmWords()) {
		return a
	}
	request, refusal := parseRequest(q)
	if refusal != nil {
		d.note(stepPolicy, refusal, "")
		return a
	}
	v := c.view
	inForce, refusal := b.policyFor(v, q.realm)
	documented := d.note(stepDocument, refusal, b.documentWords(d, v))
	spoken := d.anyone
	if documented && !d.anyone {
		spoken = d.note(stepSubject, c.maySpeakFor(request.Subject, inForce.engine), d.subjectWords())
	}
	u, refusal := b.find(c, v, q, v.config.Realms[q.realm].Model, body.BatchUser)
	if !d.note(stepBatchUser, refusal, b.userWords(d, v)) || !documented || !spoken {
		if refusal == nil {
			a.user = u // the launcher can still be asked
		}
		return a
	}
	a = b.decide(c, q, d.record)
	refusal = a.refusal
	if _, allowed := a.decision.Grant(); refusal == nil && !allowed {
		refusal = b.denial(&a)
		if d.anyone || d.Explained != nil || c.operator || c.client.Allows(config.MayExplain) {
			refusal.Detail = a.decision.Reason
		}
	}
	d.note(stepPolicy, refusal, a.decision.Rule+": "+a.decision.Reason)
	b.explainDecision(d, &a)
	a.user = u
	return a
}

// entered is why the realm cannot be entered, or nil.
func entered(c *caller, q ask) *wire.Problem {
	if q.anyone {
		return configured(c.view, q.realm)
	}
	return c.mayEnter(q.realm, c.view.config.Realms)
}

// noteLauncher asks the launcher, which has the host owner's limits.
func (b *Broker) noteLauncher(ctx context.Context, d *dryRun, conn *net.UnixConn, spec launch.Spec) {
	if d.hidden {
		d.note(stepLauncher, nil, "not asked about account, limits, directory and command: the client entry does not say which user asks, and limits.yaml decides by that (requesters)")
		d.Checks[len(d.Checks)-1].Unseen = true
		return
	}
	checks, err := b.Launcher.Check(ctx, conn, spec, d.as)
	if err != nil {
		d.note(stepLauncher, b.problemOf(err), "")
		return
	}
	for _, check := range checks {
		var refusal *wire.Problem
		if check.Code != "" {
			refusal = &wire.Problem{Code: check.Code, Detail: check.Reason} // a failed job's code may be no problem's
		}
		d.note(check.Step, refusal, check.Found)
		last := &d.Checks[len(d.Checks)-1]
		if last.Unseen = check.Unseen; check.Unseen {
			last.Detail = check.Found
		}
	}
	if spec.PAM != "" && d.Explained != nil {
		d.Checks = append(d.Checks, wire.Check{Step: "pam", OK: true, Unseen: true,
			Detail: "not asked: whether the PAM service " + spec.PAM + " lets the account in shows when the job starts"})
	}
}
