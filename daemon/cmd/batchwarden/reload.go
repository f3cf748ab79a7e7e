package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/strict"
	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
)

func (a *app) reloadCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "reload",
		Short: "Read the configuration again; returns when what changed is in force",
		Long: `reload has the service read its configuration again, as it does by itself when the files change and on SIGHUP.
A configuration with a fault is not taken: every fault is named, the one in force stays, and the exit code is 78.
batchwarden config check finds the same faults before.`,
		Args: cobra.NoArgs,
		RunE: a.ask(func(ctx context.Context, c *client.Client, _ []string) error {
			r, err := c.Reload(ctx)
			if err != nil {
				return err
			}
			if err := a.show(r, reloadText(r)); err != nil {
				return err
			}
			if r.Outcome == wire.ReloadRefused {
				return &failure{code: exitConfig}
			}
			return nil
		}),
	}
}

func reloadText(r *wire.Reload) string {
	var p page
	switch r.Outcome {
	case wire.ReloadRefused:
		p.line("Not taken: the configuration that was in force stays. %s:", counted(len(r.Faults), "fault"))
		for _, f := range r.Faults {
			p.line("  %s", cell(strict.Fault{File: f.File, Line: f.Line, Column: f.Column, Place: f.Place, Text: f.Text}.String()))
		}
		return p.String()
	case wire.ReloadUnchanged:
		p.line("Read again: nothing is another than before.")
	default:
		p.line("Read again, and in force: %s.", cell(cmp.Or(strings.Join(r.Changed, ", "), "no setting is another than before")))
	}
	if len(r.RestartNeeded) > 0 {
		p.line("Not in force until batchwardend and batchwarden-launcher are restarted: %s. Jobs go on meanwhile.", cell(strings.Join(r.RestartNeeded, ", ")))
	}
	for _, w := range r.Warnings {
		p.line("%s", cell(w))
	}
	return p.String()
}

// ofService says of a record about the service itself, or its configuration, what happened.
func ofService(r *audit.Record) string {
	text, c := "", r.Config
	switch r.Kind {
	case audit.Started:
		text = "the service was started"
	case audit.Stopped:
		text = "the service was stopped"
	}
	if s := r.Service; s != nil {
		text += fmt.Sprintf(", version %s", s.Version)
	}
	if c == nil {
		return text + named(": ", r.Reason)
	}
	switch r.Kind {
	case audit.Started:
		return text + ", configuration " + shortSum(c.SHA256)
	case audit.ConfigChanged:
		text = "configuration " + shortSum(c.SHA256) + " in place of " + shortSum(c.Old) + ": " + cmp.Or(several(c.Changed), "no setting is another")
		if len(c.Restart) > 0 {
			text += "; after a restart: " + several(c.Restart)
		}
	case audit.ConfigRefused:
		text = "configuration " + shortSum(c.SHA256) + " refused, " + shortSum(c.Old) + " stays: " + cmp.Or(several(c.Faults), r.Reason)
	}
	return text + " (" + map[string]string{audit.BySignal: "SIGHUP", audit.ByFile: "the files changed", audit.ByOperator: "by an operator"}[c.By] + ")"
}

// shortSum is as much of a sum as people compare.
func shortSum(sum string) string { return sum[:min(12, len(sum))] }
