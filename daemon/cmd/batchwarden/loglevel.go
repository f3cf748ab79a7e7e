package main

import (
	"context"

	"github.com/spf13/cobra"

	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
)

func (a *app) logLevelCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "log-level [debug|info|warn|error]",
		Short: "Show how much the services log, or change it until they start again",
		Long: `Show how much batchwardend and batchwarden-launcher write into their logs, or change it in both at once, without a
restart. It holds until they start again, or until log.level in the configuration is changed and loaded.`,
		Example:   "  batchwarden log-level debug\n  journalctl -u batchwardend -u batchwarden-launcher -f\n  batchwarden log-level info",
		Args:      cobra.MatchAll(cobra.MaximumNArgs(1), cobra.OnlyValidArgs),
		ValidArgs: []string{"debug", "info", "warn", "error"},
		RunE: a.ask(func(ctx context.Context, c *client.Client, args []string) (err error) {
			var now *wire.LogLevel
			if len(args) == 0 {
				now, err = c.LogLevel(ctx)
			} else {
				now, err = c.SetLogLevel(ctx, args[0])
			}
			if err != nil {
				return err
			}
			return a.answer(now, logLevelText(now), now.Detail == "")
		}),
	}
}

func logLevelText(l *wire.LogLevel) string {
	var p page
	p.row("batchwardend", l.Level)
	launcher := l.Launcher
	if l.Detail != "" {
		launcher = "not known: " + l.Detail
	}
	p.row("batchwarden-launcher", launcher)
	return p.String()
}
