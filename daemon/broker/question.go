package broker

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/policy"
	"batchwarden/ipc/wire"
	"batchwarden/vault/snapshot"
)

// use is what the batch user is wanted for.
type use int

const (
	toAsk use = iota // nothing is done; a question by authorize or explain
	toLaunch
	toRetrieve
)

// ask is what a caller wants decided.
type ask struct {
	realm     string
	subject   wire.Subject
	action    string // "": launch
	object    json.RawMessage
	batchUser string
	use       use
	ownName   bool     // batchUser is the batch user's own name, and no realm's name for one
	control   *control // what is wanted with a job that runs already; nil for everything else
	anyone    bool     // an operator has it explained: the client entry's bounds do not apply
	explain   bool
}

// answer is what came of it. The zero value denies.
type answer struct {
	decision policy.Decision
	trace    *policy.Trace
	user     *snapshot.User // the batch user that was meant, when there is one
	refusal  *wire.Problem  // the question could not be put to the policy
}

// granted is an allowing answer after it was written down. Only Launch and
// Retrieve make one, and only from a valid policy.Grant.
type granted struct {
	grant      policy.Grant
	answer     answer
	decisionID string
	job        *audit.Job // what the record says of a launch; nil for a retrieve
}

// decide puts the caller's question to the realm's policy. The record learns
// what was found on the way, so that a refusal can be audited as fully as a
// grant.
func (b *Broker) decide(c *caller, q ask, record *audit.Record) (a answer) {
	if q.anyone {
		if a.refusal = configured(c.view, q.realm); a.refusal != nil {
			return a
		}
	} else if a.refusal = c.mayEnter(q.realm, c.view.config.Realms); a.refusal != nil {
		return a
	}
	request, refusal := parseRequest(q)
	if refusal != nil {
		a.refusal = refusal
		return a
	}
	record.Action = request.Action

	v := c.view
	p, refusal := b.policyFor(v, q.realm)
	if refusal != nil {
		a.refusal = refusal
		return a
	}
	record.PolicyVersion = p.held.Version
	if !q.anyone {
		if a.refusal = c.maySpeakFor(request.Subject, p.engine); a.refusal != nil {
			return a
		}
	}
	switch {
	case q.control != nil:
		if a.refusal = b.fillControl(v, q, &request); a.refusal != nil {
			return a
		}
		record.Action = request.Action
	case request.Action == "launch":
		if a.user, a.refusal = b.fill(c, v, q, &request); a.refusal != nil {
			return a
		}
		record.BatchUser, record.Username, record.CredentialVersion = a.user.Name, a.user.BatchUser.Username, a.user.SecretVersion()
	}
	if q.explain {
		a.decision, a.trace = p.engine.Explain(&request)
	} else {
		a.decision = p.engine.Decide(&request)
	}
	record.Rule, record.Reason, record.Withheld = a.decision.Rule, brief(a.decision.Reason), a.decision.Withheld
	return a
}

// configured refuses realms that this machine does not have.
func configured(v *view, realm string) *wire.Problem {
	if _, exists := v.config.Realms[realm]; exists {
		return nil
	}
	p := wire.NewProblem(wire.RealmUnknown, fmt.Sprintf("realm %q is not configured on this machine", realm))
	p.Field = "realm"
	return p
}

// parseRequest reads the question into the form that the engines judge.
func parseRequest(q ask) (policy.Request, *wire.Problem) {
	if q.subject.User == "" && len(q.subject.Roles) == 0 {
		return policy.Request{}, wire.Invalid("subject", "subject names neither a user nor a role")
	}
	if q.action == "" {
		q.action = "launch"
	}
	request, err := policy.NewRequest(policy.Subject(q.subject), q.action, q.object)
	if err != nil {
		return policy.Request{}, invalid(err)
	}
	return request, nil
}

// fill finds the batch user of a launch and writes into the request what the
// daemon knows better than the caller: the realm's name of the batch user, its
// platform, this machine's agent. Whoever says otherwise is refused, or a
// caller could have one name judged and another one used.
func (b *Broker) fill(c *caller, v *view, q ask, request *policy.Request) (*snapshot.User, *wire.Problem) {
	realm := v.config.Realms[q.realm]
	model := b.Models[realm.Model]
	name := q.batchUser
	if name == "" {
		name = namedIn(&request.Object)
	}
	if name == "" {
		return nil, wire.Invalid("batch_user", "batch_user is missing")
	}
	u, refusal := b.find(c, v, q, realm.Model, name)
	if refusal != nil {
		return nil, refusal
	}
	useRealmName(&request.Object, u)
	host := policy.Host{Agent: realm.Agent, AgentServices: realm.AgentServices}
	err := model.FillLaunch(request, host, policy.BatchUser{
		Name: u.RealmName, Platform: u.BatchUser.Platform, Group: u.BatchUser.Group, Username: u.BatchUser.Username,
		Services: u.ServicesIn(q.realm, realm.Model),
	})
	if err != nil {
		return nil, invalid(err)
	}
	return u, nil
}

// namedIn is the batch user that a launch names in its object: each model has
// one member for it.
func namedIn(o *policy.Object) string { return cmp.Or(o.BatchUser, o.Login, o.Credential.Name) }

// useRealmName puts the realm's name of the batch user in the place of its
// own: a request may use either, and the decision sees one.
func useRealmName(o *policy.Object, u *snapshot.User) {
	for _, name := range []*string{&o.BatchUser, &o.Login, &o.Credential.Name} {
		if *name == u.Name {
			*name = u.RealmName
		}
	}
}

// find looks the batch user up by its own name or the realm's, and says no
// more about those that the caller may not use than that he may not.
func (b *Broker) find(c *caller, v *view, q ask, model, name string) (*snapshot.User, *wire.Problem) {
	u, err := v.known.BatchUser(q.realm, model, name)
	if !q.anyone {
		asked := name
		if err == nil {
			asked = u.Name
		}
		if refusal := c.mayUse(asked); refusal != nil {
			return nil, refusal
		}
	}
	switch {
	case errors.Is(err, snapshot.ErrAmbiguous):
		return nil, wire.NewProblem(wire.BatchUserAmbiguous, err.Error())
	case err != nil || q.ownName && u.Name != name:
		return nil, wire.NewProblem(wire.BatchUserUnknown, fmt.Sprintf("batch user %q is not known in realm %q", name, q.realm))
	case q.use == toAsk:
		return u, nil
	}
	if refusal := b.usable(v, u); refusal != nil {
		return nil, refusal
	}
	return u, permits(v, u, q.use)
}

// permits holds the use against what the batch user's own document allows.
func permits(v *view, u *snapshot.User, want use) *wire.Problem {
	refuse := func(why string) *wire.Problem {
		return wire.NewProblem(wire.BatchUserNotAllowed, fmt.Sprintf("batch user %q %s", u.Name, why))
	}
	switch {
	case want == toLaunch && !u.BatchUser.Launch:
		return refuse("is not for launching (launch is false in Vault)")
	case want == toLaunch && !slices.Contains(v.config.Platforms, u.BatchUser.Platform):
		return refuse(fmt.Sprintf("is for platform %q, which this machine is not", u.BatchUser.Platform))
	case want == toRetrieve && !u.BatchUser.Retrieve:
		return refuse("is not for retrieving (retrieve is false in Vault)")
	case want == toRetrieve && u.BatchUser.Kind == "none":
		return refuse("has no password (kind none)")
	case want == toRetrieve && len(u.Box) == 0:
		return wire.NewProblem(wire.CredentialMissing, fmt.Sprintf("no password of batch user %q has reached this machine", u.Name))
	case want == toRetrieve && !u.Rejected.IsZero():
		return wire.NewProblem(wire.CredentialRejected, rejected(u))
	}
	return nil
}

// invalid is the problem of a request that an engine or its parser refused.
func invalid(err error) *wire.Problem {
	var fault *policy.InvalidError
	if errors.As(err, &fault) {
		return wire.Invalid(fault.Field, strings.TrimPrefix(fault.Error(), "policy: "))
	}
	return wire.Invalid("", err.Error())
}

// denial is what a client learns of a denial: the code, and under which id an
// operator finds the reason. The reason itself would tell an agent that was
// taken over how the policy is built.
func (b *Broker) denial(a *answer) *wire.Problem {
	d := &a.decision
	if d.Code == wire.RequestInvalid {
		return wire.Invalid("", d.Reason)
	}
	p := wire.NewProblem(wire.PolicyDenied, "the policy does not allow it; an operator sees why with: batchwarden explain")
	p.Withheld = d.Withheld
	return p
}

// record begins the audit record of a decision; it denies until somebody
// writes otherwise.
func (b *Broker) record(kind string, c *caller, realm string, s wire.Subject, batchUser string) *audit.Record {
	return &audit.Record{
		Kind: kind, DecisionID: newDecisionID(), Verdict: audit.Deny,
		Client: c.name(), Operator: c.operator && c.client == nil,
		Peer:  peerOf(c),
		Realm: brief(realm), Subject: subjectOf(s), BatchUser: brief(batchUser),
	}
}

func peerOf(c *caller) *audit.Peer {
	p := &c.peer
	return &audit.Peer{PID: p.PID, UID: p.UID, GID: p.GID, User: c.user, Unit: p.Unit, Exe: brief(p.Exe), SHA256: p.SHA256}
}

// maxSubject bounds what a caller can make us write about a subject before
// anybody has judged it.
const maxSubject = 32

func subjectOf(s wire.Subject) *audit.Subject {
	roles := s.Roles
	if len(roles) > maxSubject {
		roles = roles[:maxSubject]
	}
	short := make([]string, len(roles))
	for i, role := range roles {
		short[i] = brief(role)
	}
	return &audit.Subject{User: brief(s.User), Roles: short, By: brief(s.By)}
}

// refuse writes a refusal down and returns it. A refusal stands even when it
// cannot be written. Those that anybody can cause, as often as he likes, are
// counted after the first.
func (b *Broker) refuse(record *audit.Record, refusal *wire.Problem) *wire.Problem {
	record.Verdict, record.Code = audit.Deny, refusal.Code
	if record.Reason == "" {
		record.Reason = brief(refusal.Detail)
	}
	refusal.DecisionID = record.DecisionID
	write := b.Audit.Append
	if refusal.Code == wire.CallerUnknown || refusal.Code == wire.Overloaded {
		write = b.Audit.AppendRefusal
	}
	if err := write(record); err != nil {
		b.Log.Error("audit record of a refusal lost", "kind", record.Kind, "err", err)
	}
	return refusal
}
