package broker

import (
	"context"
	"errors"
	"fmt"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/config"
	"batchwarden/ipc/wire"
	"batchwarden/platform/lockmem"
	"batchwarden/platform/peer"
	"batchwarden/vault/snapshot"
)

// Deliver puts a password, which it borrows for the length of the call, on the
// caller's connection.
type Deliver = func(about wire.Secret, password *lockmem.Buffer) error

// Retrieve decides like a launch, writes the grant down, and then lends the
// password to deliver, which puts it on the caller's connection straight from
// the locked memory. Whether that succeeded is written down too. An error
// before deliver was called is a *wire.Problem; an error of deliver is
// returned as it is, because something may have been sent.
func (b *Broker) Retrieve(ctx context.Context, p *peer.Connection, name string, body *wire.Retrieve, deliver Deliver) error {
	c := b.identify(ctx, p)
	record := b.record(audit.Retrieve, &c, body.Realm, body.Subject, name)
	if refusal := c.mayDo(config.MayRetrieve); refusal != nil {
		return b.refuse(record, refusal)
	}
	return b.release(ctx, &c, ask{realm: body.Realm, subject: body.Subject, object: body.Object, batchUser: name, use: toRetrieve}, record, deliver)
}

// release decides and, when that allows it, writes the grant down and hands the
// password out. Everybody who gets one gets it from here.
func (b *Broker) release(ctx context.Context, c *caller, q ask, record *audit.Record, deliver Deliver) error {
	a := b.decide(c, q, record)
	if a.refusal != nil {
		return b.refuse(record, a.refusal)
	}
	grant, allowed := a.decision.Grant()
	if !allowed {
		return b.refuse(record, b.denial(&a))
	}
	record.Verdict = audit.Allow
	if err := b.Audit.Append(record); err != nil {
		b.Log.Error("retrieve refused: its audit record cannot be written", "err", err)
		return wire.NewProblem(wire.AuditUnavailable, "the decision could not be written down, so nothing was handed out")
	}
	return b.handOut(ctx, granted{grant: grant, answer: a, decisionID: record.DecisionID}, c, deliver)
}

// handOut opens the granted password into a slot and lends it to deliver.
func (b *Broker) handOut(ctx context.Context, g granted, c *caller, deliver Deliver) error {
	if !g.grant.Valid() {
		return wire.NewProblem(wire.Internal, "")
	}
	u := g.answer.user
	var sent error
	opened := b.Arena.Borrow(ctx, func(slot *lockmem.Buffer) error {
		if err := b.Secrets.OpenSecret(u.Held, slot); err != nil {
			return err
		}
		sent = deliver(b.about(u), slot)
		return nil
	})

	outcome := &audit.Record{
		Kind: audit.Delivered, DecisionID: g.decisionID, Verdict: audit.Allow, Client: c.name(),
		BatchUser: u.Name, CredentialVersion: u.SecretVersion(), Code: "delivered",
	}
	switch {
	case opened != nil:
		b.Log.Error("password not handed out", "batch_user", u.Name, "err", opened)
		outcome.Verdict, outcome.Code, outcome.Reason = audit.Deny, wire.CredentialMissing, brief(opened.Error())
	case sent != nil:
		outcome.Code, outcome.Reason = "failed", brief(sent.Error())
	}
	b.note(outcome)
	switch {
	case errors.Is(opened, lockmem.ErrBusy):
		return wire.NewProblem(wire.Overloaded, "all slots of locked memory are in use")
	case opened != nil:
		return wire.NewProblem(wire.CredentialMissing, fmt.Sprintf("the password of batch user %q cannot be opened; status says more", u.Name))
	}
	return sent
}

// about is what goes with the password of u.
func (b *Broker) about(u *snapshot.User) wire.Secret {
	s := wire.Secret{Username: u.BatchUser.Username, Domain: u.BatchUser.Domain, Version: u.SecretVersion()}
	if !u.Rotates.IsZero() {
		seconds := int64(max(0, u.Rotates.Sub(b.Clock.Now())).Seconds())
		s.RotatesIn = &seconds
	}
	return s
}
