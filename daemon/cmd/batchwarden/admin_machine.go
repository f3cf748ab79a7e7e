package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchwarden/vault/admin"
)

func (a *app) machineCommand(f *adminFlags) *cobra.Command {
	return parent("machine", "Add, remove and list the machines that may read from Vault",
		a.machineAddCommand(f), a.machineRotateCommand(f), a.machineRemoveCommand(f), a.machineListCommand(f))
}

func (a *app) machineAddCommand(f *adminFlags) *cobra.Command {
	var m admin.Machine
	var out string
	cmd := &cobra.Command{
		Use:   "add NAME... [--platform P]... [--group G]... [--out DIR]",
		Short: "Entitle machines to their scope, platforms and groups, and issue what they log in with",
		Long: `Entitle machines to read their own scope, their platforms' and their groups', and issue for each a secret_id, wrapped:
what is printed (or written with --out) can be exchanged for the secret_id once, by the machine itself. A machine that
is there already is brought up to date, its groups are then exactly those given, and no second secret_id is issued:
that is what machine rotate does. "-" reads names from the standard input, one a line.`,
		Args: cobra.MinimumNArgs(1),
		RunE: a.administer(f, func(ctx context.Context, v *admin.Admin, _ *cobra.Command, args []string) error {
			return a.eachMachine(ctx, v, args, out, func(ctx context.Context, name string) (admin.Credentials, []admin.Step, error) {
				one := m
				one.Name = name
				return v.AddMachine(ctx, one)
			})
		}),
	}
	p := cmd.Flags()
	p.StringArrayVar(&m.Platforms, "platform", []string{"unix"}, "unix, windows or zos; may be given again, the machine's own first")
	p.StringArrayVar(&m.Groups, "group", nil, "a group that the machines are in; may be given again")
	p.StringArrayVar(&m.CIDRs, "cidr", nil, "a network like 10.1.0.0/16 outside of which neither login nor token is good; may be given again")
	p.DurationVar(&m.TokenTTL, "token-ttl", 0, "how long a token is good without being renewed (default 1h)")
	p.DurationVar(&m.TokenMax, "token-max-ttl", 0, "how long a token is good at most (default 240h)")
	p.DurationVar(&m.SecretIDTTL, "secret-id-ttl", 0, "how long a secret_id is good (default: without end)")
	p.BoolVar(&m.NoSecretID, "no-secret-id", false, "issue no secret_id")
	credentialFlags(cmd, &m.WrapTTL, &out)
	return cmd
}

func credentialFlags(cmd *cobra.Command, wrap *time.Duration, out *string) {
	cmd.Flags().DurationVar(wrap, "wrap-ttl", 0, "how long a wrapped secret_id can be fetched (default 24h)")
	cmd.Flags().StringVar(out, "out", "", "write role_id and secret_id into `DIR`/NAME/ instead of printing them")
}

func (a *app) machineRotateCommand(f *adminFlags) *cobra.Command {
	var wrap time.Duration
	var finish bool
	var out string
	cmd := &cobra.Command{
		Use:   "rotate NAME... [--finish] [--out DIR]",
		Short: "Issue another secret_id; with --finish destroy all but the newest",
		Long: `Issue for each machine another secret_id, wrapped; the ones before stay good. Once the machine has logged in with the
new one, --finish destroys the others.`,
		Args: cobra.MinimumNArgs(1),
		RunE: a.administer(f, func(ctx context.Context, v *admin.Admin, _ *cobra.Command, args []string) error {
			return a.eachMachine(ctx, v, args, out, func(ctx context.Context, name string) (admin.Credentials, []admin.Step, error) {
				c, steps, err := v.RotateMachine(ctx, name, wrap, finish)
				if finish {
					c.RoleID = "" // nothing to log in with is new
				}
				return c, steps, err
			})
		}),
	}
	cmd.Flags().BoolVar(&finish, "finish", false, "issue none, and destroy all secret_ids but the newest")
	credentialFlags(cmd, &wrap, &out)
	return cmd
}

func (a *app) machineRemoveCommand(f *adminFlags) *cobra.Command {
	var finish bool
	cmd := &cobra.Command{
		Use:   "remove NAME... [--finish]",
		Short: "Make machines drop everything they hold; with --finish remove them from Vault",
		Long: `Take machines out of service, in two steps. The first writes the mark that makes a machine drop every credential and
policy it holds when it next asks Vault, deletes its documents, and takes its secret_ids away. Once it has read the mark,
or never will, --finish removes its role, its identity and its scope for good.`,
		Args: cobra.MinimumNArgs(1),
		RunE: a.administer(f, func(ctx context.Context, v *admin.Admin, _ *cobra.Command, args []string) error {
			return a.eachMachine(ctx, v, args, "", func(ctx context.Context, name string) (admin.Credentials, []admin.Step, error) {
				steps, err := v.RemoveMachine(ctx, name, finish)
				return admin.Credentials{Machine: name}, steps, err
			})
		}),
	}
	cmd.Flags().BoolVar(&finish, "finish", false, "remove what is left, for good")
	return cmd
}

// machineDone is what became of one machine.
type machineDone struct {
	admin.Credentials
	Directory string       `json:"directory,omitempty"` // where its files were written
	Steps     []admin.Step `json:"steps"`
	Error     string       `json:"error,omitempty"`
	err       error
}

// eachMachine does f to each of the machines, a few at a time, and prints in their order what came of it. One that
// fails does not stop the others.
func (a *app) eachMachine(ctx context.Context, v *admin.Admin, args []string, out string, f func(context.Context, string) (admin.Credentials, []admin.Step, error)) error {
	names, err := a.named(args)
	if err != nil {
		return err
	}
	if len(names) == 0 {
		return usage("no machine is named")
	}
	all := make([]machineDone, len(names))
	at := make([]int, len(names))
	for i := range at {
		at[i] = i
	}
	admin.Each(ctx, at, func(ctx context.Context, i int) { // each writes its own place
		all[i] = oneMachine(ctx, v, names[i], out, f)
	})
	failed, worst := 0, error(nil)
	for i := range all {
		if all[i].Machine == "" { // not begun: the context ended
			all[i].Machine, all[i].err = names[i], cmp.Or(ctx.Err(), context.Canceled)
		}
		if all[i].Steps == nil {
			all[i].Steps = []admin.Step{}
		}
		if err := all[i].err; err != nil {
			failed++
			worst = cmp.Or(worst, err)
			all[i].Error = strings.TrimPrefix(err.Error(), "admin: ")
		}
	}
	if err := a.show(struct {
		DryRun   bool          `json:"dry_run"`
		Machines []machineDone `json:"machines"`
	}{v.DryRun(), all}, machinesText(v, all)); err != nil {
		return err
	}
	switch {
	case failed == 0:
		return nil
	case len(all) == 1:
		return worst
	}
	e, _ := errors.AsType[*failure](ofVault(worst))
	return &failure{e.code, fmt.Errorf("%d of %d machines failed; the first: %w", failed, len(all), e)}
}

func oneMachine(ctx context.Context, v *admin.Admin, name, out string, f func(context.Context, string) (admin.Credentials, []admin.Step, error)) (d machineDone) {
	d.Machine = name
	dir := filepath.Join(out, name)
	if out != "" && !v.DryRun() { // before anything is issued that could then not be written
		if d.err = os.MkdirAll(out, 0o700); d.err == nil {
			d.err = os.MkdirAll(dir, 0o700)
		}
		if d.err != nil {
			return d
		}
	}
	var c admin.Credentials
	if c, d.Steps, d.err = f(ctx, name); d.err != nil {
		c.Machine = name
	}
	d.Credentials = c
	if out == "" || c.RoleID == "" || v.DryRun() {
		return d
	}
	d.Directory = dir
	err := writeNew(filepath.Join(dir, "role_id"), c.RoleID)
	if err == nil && c.WrappedSecretID != "" {
		if err = writeNew(filepath.Join(dir, "secret_id"), c.WrappedSecretID); err == nil {
			d.WrappedSecretID = "" // it is there and nowhere else
		}
	}
	d.err = errors.Join(d.err, err)
	return d
}

// writeNew puts a file in the place of the one that may be there.
func writeNew(file, text string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(file), ".new-")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name()) // the error is what counts
		}
	}()
	_, err = f.WriteString(text + "\n") // 0600 from the beginning
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), file)
}

func machinesText(v *admin.Admin, all []machineDone) string {
	var b strings.Builder
	var steps []admin.Step
	issued, written := 0, 0
	var p page
	for _, d := range all {
		if len(all) <= 3 { // of thousands nobody reads what was done to each
			steps = append(steps, d.Steps...)
		}
		if d.Error != "" && len(all) > 1 {
			fmt.Fprintf(&b, "%s: failed: %s\n", cell(d.Machine), cell(d.Error))
		}
		switch {
		case d.Directory != "":
			written++
		case d.RoleID != "":
			issued++
		}
	}
	changed := 0
	for _, d := range all {
		if len(d.Steps) > 0 {
			changed++
		}
		if d.Directory == "" && d.RoleID != "" {
			if len(p.rows) == 0 {
				p.row("MACHINE", "ROLE_ID", "WRAPPED SECRET_ID", "GOOD UNTIL")
			}
			until := ""
			if !d.Expires.IsZero() {
				until = d.Expires.UTC().Format(time.RFC3339)
			}
			p.row(d.Machine, d.RoleID, cmp.Or(d.WrappedSecretID, "none issued"), until)
		}
	}
	switch {
	case len(all) <= 3 && (all[0].Error == "" || len(steps) > 0):
		b.WriteString(done{v.DryRun(), steps}.text())
	case len(all) > 3 && v.DryRun():
		fmt.Fprintf(&b, "%s, of which %d would change. Nothing was written: this was a dry run.\n", counted(len(all), "machine"), changed)
	case len(all) > 3:
		fmt.Fprintf(&b, "%s, %d changed\n", counted(len(all), "machine"), changed)
	}
	if issued > 0 {
		b.WriteString(p.String())
	}
	if written > 0 {
		fmt.Fprintf(&b, "Directories written: %d. Take each to its machine: role_id_file and secret_id_file, with secret_id_wrapped: true.\n", written)
	}
	return b.String()
}

func (a *app) machineListCommand(f *adminFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the machines, their platforms and groups",
		Args:  cobra.NoArgs,
		RunE: a.administer(f, func(ctx context.Context, v *admin.Admin, _ *cobra.Command, _ []string) error {
			all, err := v.Machines(ctx)
			if err != nil {
				return err
			}
			var p page
			p.row("MACHINE", "PLATFORMS", "GROUPS", "STATE")
			for _, m := range all {
				state := "in service"
				if m.Removed {
					state = "being removed"
				}
				p.row(m.Name, strings.Join(m.Platforms, ", "), orNone(m.Groups), state)
			}
			text := p.String()
			if len(all) == 0 {
				text = "There are no machines. batchwarden admin machine add NAME adds one.\n"
			}
			return a.show(struct {
				Machines []admin.Machine `json:"machines"`
			}{all}, text)
		}),
	}
}
