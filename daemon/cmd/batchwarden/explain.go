package main

import (
	"context"
	"encoding/json"

	"github.com/spf13/cobra"

	"batchwarden/daemon/config"
	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
)

func (a *app) explainCommand() *cobra.Command {
	var q question
	var l launch
	var action, as, decision, file string
	cmd := &cobra.Command{
		Use:   "explain {--realm R --as BATCH_USER [--client C] [--subject U] [--object K=V]... -- COMMAND [ARG...] | --realm R [--action A] ... | --decision ID}",
		Short: "Say of a launch step by step whether it would be started, why not, and what would change that",
		Long: `Go through a launch step by step, as run with the same flags would, start nothing, and say what each step found,
whether the job would be started, and what to change for the first step that refuses it; exit code 1 when one does.
For operators, and clients that may explain. An operator says with --client which client's launch it would be; without it
the only client that may launch in the realm is taken.

What the steps could not look at is marked --. Whether the job's own user may use directory and command, and what a PAM
service says, shows only when the job starts.

With --action, or without a batch user or anything to run, the policy alone is asked.

With --decision the audit log is searched for a decision by its id, for root: who asked, what was decided by which
versions, and what became of the job.`,
		RunE: do(func(cmd *cobra.Command, args []string) error {
			if decision != "" {
				return a.explainDecision(cmd.Context(), decision, file)
			}
			c := client.New(a.socket)
			defer c.Close()
			if action != "" || q.as == "" || !l.says(args) {
				if as != "" {
					return usage("--client is for a whole launch: name a batch user with --as, and a command after --")
				}
				return a.decide(cmd.Context(), c, &q, action, true)
			}
			return a.explainLaunch(cmd.Context(), c, &q, &l, args, as)
		}),
	}
	q.launchFlags(cmd)
	l.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&action, "action", "", "ask the policy alone for this, in the model's words")
	f.StringVar(&as, "client", "", "as if this client asked, by the name of its entry")
	f.StringVar(&decision, "decision", "", "tell of this decision, by the id that is in the answer, the job and the audit log")
	f.StringVar(&file, "config", config.DefaultFile, "the service's configuration, which says where the audit log of --decision lies")
	hide(cmd, "detach", "dry-run")
	f.SetInterspersed(false)
	return cmd
}

// hide takes from the help flags that are read and mean nothing here, so that a run line can be asked about by changing
// one word.
func hide(cmd *cobra.Command, flags ...string) {
	for _, flag := range flags {
		if err := cmd.Flags().MarkHidden(flag); err != nil {
			panic("batchwarden: " + err.Error())
		}
	}
}

// says reports whether the flags or arguments say what would run.
func (l *launch) says(args []string) bool {
	return len(args) > 0 || l.commandLine != "" || l.script != ""
}

// explained is what explain prints as JSON: the service's answer and what to change.
type explained struct {
	*wire.DryRun
	Remedy *remedy `json:"remedy,omitempty"`
}

func (a *app) explainLaunch(ctx context.Context, c *client.Client, q *question, l *launch, args []string, as string) error {
	body, err := l.body(q, args)
	if err != nil {
		return err
	}
	if err := l.fill(&body, args, a.in); err != nil {
		return err
	}
	if body.Subject, err = q.asked(ctx, c); err != nil {
		return err
	}
	if l.id == "" {
		body.ID = "" // that of a run would be new
	}
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	d, err := c.Explain(ctx, text, as)
	if err != nil {
		return err
	}
	x := explained{d, remedyFor(d, &body)}
	return a.answer(x, x.text(&body), d.Start)
}
