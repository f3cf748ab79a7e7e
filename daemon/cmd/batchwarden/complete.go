package main

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"batchwarden/ipc/client"
)

// completeTime is how long the service may take to complete a word: a person waits.
const completeTime = 2 * time.Second

// words asks the service for what a word could become.
type words func(context.Context, *client.Client) []string

// complete gives commands and flags what their words are completed from: what the running service tells the caller.
func (a *app) complete(root *cobra.Command) {
	arguments := map[string]words{
		"batch-users": batchUserNames, "retrieve": batchUserNames,
		"jobs": jobIDs, "output": jobIDs, "signal": jobIDs,
	}
	for _, cmd := range root.Commands() {
		if cmd.ValidArgsFunction == nil && arguments[cmd.Name()] != nil {
			cmd.ValidArgsFunction = a.first(arguments[cmd.Name()], cmd.Name() == "signal")
		}
		for flag, from := range map[string]words{"realm": realmNames, "as": batchUserNames} {
			if cmd.Flags().Lookup(flag) != nil {
				// It fails where the flag is not there, or has one already.
				_ = cmd.RegisterFlagCompletionFunc(flag, a.any(from))
			}
		}
	}
}

// first completes the first argument; the second, where there are signals, from their names.
func (a *app) first(from words, signals bool) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		switch {
		case len(args) == 0:
			return a.any(from)(cmd, args, begun)
		case len(args) == 1 && signals:
			return []string{"TERM", "INT", "HUP", "QUIT", "KILL", "STOP", "CONT", "USR1", "USR2"}, cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

func (a *app) any(from words) cobra.CompletionFunc {
	return func(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
		ctx := cmd.Context()
		if ctx == nil {
			ctx = context.Background()
		}
		ctx, cancel := context.WithTimeout(ctx, completeTime)
		defer cancel()
		c := client.New(a.socket)
		defer c.Close()
		var list []string
		for _, word := range from(ctx, c) {
			list = append(list, clean(word)) // a tab begins a description
		}
		return list, cobra.ShellCompDirectiveNoFileComp
	}
}

// Whoever asks sees what he may see; an error is no completion.

func batchUserNames(ctx context.Context, c *client.Client) (names []string) {
	users, err := c.BatchUsers(ctx)
	if err != nil {
		return nil
	}
	for _, u := range users {
		names = append(names, u.Name)
	}
	return names
}

func jobIDs(ctx context.Context, c *client.Client) (ids []string) {
	jobs, err := c.Jobs(ctx)
	if err != nil {
		return nil
	}
	for _, j := range jobs {
		ids = append(ids, j.ID+"\t"+j.State)
	}
	return ids
}

func realmNames(ctx context.Context, c *client.Client) (names []string) {
	if w, err := c.Whoami(ctx); err == nil && len(w.Realms) > 0 {
		return w.Realms
	}
	s, err := c.Status(ctx) // an operator without an entry
	if err != nil {
		return nil
	}
	for _, p := range s.Policies {
		names = append(names, p.Realm)
	}
	return names
}
