package broker

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"batchwarden/daemon/config"
	"batchwarden/ipc/wire"
	"batchwarden/vault/snapshot"
)

// suppose finds out whose launch a dry run is explained for: the client's that was named; else the caller's own; else,
// for an operator without an entry, that of the only client that could launch in the realm. unfit is why that client
// could not, or nil. A client other than an operator learns no more by naming another one than it could for itself.
func (b *Broker) suppose(d *dryRun, c *caller, name string) (unfit, refusal *wire.Problem) {
	cs := c.view.callers
	candidates := cs.launching(d.body.Realm)
	switch {
	case name == "" || name == c.name():
		if !d.anyone {
			return c.mayDo(config.MayLaunch), nil
		}
		if len(candidates) != 1 {
			unfit = c.mayDo(config.MayLaunch)
			unfit.Detail += "; name the client that would launch: " + among(candidates)
			return unfit, nil
		}
		name = candidates[0]
	case !c.operator:
		if refusal := b.withinOwn(c, d.body); refusal != nil {
			return nil, refusal
		}
	}
	e := cs.entry(name)
	if e == nil {
		return nil, wire.Invalid("client", fmt.Sprintf("there is no client entry %q; those that may launch in this realm: %s", name, among(candidates)))
	}
	d.record.ForClient, d.anyone = name, false
	d.judged = caller{user: e.client.Match.User, client: e.client, view: c.view}
	d.as, d.hidden = e.uid, e.uid == nil
	switch {
	case e.client.Match.CredentialUnit != "":
		unfit = wire.NewProblem(wire.CallerForbidden, fmt.Sprintf("client entry %q is for a unit's credential, not for connections", name))
	case e.lost != "":
		unfit = wire.NewProblem(wire.CallerUnknown, fmt.Sprintf("client entry %q matches nobody: %s", name, e.lost))
	default:
		unfit = d.judged.mayDo(config.MayLaunch)
	}
	return unfit, nil
}

// launching are the names of the entries that may launch in a realm.
func (cs *callers) launching(realm string) (names []string) {
	for i := range cs.entries {
		if c := cs.entries[i].client; c.Match.CredentialUnit == "" && c.Allows(config.MayLaunch) && c.InRealm(realm) {
			names = append(names, c.Name)
		}
	}
	return names
}

func among(names []string) string {
	if len(names) == 0 {
		return "there is none"
	}
	return strings.Join(names, ", ")
}

// entry is the entry of that name, or nil.
func (cs *callers) entry(name string) *entry {
	i := slices.IndexFunc(cs.entries, func(e entry) bool { return e.client.Name == name })
	if i < 0 {
		return nil
	}
	return &cs.entries[i]
}

// withinOwn refuses what a client could not have explained for itself.
func (b *Broker) withinOwn(c *caller, body *wire.Launch) *wire.Problem {
	if refusal := c.mayEnter(body.Realm, c.view.config.Realms); refusal != nil {
		return refusal
	}
	q := ask{realm: body.Realm, subject: body.Subject, object: body.Object, use: toAsk}
	request, refusal := parseRequest(q)
	if refusal != nil {
		return refusal
	}
	v := c.view
	if p, _ := b.policyFor(v, body.Realm); p != nil {
		if refusal := c.maySpeakFor(request.Subject, p.engine); refusal != nil {
			return refusal
		}
	}
	if _, refusal := b.find(c, v, q, v.config.Realms[body.Realm].Model, body.BatchUser); refusal != nil && refusal.Code == wire.CallerForbidden {
		return refusal
	}
	return nil
}

// explainCaller begins the explanation: who asks, and for whom.
func (b *Broker) explainCaller(d *dryRun, c *caller) {
	x := &wire.Explains{Peer: c.wirePeer(), Operator: c.operator, Supposed: d.record.ForClient != "", Account: d.judged.user, Machine: c.view.config.Machine}
	if files := c.view.config.Files; len(files) > 0 {
		x.Config = files[0]
	}
	if e := d.judged.client; e != nil {
		x.Client, x.Entry = e.Name, fmt.Sprintf("%s:%d", e.File, e.Line)
	}
	d.Explained = x
}

// explainDecision adds what the policy said.
func (b *Broker) explainDecision(d *dryRun, a *answer) {
	if d.Explained == nil || a.trace == nil {
		return
	}
	trace, err := json.Marshal(a.trace)
	if err != nil {
		b.Log.Error("a trace cannot be written", "err", err)
	}
	d.Explained.Decision = &wire.Decision{
		Allowed: a.decision.Allowed, Code: a.decision.Code, Rule: a.decision.Rule, Reason: a.decision.Reason, Withheld: a.decision.Withheld,
		DecisionID: d.record.DecisionID, Trace: trace, TraceText: a.trace.String(),
	}
}

// What follows are the words for steps that are passed, "" where nothing is explained; some of them complete the
// explanation too.

func (d *dryRun) whoAsks() string {
	x := d.Explained
	switch {
	case x == nil:
		return ""
	case x.Supposed:
		return fmt.Sprintf("client %q may launch; whether a process matches its entry, batchwarden whoami run by it shows", x.Client)
	}
	return fmt.Sprintf("client %q may launch", x.Client)
}

func (d *dryRun) realmWords() string {
	realm, configured := d.judged.view.config.Realms[d.body.Realm]
	if d.Explained == nil || !configured {
		return ""
	}
	d.Explained.Model, d.Explained.Agent = realm.Model, realm.Agent
	return fmt.Sprintf("%s, model %s, where this machine is agent %q", d.body.Realm, realm.Model, realm.Agent)
}

func (b *Broker) documentWords(d *dryRun, v *view) string {
	if d.Explained == nil {
		return ""
	}
	for _, p := range b.policies(v) {
		if p.Realm == d.body.Realm {
			d.Explained.Policy = &p
			return fmt.Sprintf("version %d of %s, confirmed by Vault %s ago (at most %s)", p.Version, p.Scope, age(p.AgeSeconds), short(v.config.Sync.PolicyMaxStale))
		}
	}
	return ""
}

func (d *dryRun) subjectWords() string {
	if d.Explained == nil {
		return ""
	}
	return fmt.Sprintf("client %q may speak for %q", d.judged.name(), cmp.Or(d.body.Subject.User, strings.Join(d.body.Subject.Roles, ", ")))
}

// userWords describes the batch user as far as the one whose launch it would be may know it.
func (b *Broker) userWords(d *dryRun, v *view) string {
	u, err := v.known.BatchUser(d.body.Realm, v.config.Realms[d.body.Realm].Model, d.body.BatchUser)
	if d.Explained == nil || err != nil || !d.anyone && d.judged.mayUse(u.Name) != nil {
		return ""
	}
	user := b.describe(v, u)
	d.Explained.BatchUser, d.Explained.RealmName = &user, u.RealmName
	return fmt.Sprintf("%q, which the realm calls %q: account %q; %s, confirmed by Vault %s ago (at most %s)",
		u.Name, u.RealmName, user.Username, credential(u), age(user.AgeSeconds), short(v.maxStale(u)))
}

// credential says which password it would be.
func credential(u *snapshot.User) string {
	switch {
	case u.BatchUser.Kind == "none":
		return "no password (kind none)"
	case len(u.Box) == 0:
		return "no password here, which a launch does not need"
	}
	return fmt.Sprintf("password version %d", u.SecretVersion())
}

func age(seconds int64) string { return short(time.Duration(seconds) * time.Second) }

// short writes 24h where String has 24h0m0s.
func short(d time.Duration) string {
	text := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(text, zero) {
			text = text[:len(text)-2]
		}
	}
	return text
}
