package broker

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"batchwarden/ipc/wire"
	"batchwarden/platform/peer"
	"batchwarden/vault/snapshot"
)

// features names what whoami promises beyond the API's version.
var features = []string{
	"attest", "authorize", "dry_run", "events", "explain", "explain.launch", "jobs.capture", "jobs.command_line", "jobs.forget", "jobs.login", "jobs.null",
	"jobs.passed", "jobs.script", "jobs.signal", "jobs.stdin", "limits", "pam", "reload", "report", "retrieve", "retrieve.passed", "suspend", "sync", "verify",
}

// features adds to them what is configured.
func (b *Broker) features() []string {
	if b.Config().SystemdSocket == "" {
		return features
	}
	return append(slices.Clone(features), "systemd.credentials")
}

// Health tells whether this machine can decide and launch, and if not, why.
func (b *Broker) Health() wire.Health {
	h := wire.Health{State: b.state(b.Syncer.Status())}
	bad := func(code, detail string) { h.Reasons = append(h.Reasons, wire.Finding{Code: code, Detail: detail}) }
	if h.State == wire.StateStarting {
		bad("state.starting", "nothing has been synced yet")
	}
	if err := b.Audit.Err(); err != nil {
		bad(wire.AuditUnavailable, err.Error())
	}
	if l := b.Launcher.Status(); !l.Connected {
		bad(wire.LauncherUnavailable, l.Detail)
	}
	if refusal := b.suspended(); refusal != nil {
		bad(refusal.Code, refusal.Detail)
	}
	switch v := b.view.Load(); {
	case len(v.config.Realms) == 0:
		bad(noRealm, "the configuration names no controller of this machine")
	case !b.anyPolicy(v):
		bad(wire.PolicyInvalid, "no realm has a policy that can decide")
	}
	if h.Healthy = len(h.Reasons) == 0; b.Audit.Low() != "" {
		bad(roomLow, b.Audit.Low()) // it can, and soon may not
	}
	return h
}

// Codes of findings: a disk that will not take audit records for long, and a configuration that nothing can be decided by.
const (
	roomLow = "audit.room_low"
	noRealm = "realm.none"
)

func (b *Broker) anyPolicy(v *view) bool {
	for realm := range v.config.Realms {
		if _, refusal := b.policyFor(v, realm); refusal == nil {
			return true
		}
	}
	return false
}

// state is online after a contact with Vault that succeeded, offline while
// what was synced before is served, starting as long as there is nothing.
func (b *Broker) state(s wire.Sync) string {
	switch {
	case s.LastSuccess.IsZero():
		return wire.StateStarting
	case s.OfflineSince.IsZero():
		return wire.StateOnline
	}
	return wire.StateOffline
}

// Status is for operators and clients: the whole picture, no secrets.
func (b *Broker) Status(ctx context.Context, p *peer.Connection) (wire.Status, error) {
	c := b.identify(ctx, p)
	if refusal := c.known(); refusal != nil {
		return wire.Status{}, refusal
	}
	s := b.standing(c.view)
	s.Jobs = b.countJobs(ctx)
	return s, nil
}

// standing is the status without its count of jobs.
func (b *Broker) standing(v *view) wire.Status {
	sync := b.Syncer.Status()
	l := b.Launcher.Status()
	s := wire.Status{
		State: b.state(sync), Machine: v.config.Machine, Version: b.Version, Started: b.started, Sync: sync,
		Policies: b.policies(v), Memory: b.Memory(), LocalVault: b.Local(),
		Launcher: wire.Launcher{Connected: l.Connected, Since: l.Since, Version: l.Version, Containment: l.Containment, Detail: l.Detail},
		Problems: []wire.Finding{},
	}
	if s.Suspension = b.suspension.Load(); s.Suspension != nil {
		s.Problems = append(s.Problems, wire.Finding{Code: wire.MachineSuspended, Detail: s.Suspension.Words()})
	}
	now := b.Clock.Now()
	for _, u := range v.known.Users() {
		s.BatchUsers.Total++
		switch b.stateOf(v, u, now) {
		case stateReady:
			s.BatchUsers.Ready++
		case stateStale:
			s.BatchUsers.Stale++
		case stateRejected:
			s.BatchUsers.Rejected++
			s.Problems = append(s.Problems, wire.Finding{Code: wire.CredentialRejected, Detail: rejected(u), Path: u.ID.String()})
		}
		if strings.HasPrefix(u.ID.Scope, "platforms/") && len(u.Box) > 0 {
			s.BatchUsers.Shared++
		}
	}
	s.Problems = append(s.Problems, b.problems(v, &s)...)
	for _, text := range l.Problems {
		s.Problems = append(s.Problems, wire.Finding{Code: "launcher.problem", Detail: text})
	}
	return s
}

func (b *Broker) countJobs(ctx context.Context) (n wire.JobCount) {
	n.States = map[string]int{}
	jobs, err := b.Launcher.Jobs(ctx, "")
	if err != nil {
		return n // the launcher's own line says that it is away
	}
	for i := range jobs {
		j := jobOf(&jobs[i])
		n.States[j.State]++
		if j.Done() {
			n.Kept++
			continue
		}
		n.Running++
		if n.Oldest.IsZero() || j.Started.Before(n.Oldest) {
			n.Oldest = j.Started
		}
	}
	return n
}

// problems collects what a person should look at.
func (b *Broker) problems(v *view, s *wire.Status) []wire.Finding {
	found := slices.Concat(b.configAmiss(), v.callers.problems)
	if s.Sync.Outcome != "ok" && s.Sync.Outcome != wire.LocalVaultUnwritable { // that one the local vault says itself
		found = append(found, wire.Finding{Code: s.Sync.Outcome, Detail: s.Sync.Detail, Path: s.Sync.Address})
	}
	found = append(found, s.Sync.Faults...)
	for _, conflict := range v.known.Faults() {
		found = append(found, wire.Finding{Code: wire.BatchUserAmbiguous, Detail: conflict})
	}
	for _, p := range s.Policies {
		for _, clash := range v.known.Clashes(p.Realm, p.Model) {
			found = append(found, wire.Finding{Code: wire.BatchUserAmbiguous, Detail: clash, Path: p.Realm})
		}
		if p.State != policyActive {
			found = append(found, wire.Finding{Code: "policy." + p.State, Detail: p.Detail, Path: p.Realm})
		}
	}
	if err := b.Audit.Err(); err != nil {
		found = append(found, wire.Finding{Code: wire.AuditUnavailable, Detail: err.Error(), Path: v.config.Audit.File})
	}
	if low := b.Audit.Low(); low != "" {
		found = append(found, wire.Finding{Code: roomLow, Detail: low, Path: v.config.Audit.File})
	}
	if lost := b.Audit.Lost(); lost > 0 {
		found = append(found, wire.Finding{Code: "audit.copy_lost", Detail: fmt.Sprintf("the system's journal did not take copies of %d records; the audit log has them", lost)})
	}
	if b.Monitor != nil && b.Monitor.Unwritten() != "" {
		found = append(found, wire.Finding{Code: "metrics.unwritable", Detail: b.Monitor.Unwritten(), Path: v.config.Metrics.Textfile})
	}
	if !s.Launcher.Connected {
		found = append(found, wire.Finding{Code: wire.LauncherUnavailable, Detail: s.Launcher.Detail, Path: v.config.Launcher.Socket})
	}
	if s.Memory.Degraded != "" {
		found = append(found, wire.Finding{Code: "memory.degraded", Detail: s.Memory.Degraded})
	}
	if s.Memory.Dumpable {
		found = append(found, wire.Finding{Code: "memory.dumpable", Detail: "other processes of the daemon's user can read its memory"})
	}
	return append(found, b.atHome(&s.LocalVault)...)
}

// clockSlack is how far the wall clock may be behind before it is a problem.
const clockSlack = time.Minute

// atHome is what is wrong with the local vault and the clock.
func (b *Broker) atHome(v *wire.LocalVault) (found []wire.Finding) {
	if v.Error != "" || v.Quarantined > 0 {
		found = append(found, wire.Finding{Code: "local_vault.damaged", Detail: fmt.Sprintf("%d files set aside; %s", v.Quarantined, v.Error)})
	}
	for _, p := range []struct{ code, detail string }{
		{"local_vault.foreign", v.Foreign}, {"local_vault.went_back", v.WentBack}, {wire.LocalVaultUnwritable, v.Unwritable},
	} {
		if p.detail != "" {
			found = append(found, wire.Finding{Code: p.code, Detail: p.detail})
		}
	}
	if behind := b.Clock.Behind(); behind > clockSlack {
		found = append(found, wire.Finding{Code: "clock.behind", Detail: fmt.Sprintf(
			"the clock of this machine is %s behind the latest time that it has shown; ages and expiries go on from that", behind.Round(time.Second))})
	}
	return found
}

// States of a policy, and of a batch user.
const (
	policyActive  = "active"
	policyMissing = "missing"
	stateReady    = "ready"
	stateStale    = "stale"
	stateRejected = "rejected"
	stateTwofold  = "ambiguous"
)

// rejected says of a batch user that callers reported as rejected what is the
// matter.
func rejected(u *snapshot.User) string {
	return fmt.Sprintf("version %d of batch user %q was reported as rejected at %s, and Vault has no newer one; it is not handed out until there is, somebody reports it accepted, or an operator syncs",
		u.SecretVersion(), u.Name, u.Rejected.UTC().Format(time.RFC3339))
}

func (b *Broker) policies(v *view) []wire.Policy {
	list := []wire.Policy{}
	for _, realm := range slices.Sorted(maps.Keys(v.config.Realms)) {
		w := wire.Policy{Realm: realm, Model: v.config.Realms[realm].Model, State: policyActive}
		if p := v.policies[realm]; p != nil {
			w.Version, w.Scope, w.AgeSeconds = p.held.Version, p.held.ID.Scope, b.age(p.held.Confirmed)
			w.Detail = p.held.Fault
		}
		if _, refusal := b.policyFor(v, realm); refusal != nil {
			w.Detail = refusal.Detail
			switch p := v.policies[realm]; {
			case p == nil:
				w.State = policyMissing
			case p.engine == nil:
				w.State, w.Detail = "refused", p.fault
			default:
				w.State = stateStale
			}
		}
		list = append(list, w)
	}
	return list
}

func (b *Broker) age(confirmed time.Time) int64 { return int64(b.Clock.Now().Sub(confirmed).Seconds()) }

func (b *Broker) describe(v *view, u *snapshot.User) wire.BatchUser {
	e := u.BatchUser
	return wire.BatchUser{
		Name: u.Name, Username: e.Username, Domain: e.Domain, Group: e.Group, Platform: e.Platform, Scope: u.ID.Scope, Names: e.Names.Map(),
		Kind: e.Kind, Version: u.SecretVersion(), AgeSeconds: b.age(u.Confirmed), State: b.stateOf(v, u, b.Clock.Now()), Launch: e.Launch, Retrieve: e.Retrieve,
		Expires: e.Expires, Rotates: u.Rotates, Fault: u.Fault,
	}
}

// BatchUsers lists what the caller may see: a client its own, an operator all.
func (b *Broker) BatchUsers(ctx context.Context, p *peer.Connection) (wire.BatchUsers, error) {
	c := b.identify(ctx, p)
	if refusal := c.known(); refusal != nil {
		return wire.BatchUsers{}, refusal
	}
	list := wire.BatchUsers{BatchUsers: []wire.BatchUser{}}
	for _, u := range c.view.known.Users() {
		if c.sees(u) {
			list.BatchUsers = append(list.BatchUsers, b.describe(c.view, u))
		}
	}
	return list, nil
}

// BatchUser describes one; one that the caller may not see does not exist.
func (b *Broker) BatchUser(ctx context.Context, p *peer.Connection, name string) (wire.BatchUser, error) {
	c := b.identify(ctx, p)
	if refusal := c.known(); refusal != nil {
		return wire.BatchUser{}, refusal
	}
	if u := c.view.own(name); u != nil && c.sees(u) {
		return b.describe(c.view, u), nil
	}
	return wire.BatchUser{}, wire.NewProblem(wire.BatchUserUnknown, fmt.Sprintf("batch user %q is not known on this machine", name))
}
