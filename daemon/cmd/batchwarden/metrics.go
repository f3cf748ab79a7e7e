package main

import (
	"context"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"batchwarden/ipc/client"
)

func (a *app) metricsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "metrics",
		Short: "Print what Prometheus is told",
		Long: `Print the service's metrics in Prometheus's text format; with --json as an object of series and values. An operator may.

Prometheus gets them from node_exporter's textfile collector: set metrics.textfile in batchwarden.yaml.`,
		Args: cobra.NoArgs,
		RunE: a.ask(func(ctx context.Context, c *client.Client, _ []string) error {
			page, err := c.Metrics(ctx)
			if err != nil {
				return err
			}
			return a.show(map[string]any{"series": series(page)}, clean(page))
		}),
	}
}

// series is a page as values by series, as Prometheus writes one: name{label="value"}.
func series(page string) map[string]float64 {
	all := map[string]float64{}
	for line := range strings.Lines(page) {
		line = strings.TrimSpace(line)
		end := strings.LastIndexByte(line, ' ')
		if end < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if v, err := strconv.ParseFloat(line[end+1:], 64); err == nil {
			all[line[:end]] = v
		}
	}
	return all
}
