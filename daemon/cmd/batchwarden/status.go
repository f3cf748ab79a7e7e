package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
)

// condition is all that status shows.
type condition struct {
	wire.Status
	Health wire.Health `json:"health"`
}

func (a *app) statusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how the service is; exit code 1 when it cannot serve",
		Args:  cobra.NoArgs,
		RunE: a.ask(func(ctx context.Context, c *client.Client, _ []string) error {
			s, err := c.Status(ctx)
			if err != nil {
				return err
			}
			h, err := c.Health(ctx)
			if err != nil {
				return err
			}
			now := condition{*s, *h}
			return a.answer(now, a.statusText(&now), h.Healthy)
		}),
	}
}

// statusText says in plain words first how it is, then the details.
func (a *app) statusText(s *condition) string {
	var p page
	p.line("%s", a.headline(s))
	switch {
	case s.Health.Healthy:
	case len(s.Health.Reasons) == 0:
		p.line("It cannot serve.")
	default:
		p.line("It cannot serve:")
		for _, r := range s.Health.Reasons {
			p.line("  %s", finding(r))
		}
	}
	if len(s.Problems) > 0 {
		p.line("")
		p.line("Problems:")
		for _, f := range s.Problems {
			p.line("  %s", finding(f))
		}
	}
	p.line("")
	p.row("Batch users", a.batchUserCount(s.BatchUsers))
	p.row("Last sync", a.lastSync(s.Sync))
	for _, f := range s.Sync.Faults {
		p.row("", finding(f))
	}
	p.row("Memory", memory(s.Memory))
	p.row("Local vault", localVault(s.LocalVault))
	p.row("Launcher", a.launcher(s.Launcher))
	p.row("Jobs", fmt.Sprintf("%d running, %d kept", s.Jobs.Running, s.Jobs.Kept))
	p.row("Daemon", strings.TrimSpace(s.Version+" started "+or(a.when(s.Started), "at an unknown time")))
	return p.String() + a.policies(s.Policies)
}

// headline is the state in one sentence.
func (a *app) headline(s *condition) string {
	vault := or(s.Sync.Address, "Vault")
	switch s.State {
	case wire.StateOnline:
		return fmt.Sprintf("%s is online: %s answered %s.", s.Machine, vault, or(a.when(s.Sync.LastSuccess), "lately"))
	case wire.StateOffline:
		text := fmt.Sprintf("%s is offline", s.Machine)
		if since := s.Sync.OfflineSince; !since.IsZero() {
			text += fmt.Sprintf(" since %s (%s)", since.UTC().Format(time.DateTime+" UTC"), span(a.now().Sub(since)))
		}
		return text + fmt.Sprintf(": %s. What was synced before stays in force.", a.trouble(s.Sync))
	case wire.StateStarting:
		return fmt.Sprintf("%s is starting: nothing was synced yet (%s).", s.Machine, a.trouble(s.Sync))
	}
	return fmt.Sprintf("%s is %s.", s.Machine, s.State)
}

func (a *app) trouble(s wire.Sync) string {
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

func (a *app) batchUserCount(n wire.BatchUserCount) string {
	text := fmt.Sprintf("%d, %d of them ready", n.Total, n.Ready)
	if n.Stale > 0 {
		text += fmt.Sprintf(", %d stale", n.Stale)
	}
	if n.Shared > 0 {
		text += fmt.Sprintf(", %d with a password that every machine of the platform can read", n.Shared)
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
		text += a.trouble(s)
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
	text := fmt.Sprintf("%d records, %s, key %s", v.Records, octets(v.Bytes), or(v.Key, "unknown"))
	if v.KeyID != "" {
		text += " " + v.KeyID
	}
	if v.Quarantined > 0 {
		text += fmt.Sprintf(", %d quarantined", v.Quarantined)
	}
	if v.Error != "" {
		text += "; " + v.Error
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

func (a *app) policies(all []wire.Policy) string {
	if len(all) == 0 {
		return "\nNo realm has a policy.\n"
	}
	var p page
	p.line("")
	p.row("REALM", "MODEL", "VERSION", "STATE", "CONFIRMED", "SCOPE", "DETAIL")
	for _, d := range all {
		version, confirmed := fmt.Sprint(d.Version), span(time.Duration(d.AgeSeconds)*time.Second)+" ago"
		if d.State == "missing" {
			version, confirmed = "", ""
		}
		p.row(d.Realm, d.Model, version, d.State, confirmed, d.Scope, d.Detail)
	}
	return p.String()
}

func (a *app) whoamiCommand() *cobra.Command {
	return plain(a, "whoami", "Show who the service takes you for, and what that allows",
		(*client.Client).Whoami, whoamiText)
}

func whoamiText(w *wire.Whoami) string {
	var p page
	groups := make([]string, len(w.Peer.Groups))
	for i, g := range w.Peer.Groups {
		groups[i] = fmt.Sprint(g)
	}
	p.row("User", fmt.Sprintf("%s (uid %d, gid %d, groups %s), process %d",
		or(w.Peer.User, "without a name"), w.Peer.UID, w.Peer.GID, orNone(groups), w.Peer.PID))
	if w.Peer.Attested {
		p.row("Program", or(w.Peer.Exe, "not known: "+or(w.Peer.NoExe, "no reason is known")))
		if w.Peer.SHA256 != "" || w.Peer.NoSHA256 != "" {
			p.row("SHA-256", or(w.Peer.SHA256, "not known: "+w.Peer.NoSHA256))
		}
		p.row("Unit", or(w.Peer.Unit, "none: no system service"))
	} else {
		p.row("Program", "not known: the launcher does not answer")
	}
	for _, e := range w.Entries {
		if !e.Matched {
			p.row("", fmt.Sprintf("not %s: %s", e.Client, e.Reason))
		}
	}
	if w.Client == "" {
		p.row("Client entry", "none: "+or(w.Reason, "no entry matches"))
	} else {
		p.row("Client entry", w.Client)
		p.row("May", orNone(w.May))
		p.row("Realms", orNone(w.Realms))
	}
	operator := "no"
	if w.Operator {
		operator = "yes: status, explain, sync, suspend"
	}
	p.row("Operator", operator)
	p.row("Service", fmt.Sprintf("%s, API %d", w.Version, w.API))
	p.row("Features", orNone(w.Features))
	return p.String()
}

func (a *app) syncCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sync",
		Short: "Ask Vault now; returns when what changed is in force",
		Args:  cobra.NoArgs,
		RunE: a.ask(func(ctx context.Context, c *client.Client, _ []string) error {
			s, err := c.Sync(ctx)
			if err != nil {
				return err
			}
			return a.answer(s, a.syncText(s), s.Outcome == "ok")
		}),
	}
}

func (a *app) syncText(s *wire.Sync) string {
	var p page
	if s.Outcome == "ok" {
		p.line("Synced with %s: %d changed, %d removed.", or(s.Address, "Vault"), s.Changed, s.Removed)
	} else {
		p.line("Not synced with %s: %s. What was synced before stays in force.", or(s.Address, "Vault"), a.trouble(*s))
	}
	for _, f := range s.Faults {
		p.line("  %s", finding(f))
	}
	return p.String()
}
