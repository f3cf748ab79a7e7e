package main

import (
	"cmp"
	"context"
	"strings"

	"github.com/spf13/cobra"

	"batchwarden/vault/admin"
)

func (a *app) groupCommand(f *adminFlags) *cobra.Command {
	change := func(use, short, long string, do func(*admin.Admin, context.Context, string, ...string) ([]admin.Step, error)) *cobra.Command {
		return &cobra.Command{
			Use: use, Short: short, Long: long,
			Args: cobra.MinimumNArgs(1),
			RunE: a.administer(f, func(ctx context.Context, v *admin.Admin, _ *cobra.Command, args []string) error {
				group, err := a.named(args[:1])
				if err != nil {
					return err
				}
				machines, err := a.named(args[1:])
				if err != nil {
					return err
				}
				if len(group) != 1 {
					return usage("no group is named")
				}
				if len(args) > 1 && len(machines) == 0 {
					return usage("no machine is named on the standard input")
				}
				steps, err := do(v, ctx, group[0], machines...)
				return a.finish(v, steps, err)
			}),
		}
	}
	return parent("group", "Add, remove and list groups of machines",
		change("add GROUP [MACHINE...]", "Make a group, and put machines into it",
			`Make a group of machines, if it is not there, and put machines into it. "-" reads names from the standard input.`,
			(*admin.Admin).AddGroup),
		change("remove GROUP [MACHINE...]", "Take machines out of a group; without machines remove the group",
			`Take machines out of a group: they drop what only the group gave them. Without machines the group itself is removed,
which is refused while machines are in it or documents lie in its scope.`,
			(*admin.Admin).RemoveGroup),
		a.groupListCommand(f))
}

func (a *app) groupListCommand(f *adminFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the groups and their machines",
		Args:  cobra.NoArgs,
		RunE: a.administer(f, func(ctx context.Context, v *admin.Admin, _ *cobra.Command, _ []string) error {
			all, err := v.Groups(ctx)
			if err != nil {
				return err
			}
			var p page
			p.row("GROUP", "MACHINES")
			for _, g := range all {
				p.row(g.Name, cmp.Or(strings.Join(g.Machines, ", "), "none"))
			}
			text := p.String()
			if len(all) == 0 {
				text = "There are no groups. batchwarden admin group add GROUP adds one.\n"
			}
			return a.show(struct {
				Groups []admin.Group `json:"groups"`
			}{all}, text)
		}),
	}
}
