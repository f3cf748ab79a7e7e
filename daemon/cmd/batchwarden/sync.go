package main

import (
	"cmp"
	"context"

	"github.com/spf13/cobra"

	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
)

func (a *app) syncCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sync",
		Short: "Ask Vault now; returns when what changed is in force",
		Args:  cobra.NoArgs,
		RunE: a.ask(func(ctx context.Context, c *client.Client, _ []string) error {
			done := a.working("Asking Vault", func() string { return arrived(ctx, c) })
			s, err := c.Sync(ctx)
			done()
			if err != nil {
				return err
			}
			return a.answer(s, a.syncText(s), s.Outcome == "ok")
		}),
	}
}

// arrived is how far a sync that is being made has come; "" where that is not told.
func arrived(ctx context.Context, c *client.Client) string {
	s, err := within(ctx, progressAfter/2, c.Status)
	if err != nil || s.Sync.Arrived == 0 {
		return ""
	}
	return ", " + counted(s.Sync.Arrived, "document")
}

func (a *app) syncText(s *wire.Sync) string {
	var p page
	if s.Outcome == "ok" {
		p.line("Synced with %s: %d changed, %d removed.", cmp.Or(s.Address, "Vault"), s.Changed, s.Removed)
	} else {
		p.line("Not synced with %s: %s. What was synced before stays in force.", cmp.Or(s.Address, "Vault"), trouble(*s))
	}
	for _, f := range s.Faults {
		p.line("  %s", finding(f))
	}
	return p.String()
}
