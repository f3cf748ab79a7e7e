package broker

import (
	"context"
	"encoding/json"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/config"
	"batchwarden/ipc/wire"
	"batchwarden/platform/peer"
)

// Authorize answers a question and does nothing. A client learns yes or no
// and a code; operators, and clients that may explain, learn why when they ask
// for it. An operator may ask about any subject, but only to have it explained:
// an answer that programs act on goes to clients.
func (b *Broker) Authorize(ctx context.Context, p *peer.Connection, body *wire.Authorize, explain bool) (wire.Decision, error) {
	c := b.identify(ctx, p)
	record := b.record(audit.Authorize, &c, body.Realm, body.Subject, body.BatchUser)
	operator := explain && c.operator
	if refusal := mayAsk(&c, explain, operator); refusal != nil {
		return wire.Decision{}, b.refuse(record, refusal)
	}
	a := b.decide(&c, ask{
		realm: body.Realm, subject: body.Subject, action: body.Action, object: body.Object, batchUser: body.BatchUser,
		use: toAsk, anyone: operator, explain: explain,
	}, record)
	if a.refusal != nil {
		return wire.Decision{}, b.refuse(record, a.refusal)
	}
	if a.decision.Code == wire.RequestInvalid {
		return wire.Decision{}, b.refuse(record, b.denial(&a))
	}

	d := wire.Decision{Allowed: a.decision.Allowed, Code: a.decision.Code, Withheld: a.decision.Withheld, DecisionID: record.DecisionID}
	record.Code = d.Code
	if d.Allowed {
		record.Verdict = audit.Allow
	}
	if explain {
		d.Rule, d.Reason = a.decision.Rule, a.decision.Reason
		text, err := json.Marshal(a.trace)
		if err != nil {
			b.Log.Error("a trace cannot be written", "err", err)
			return wire.Decision{}, wire.NewProblem(wire.Internal, "")
		}
		d.Trace, d.TraceText = text, a.trace.String()
	}
	if err := b.Audit.Append(record); err != nil {
		b.Log.Error("question refused: its audit record cannot be written", "err", err)
		return wire.Decision{}, wire.NewProblem(wire.AuditUnavailable, "the decision could not be written down, so it is not given")
	}
	return d, nil
}

func mayAsk(c *caller, explain, operator bool) *wire.Problem {
	if operator {
		return nil
	}
	if refusal := c.mayDo(config.MayAuthorize); refusal != nil {
		return refusal
	}
	if explain {
		return c.mayDo(config.MayExplain)
	}
	return nil
}
