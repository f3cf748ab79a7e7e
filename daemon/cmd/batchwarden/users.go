package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchwarden/daemon/config"
	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
)

func (a *app) batchUsersCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "batch-users [NAME]",
		Short: "List the batch users that you can see, or show one; never a password",
		Long: `List the batch users that you can see, or show one, and who used it in the last 30 days: that is in the audit log, which
root and the service's own user can read. Never a password.`,
		Args: cobra.MaximumNArgs(1),
		RunE: a.ask(func(ctx context.Context, c *client.Client, args []string) error {
			if len(args) == 0 {
				users, err := within(ctx, glanceTime, c.BatchUsers)
				if err != nil {
					return err
				}
				return a.show(wire.BatchUsers{BatchUsers: users}, batchUsersText(users))
			}
			u, err := c.BatchUser(ctx, args[0])
			if err != nil {
				return err
			}
			v := usedUser{BatchUser: u}
			if v.Used, err = a.usesOf(ctx, file, u.Name); err != nil {
				if ctx.Err() != nil {
					return err
				}
				v.Unknown = "Who used it is not shown: " + err.Error()
			}
			return a.show(v, a.batchUserText(u)+"\n"+v.text(a))
		}),
	}
	cmd.Flags().StringVar(&file, "config", config.DefaultFile, "the service's configuration, which says where the audit log lies")
	return cmd
}

func batchUsersText(users []wire.BatchUser) string {
	if len(users) == 0 {
		return "There are no batch users that you can see.\n"
	}
	var p page
	p.row("NAME", "ACCOUNT", "STATE", "USE", "VERSION", "CONFIRMED", "SCOPE")
	for _, u := range users {
		p.row(u.Name, account(&u), u.State, use(&u), fmt.Sprint(u.Version), age(u.AgeSeconds), u.Scope)
	}
	return p.String()
}

func account(u *wire.BatchUser) string {
	if u.Domain != "" {
		return u.Domain + `\` + u.Username
	}
	return u.Username
}

func use(u *wire.BatchUser) string {
	var list []string
	if u.Launch {
		list = append(list, "launch")
	}
	if u.Retrieve {
		list = append(list, "retrieve")
	}
	return orNone(list)
}

func age(seconds int64) string { return span(time.Duration(seconds)*time.Second) + " ago" }

func (a *app) batchUserText(u *wire.BatchUser) string {
	var p page
	p.row("Batch user", u.Name)
	p.row("State", u.State)
	if u.Fault != "" {
		p.row("Fault", u.Fault)
	}
	p.row("Account", account(u))
	if u.Group != "" {
		p.row("Group", u.Group)
	}
	for _, realm := range slices.Sorted(maps.Keys(u.Names)) {
		p.row("Called", u.Names[realm]+" in "+realm)
	}
	p.row("Kind", u.Kind+" on "+u.Platform)
	p.row("Use", use(u))
	p.row("Version", fmt.Sprintf("%d, confirmed %s", u.Version, age(u.AgeSeconds)))
	p.row("Scope", u.Scope)
	if !u.Expires.IsZero() {
		left := u.Expires.Sub(a.now())
		text := "in " + span(left)
		if left <= 0 {
			text = a.when(u.Expires)
		}
		p.row("Expires", u.Expires.UTC().Format(time.RFC3339)+", "+text)
	}
	return p.String()
}

func (a *app) retrieveCommand() *cobra.Command {
	var q question
	var force bool
	cmd := &cobra.Command{
		Use:   "retrieve --realm R [--subject U] [--object K=V]... NAME",
		Short: "Write a batch user's password to stdout, without a line end",
		Long: `Write a batch user's password to stdout: its octets and nothing else, no line end. A terminal would keep it in
its history, so there it is refused unless --force is given.`,
		Args: cobra.ExactArgs(1),
		RunE: a.ask(func(ctx context.Context, c *client.Client, args []string) error {
			if err := q.check(); err != nil {
				return err
			}
			if a.json {
				return usage("a password is not printed as JSON; leave --json out")
			}
			if !force && onTerminal(a.out) {
				return usage("stdout is a terminal, which would show the password and remember it; redirect stdout, or give --force")
			}
			object, err := q.object()
			if err != nil {
				return err
			}
			subject, err := q.asked(ctx, c)
			if err != nil {
				return err
			}
			_, err = c.Retrieve(ctx, args[0], wire.Retrieve{Realm: q.realm, Subject: subject, Object: object}, a.out)
			return err
		}),
	}
	q.flags(cmd)
	cmd.Flags().BoolVar(&force, "force", false, "write to a terminal too")
	return cmd
}

// onTerminal reports whether what is written there may be a terminal. Any character device but the null device is
// taken for one: to be wrong costs a redirection.
func onTerminal(w any) bool {
	f, is := w.(*os.File)
	if !is {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return true
	}
	if info.Mode()&os.ModeCharDevice == 0 {
		return false
	}
	null, err := os.Stat(os.DevNull)
	return err != nil || !os.SameFile(info, null)
}

// names joins a table's keys for a message.
func names[V any](table map[string]V) string {
	return strings.Join(slices.Sorted(maps.Keys(table)), ", ")
}
