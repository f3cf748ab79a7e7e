package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
)

func (a *app) suspendCommand() *cobra.Command {
	var reason string
	cmd := plain(a, "suspend", "Start no jobs on this machine until resume, also after a restart; those that run go on",
		func(c *client.Client, ctx context.Context) (*wire.Suspension, error) { return c.Suspend(ctx, reason) },
		func(s *wire.Suspension) string {
			return cell(s.Words()) + ".\nJobs that run go on. To start jobs again: batchwarden resume.\n"
		})
	cmd.Flags().StringVar(&reason, "reason", "", "why, for whoever finds the machine suspended")
	return cmd
}

func (a *app) resumeCommand() *cobra.Command {
	return plain(a, "resume", "Start jobs on this machine again",
		(*client.Client).Resume, func(*wire.Suspension) string { return "jobs are started on this machine.\n" })
}

// dryRun shows what would come of a launch; exit code 1 when it would not be started.
func (a *app) dryRun(ctx context.Context, c *client.Client, body wire.Launch) error {
	d, err := c.DryRun(ctx, body)
	if err != nil {
		return err
	}
	return a.answer(d, dryRunText(d), d.Start)
}

func dryRunText(d *wire.DryRun) string {
	var p page
	for _, s := range d.Checks {
		result := "ok"
		if !s.OK {
			result = s.Code
		}
		p.row(s.Step, result, s.Detail)
	}
	if d.Start {
		p.line("The job would be started.")
	} else {
		p.line("%s", fmt.Sprintf("The job would not be started: %s.", d.Code))
	}
	return p.String()
}
