package main

import (
	"cmp"
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
)

func (a *app) whoamiCommand() *cobra.Command {
	return plain(a, "whoami", "Show who the service takes you for, and what that allows",
		func(c *client.Client, ctx context.Context) (*wire.Whoami, error) {
			return within(ctx, glanceTime, c.Whoami)
		}, whoamiText)
}

func whoamiText(w *wire.Whoami) string {
	var p page
	groups := make([]string, len(w.Peer.Groups))
	for i, g := range w.Peer.Groups {
		groups[i] = fmt.Sprint(g)
	}
	p.row("User", fmt.Sprintf("%s (uid %d, gid %d, groups %s), process %d",
		cmp.Or(w.Peer.User, "without a name"), w.Peer.UID, w.Peer.GID, orNone(groups), w.Peer.PID))
	if w.Peer.Attested {
		p.row("Program", cmp.Or(w.Peer.Exe, "not known: "+cmp.Or(w.Peer.NoExe, "no reason is known")))
		if w.Peer.SHA256 != "" || w.Peer.NoSHA256 != "" {
			p.row("SHA-256", cmp.Or(w.Peer.SHA256, "not known: "+w.Peer.NoSHA256))
		}
		p.row("Unit", cmp.Or(w.Peer.Unit, "none: no system service"))
	} else {
		p.row("Program", "not known: the launcher does not answer")
	}
	for _, e := range w.Entries {
		if !e.Matched {
			p.row("", fmt.Sprintf("not %s: %s", e.Client, e.Reason))
		}
	}
	if w.Client == "" {
		p.row("Client entry", "none: "+cmp.Or(w.Reason, "no entry matches"))
	} else {
		p.row("Client entry", w.Client)
		p.row("May", orNone(w.May))
		p.row("Realms", orNone(w.Realms))
	}
	operator := "no"
	if w.Operator {
		operator = "yes: status, explain, sync, verify, suspend"
	}
	p.row("Operator", operator)
	p.row("Service", fmt.Sprintf("%s, API %d", w.Version, w.API))
	p.row("Features", orNone(w.Features))
	return p.String()
}
