package broker

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/config"
	"batchwarden/daemon/policy"
	"batchwarden/ipc/wire"
	"batchwarden/vault/snapshot"
)

// view is everything a decision looks at, of one moment. A request loads it
// once, so that it never sees half of a change.
type view struct {
	config   *config.Config
	callers  *callers
	known    *snapshot.Snapshot
	policies map[string]*inForce // by realm
}

// inForce is the policy document that decides in one realm.
type inForce struct {
	engine policy.Engine // nil when there is none that can decide
	held   *snapshot.Held
	fault  string // why the engine is missing
}

// CheckPolicy tells whether a policy document could come into force here. It
// is asked before a document replaces the last good one in the local vault,
// so that a faulty one never does, not even across a restart.
func (b *Broker) CheckPolicy(e *snapshot.Entry) error {
	_, err := b.parse(b.Config(), e)
	if err != nil {
		b.events.add(wire.Event{Type: wire.PolicyRefused, Realm: e.ID.Name, Version: e.Version, Detail: brief(err.Error())})
	}
	return err
}

func (b *Broker) parse(c *config.Config, e *snapshot.Entry) (policy.Engine, error) {
	realm, configured := c.Realms[e.ID.Name]
	if !configured {
		return nil, nil // of no use here, and no harm: it is kept, not parsed
	}
	if e.Policy.Model != realm.Model {
		return nil, fmt.Errorf("the document's model is %q, the configuration says %q", e.Policy.Model, realm.Model)
	}
	model, known := b.Models[realm.Model]
	if !known {
		return nil, fmt.Errorf("model %q is not supported by this version", realm.Model)
	}
	return model.Parse(e.ID.String(), e.Policy.Document)
}

// Activate puts a new snapshot into force, and its policies with it. Documents
// that did not change keep their engines.
func (b *Broker) Activate(known *snapshot.Snapshot) {
	b.changing.Lock()
	defer b.changing.Unlock()
	old := b.view.Load()
	b.enact(old, &view{config: old.config, callers: old.callers, known: known})
}

// enact puts what follows the old view into force. It needs b.changing.
func (b *Broker) enact(old, next *view) {
	known := next.known
	next.policies = map[string]*inForce{}
	for realm, r := range next.config.Realms {
		held, ok := known.Policy(realm)
		if !ok {
			continue
		}
		if was := old.policies[realm]; was != nil && was.held.ID == held.ID && was.held.HeadSum == held.HeadSum && old.config.Realms[realm].Model == r.Model {
			next.policies[realm] = &inForce{engine: was.engine, held: held, fault: was.fault}
			continue
		}
		next.policies[realm] = b.activate(next.config, realm, held)
	}
	b.view.Store(next)
}

func (b *Broker) activate(c *config.Config, realm string, held *snapshot.Held) *inForce {
	p := &inForce{held: held}
	record := audit.Record{Kind: audit.PolicyState, Realm: realm, PolicyVersion: held.Version, Verdict: audit.Allow}
	engine, err := b.parse(c, &held.Entry)
	if err != nil {
		p.fault = err.Error()
		record.Verdict, record.Code, record.Reason = audit.Deny, wire.PolicyInvalid, brief(p.fault)
		b.events.add(wire.Event{Type: wire.PolicyRefused, Realm: realm, Version: held.Version, Detail: record.Reason})
	} else {
		p.engine = engine
		b.events.add(wire.Event{Type: wire.PolicyActivated, Realm: realm, Version: held.Version})
	}
	b.note(&record)
	return p
}

// note audits what has happened already; there is nothing left to refuse when
// the record cannot be written, but health says so.
func (b *Broker) note(r *audit.Record) {
	if err := b.Audit.Append(r); err != nil {
		b.Log.Error("audit record lost", "kind", r.Kind, "err", err)
	}
}

// brief bounds a text for people in an audit record.
func brief(text string) string {
	const most = 1024
	if len(text) <= most {
		return text
	}
	return text[:most] + " …"
}

// policyFor is the policy that decides in the realm now, or why none can.
func (b *Broker) policyFor(v *view, realm string) (*inForce, *wire.Problem) {
	p := v.policies[realm]
	if p == nil {
		return nil, wire.NewProblem(wire.PolicyInvalid, fmt.Sprintf("no policy document for realm %q has reached this machine", realm))
	}
	if p.engine == nil {
		return nil, wire.NewProblem(wire.PolicyInvalid, fmt.Sprintf("the policy document of realm %q is faulty", realm))
	}
	if age := b.Clock.Now().Sub(p.held.Confirmed); age > v.config.Sync.PolicyMaxStale {
		return nil, wire.NewProblem(wire.PolicyStale, fmt.Sprintf("Vault last confirmed the policy of realm %q %s ago, at most %s is allowed",
			realm, age.Round(time.Second), v.config.Sync.PolicyMaxStale))
	}
	return p, nil
}

// stateOf is how a batch user stands at a time, in the words of the API.
func (b *Broker) stateOf(v *view, u *snapshot.User, now time.Time) string {
	switch refusal := usableAt(v, u, now); {
	case u.Ambiguous:
		return stateTwofold
	case refusal != nil:
		return strings.TrimPrefix(refusal.Code, "credential.")
	case !u.Rejected.IsZero():
		return stateRejected
	}
	return stateReady
}

// usable tells whether the batch user's record may still be used.
func (b *Broker) usable(v *view, u *snapshot.User) *wire.Problem {
	return usableAt(v, u, b.Clock.Now())
}

func usableAt(v *view, u *snapshot.User, now time.Time) *wire.Problem {
	if !u.BatchUser.Expires.IsZero() && now.After(u.BatchUser.Expires) {
		return wire.NewProblem(wire.CredentialExpired, fmt.Sprintf("batch user %q expired at %s", u.Name, u.BatchUser.Expires.UTC().Format(time.RFC3339)))
	}
	if age, most := now.Sub(u.Confirmed), v.maxStale(u); age > most {
		return wire.NewProblem(wire.CredentialStale, fmt.Sprintf("Vault last confirmed batch user %q %s ago, at most %s is allowed",
			u.Name, age.Round(time.Second), most))
	}
	return nil
}

// maxStale is how long a record is good without Vault. A batch user's own
// bound can only shorten the machine's.
func (v *view) maxStale(u *snapshot.User) time.Duration {
	if own := u.BatchUser.MaxStale; own > 0 {
		return min(own, v.config.Sync.MaxStale)
	}
	return v.config.Sync.MaxStale
}

// Synced writes down what a sync has changed.
func (b *Broker) Synced(put, removed []string) {
	b.note(&audit.Record{Kind: audit.Synced, Changed: few(put), Removed: few(removed)})
	known := b.view.Load().known
	b.events.synced(put, known, false)
	b.events.synced(removed, known, true)
}

// Noticed writes down what became of the local vault.
func (b *Broker) Noticed(code, detail string) {
	b.note(&audit.Record{Kind: audit.LocalVault, Code: code, Reason: brief(detail)})
}

// few bounds a list of paths in an audit record, and says that it did.
func few(paths []string) []string {
	const most = 200
	if len(paths) <= most {
		return paths
	}
	return append(slices.Clone(paths[:most]), fmt.Sprintf("… and %d more", len(paths)-most))
}
