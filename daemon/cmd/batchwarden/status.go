package main

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
)

// What status shows at most of each: it is one screen.
const (
	mostUsers    = 15
	mostProblems = 15
)

// condition is all that status shows.
type condition struct {
	wire.Status
	Health wire.Health `json:"health"`

	users []wire.BatchUser // for people; batch-users has them as JSON
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how the service is; exit code 1 when it cannot serve",
		Args:  cobra.NoArgs,
		RunE: a.ask(func(ctx context.Context, c *client.Client, _ []string) error {
			now, err := within(ctx, glanceTime, func(ctx context.Context) (*condition, error) { return a.look(ctx, c) })
			if err != nil {
				return err
			}
			return a.answer(now, a.statusText(now, a.painter()), now.Health.Healthy)
		}),
	}
}

func (a *app) look(ctx context.Context, c *client.Client) (*condition, error) {
	s, err := c.Status(ctx)
	if err != nil {
		return nil, err
	}
	h, err := c.Health(ctx)
	if err != nil {
		return nil, err
	}
	now := &condition{Status: *s, Health: *h}
	if !a.json {
		if now.users, err = c.BatchUsers(ctx); err != nil {
			return nil, err
		}
	}
	return now, nil
}

// statusText says in plain words first how it is, then what is wrong and what to do about it, then the details.
func (a *app) statusText(s *condition, colours painter) string {
	p := page{painter: colours}
	a.headline(&p, s)
	statusProblems(&p, s)
	p.line("")
	a.statusUsers(&p, s)
	p.line("")
	statusPolicies(&p, s.Policies)
	p.line("")
	p.row("Jobs", a.jobCount(s.Jobs))
	p.row("Last sync", a.lastSync(s.Sync))
	p.row("Memory", memory(s.Memory))
	if s.Memory.Dumpable || s.Memory.Degraded != "" {
		p.tint(1, watch)
	}
	p.row("Local vault", localVault(s.LocalVault))
	p.row("Launcher", a.launcher(s.Launcher))
	if !s.Launcher.Connected {
		p.tint(1, bad)
	}
	p.row("Daemon", strings.TrimSpace(s.Version+" started "+cmp.Or(a.when(s.Started), "at an unknown time")))
	return p.String()
}

// headline is the state in a sentence or two.
func (a *app) headline(p *page, s *condition) {
	vault := cmp.Or(s.Sync.Address, "Vault")
	switch s.State {
	case wire.StateOnline:
		p.line("%s is online: %s answered %s.", s.Machine, vault, cmp.Or(a.when(s.Sync.LastSuccess), "lately"))
		p.tint(0, good)
	case wire.StateOffline:
		text := fmt.Sprintf("%s is offline", s.Machine)
		if since := s.Sync.OfflineSince; !since.IsZero() {
			text += fmt.Sprintf(" since %s (%s)", since.UTC().Format(time.DateTime+" UTC"), span(a.now().Sub(since)))
		}
		p.line("%s: %s.", text, trouble(s.Sync))
		p.tint(0, watch)
		p.line("It serves what Vault last said %s.", cmp.Or(a.when(s.Sync.LastSuccess), "at an unknown time"))
	case wire.StateStarting:
		p.line("%s is starting: nothing was synced yet (%s).", s.Machine, trouble(s.Sync))
		p.tint(0, watch)
	default:
		p.line("%s is %s.", s.Machine, s.State)
	}
	alone := false // nothing else keeps it from serving
	if s.Suspension != nil {
		p.line("It starts no jobs: %s.", s.Suspension.Words())
		p.tint(0, bad)
		alone = len(s.Health.Reasons) == 1
	}
	switch n := len(s.Problems); {
	case alone:
	case !s.Health.Healthy:
		p.line("It cannot serve%s.", because(s.Health.Reasons))
		p.tint(0, bad)
	case n > 0:
		p.line("It can serve, and has %s.", counted(n, "problem"))
		p.tint(0, watch)
	}
}

func because(reasons []wire.Finding) string {
	var codes []string
	for _, r := range reasons {
		codes = append(codes, r.Code)
	}
	if len(codes) == 0 {
		return ""
	}
	return ": " + strings.Join(codes, ", ")
}

// statusProblems lists what is wrong, what keeps the service from serving first, each with what to do next.
func statusProblems(p *page, s *condition) {
	list := slices.Clone(s.Health.Reasons)
	blocking := len(list)
	for _, f := range s.Problems {
		i := slices.IndexFunc(list[:blocking], func(r wire.Finding) bool { return r.Code == f.Code })
		if i < 0 {
			list = append(list, f)
		} else if list[i].Path == "" {
			list[i] = f // the same, and it says more
		}
	}
	if len(list) == 0 {
		return
	}
	p.line("")
	p.line("Problems:")
	p.tint(0, strong)
	shown := list[:min(len(list), mostProblems)]
	for i, f := range shown {
		p.line("  %s", finding(f))
		if p.tint(0, watch); i < blocking && !s.Health.Healthy {
			p.tint(0, bad)
		}
		next := nextAfterFinding(f.Code)
		if i+1 < len(shown) && nextAfterFinding(shown[i+1].Code) == next {
			continue // it is said once, after the last of them
		}
		p.line("    -> %s", next)
	}
	if more := len(list) - mostProblems; more > 0 {
		p.line("  and %d more: batchwarden status --json", more)
	}
}

// statusUsers lists batch users, those that cannot be used first.
func (a *app) statusUsers(p *page, s *condition) {
	n := s.BatchUsers
	if n.Total == 0 {
		p.line("This machine has no batch users.")
		return
	}
	if n.Shared > 0 {
		p.line("%s readable by every machine of a platform.", counted(n.Shared, "password"))
	}
	users := slices.Clone(s.users)
	slices.SortStableFunc(users, func(x, y wire.BatchUser) int { return rank(&x) - rank(&y) })
	p.row("BATCH USER", "ACCOUNT", "STATE", "VERSION", "CONFIRMED", "NEXT ROTATION")
	p.tint(0, strong)
	for _, u := range users[:min(len(users), mostUsers)] {
		next := "not announced"
		if !u.Rotates.IsZero() {
			next = "in " + span(u.Rotates.Sub(a.now()))
		}
		p.row(u.Name, account(&u), u.State, fmt.Sprint(u.Version), age(u.AgeSeconds), next)
		p.tint(2, map[bool]tint{true: good, false: bad}[u.State == "ready"])
	}
	if more := len(users) - mostUsers; more > 0 {
		p.line("and %d more: batchwarden batch-users", more)
	}
	if hidden := n.Total - len(users); hidden > 0 {
		p.line("%s not yours to see.", counted(hidden, "batch user"))
	}
}

func rank(u *wire.BatchUser) int {
	if u.State == "ready" {
		return 1
	}
	return 0
}

func statusPolicies(p *page, all []wire.Policy) {
	if len(all) == 0 {
		p.line("No realm has a policy.")
		return
	}
	p.row("REALM", "MODEL", "POLICY", "VERSION", "CONFIRMED", "SCOPE")
	p.tint(0, strong)
	for _, d := range all {
		version, confirmed := fmt.Sprint(d.Version), age(d.AgeSeconds)
		if d.State == "missing" {
			version, confirmed = "", ""
		}
		p.row(d.Realm, d.Model, d.State, version, confirmed, d.Scope)
		p.tint(2, map[bool]tint{true: good, false: bad}[d.State == "active"])
	}
}

func trouble(s wire.Sync) string {
	switch {
	case s.Outcome == "" || s.Outcome == "ok":
		return "no failure is known"
	case s.Detail == "":
		return s.Outcome
	}
	return s.Outcome + ": " + strings.TrimSuffix(s.Detail, ".")
}

func finding(f wire.Finding) string {
	text := f.Code + ": " + f.Detail
	if f.Path != "" {
		text = f.Path + ": " + text
	}
	return text
}

func (a *app) jobCount(n wire.JobCount) string {
	text := fmt.Sprintf("%d running", n.Running)
	if !n.Oldest.IsZero() {
		text += ", the oldest for " + span(a.now().Sub(n.Oldest))
	}
	for _, state := range slices.Sorted(maps.Keys(n.States)) {
		if state != wire.Running {
			text += fmt.Sprintf("; %d %s", n.States[state], state)
		}
	}
	return text
}

func (a *app) lastSync(s wire.Sync) string {
	if s.LastAttempt.IsZero() {
		return "none yet"
	}
	text := a.when(s.LastAttempt) + ": "
	if s.Outcome == "ok" {
		text += fmt.Sprintf("ok, %d changed, %d removed", s.Changed, s.Removed)
	} else {
		text += s.Outcome
	}
	if !s.NextAttempt.IsZero() {
		text += "; next in " + span(s.NextAttempt.Sub(a.now()))
	}
	return text
}

func memory(m wire.Memory) string {
	if m.Dumpable {
		return m.Backend + ", and the process can be dumped, which it should not"
	}
	return m.Backend
}

func localVault(v wire.LocalVault) string {
	text := fmt.Sprintf("%s, %s, key %s", counted(v.Records, "record"), octets(v.Bytes), cmp.Or(v.Key, "unknown"))
	if v.KeyID != "" {
		text += " " + v.KeyID
	}
	if v.Quarantined > 0 {
		text += fmt.Sprintf(", %d quarantined", v.Quarantined)
	}
	return text
}

func (a *app) launcher(l wire.Launcher) string {
	text := "not connected"
	if l.Connected {
		text = "connected"
	}
	if !l.Since.IsZero() {
		text += " for " + span(a.now().Sub(l.Since))
	}
	for _, more := range []string{l.Version, l.Containment, l.Detail} {
		if more != "" {
			text += ", " + more
		}
	}
	return text
}
