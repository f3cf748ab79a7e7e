package broker

import (
	"context"
	"fmt"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/config"
	"batchwarden/ipc/wire"
	"batchwarden/platform/peer"
	"batchwarden/vault/snapshot"
)

// Sync brings this machine up to date and returns when the outcome is in force.
func (b *Broker) Sync(ctx context.Context, p *peer.Connection) (wire.Sync, error) {
	c := b.identify(ctx, p)
	if refusal := c.isOperator(); refusal != nil {
		return wire.Sync{}, refusal
	}
	return b.Syncer.Sync(ctx)
}

// Report takes from a client that may retrieve a batch user's password how that
// did where it was used, and returns when what follows is in force. It is
// written down either way: it can keep a password from everybody.
func (b *Broker) Report(ctx context.Context, p *peer.Connection, name string, body *wire.Report) (wire.Reported, error) {
	c := b.identify(ctx, p)
	record := &audit.Record{
		Kind: audit.Report, DecisionID: newDecisionID(), Verdict: audit.Deny, Client: c.name(),
		Peer:      peerOf(&c),
		BatchUser: brief(name), CredentialVersion: body.Version,
	}
	u, refusal := b.reportable(&c, name, body)
	if refusal != nil {
		return wire.Reported{}, b.refuse(record, refusal)
	}
	record.Verdict, record.Code, record.Username = audit.Allow, body.Outcome, u.BatchUser.Username
	if err := b.Audit.Append(record); err != nil {
		b.Log.Error("report refused: its audit record cannot be written", "err", err)
		return wire.Reported{}, wire.NewProblem(wire.AuditUnavailable, "the report could not be written down, so nothing was done")
	}
	answer, known, err := b.Syncer.Report(ctx, u.ID, body.Version, body.Outcome == wire.Accepted)
	switch {
	case err != nil:
		return wire.Reported{}, err
	case !known:
		return wire.Reported{}, wire.NewProblem(wire.BatchUserUnknown, fmt.Sprintf("batch user %q was removed", name))
	}
	return answer, nil
}

// reportable is the batch user that the caller may report on.
func (b *Broker) reportable(c *caller, name string, body *wire.Report) (*snapshot.User, *wire.Problem) {
	if refusal := c.mayDo(config.MayRetrieve); refusal != nil {
		return nil, refusal
	}
	u := called(c, name)
	own := name
	if u != nil {
		own = u.Name
	}
	if refusal := c.mayUse(own); refusal != nil {
		return nil, refusal
	}
	switch {
	case body.Outcome != wire.Rejected && body.Outcome != wire.Accepted:
		return nil, wire.Invalid("outcome", "outcome must be rejected or accepted")
	case body.Version < 1:
		return nil, wire.Invalid("version", "version must be the one that came with the password")
	case u == nil:
		return nil, wire.NewProblem(wire.BatchUserUnknown, fmt.Sprintf("batch user %q is not known on this machine", name))
	case u.Ambiguous:
		return nil, wire.NewProblem(wire.BatchUserAmbiguous, u.Fault)
	case !u.BatchUser.Retrieve || u.BatchUser.Kind == "none":
		return nil, wire.NewProblem(wire.BatchUserNotAllowed, fmt.Sprintf("batch user %q has no password that is handed out", name))
	}
	return u, nil
}

// called finds the batch user that the caller could have retrieved by this
// name, its own or that of one of the caller's realms.
func called(c *caller, name string) *snapshot.User {
	if u := c.view.own(name); u != nil {
		return u
	}
	for _, realm := range c.client.Realms {
		if u, err := c.view.known.BatchUser(realm, c.view.config.Realms[realm].Model, name); err == nil {
			return u
		}
	}
	return nil
}

// own finds a batch user by its own name; nil when there is none.
func (v *view) own(name string) *snapshot.User {
	for _, u := range v.known.Users() {
		if u.Name == name {
			return u
		}
	}
	return nil
}
