package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
)

func (a *app) jobsCommand() *cobra.Command {
	var forget bool
	cmd := &cobra.Command{
		Use:   "jobs [ID]",
		Short: "List the jobs that you can see, or show one",
		Args:  cobra.MaximumNArgs(1),
		RunE: a.ask(func(ctx context.Context, c *client.Client, args []string) error {
			if forget {
				if len(args) == 0 {
					return usage("--forget wants the id of a job that has ended")
				}
				return c.Forget(ctx, args[0])
			}
			if len(args) == 0 {
				jobs, err := c.Jobs(ctx)
				if err != nil {
					return err
				}
				return a.show(wire.Jobs{Jobs: jobs}, a.jobsText(jobs))
			}
			job, err := c.Job(ctx, args[0], 0)
			if err != nil {
				return err
			}
			return a.show(job, a.jobText(job))
		}),
	}
	cmd.Flags().BoolVar(&forget, "forget", false, "remove the job, which must have ended, and what it wrote")
	return cmd
}

func (a *app) jobsText(jobs []wire.Job) string {
	if len(jobs) == 0 {
		return "There are no jobs that you can see.\n"
	}
	var p page
	p.row("ID", "STATE", "RESULT", "BATCH USER", "SUBJECT", "CLIENT", "STARTED", "TOOK")
	for i := range jobs {
		j := &jobs[i]
		p.row(j.ID, j.State, result(j), j.BatchUser, subject(j.Subject), j.Client, a.when(j.Started), a.took(j))
	}
	return p.String()
}

// result is how a job ended, in a word.
func result(j *wire.Job) string {
	switch {
	case j.Signal != "":
		return "SIG" + strings.TrimPrefix(j.Signal, "SIG")
	case j.ExitCode != nil:
		return "exit " + strconv.Itoa(*j.ExitCode)
	}
	return j.Code
}

func subject(s wire.Subject) string {
	text := s.User
	if len(s.Roles) > 0 {
		text += " (" + strings.Join(s.Roles, ", ") + ")"
	}
	if s.By != "" {
		text += " by " + s.By
	}
	return strings.TrimSpace(text)
}

// took is how long a job has been running, or ran.
func (a *app) took(j *wire.Job) string {
	switch {
	case j.Started.IsZero():
		return ""
	case !j.Ended.IsZero():
		return span(j.Ended.Sub(j.Started))
	case j.Done():
		return ""
	}
	return span(a.now().Sub(j.Started))
}

func (a *app) jobText(j *wire.Job) string {
	var p page
	p.row("Job", j.ID)
	state := j.State
	if r := result(j); r != "" {
		state += ", " + r
	}
	if j.CoreDumped {
		state += ", core dumped"
	}
	p.row("State", state)
	if j.Code != "" || j.Reason != "" {
		p.row("Why", strings.Trim(j.Code+": "+j.Reason, ": "))
	}
	p.row("Client", fmt.Sprintf("%s, realm %s, subject %s", j.Client, j.Realm, cmp.Or(subject(j.Subject), "without a name")))
	asUser := fmt.Sprintf("%s, account %s", j.BatchUser, cmp.Or(j.User, "unknown"))
	if j.CredentialVersion > 0 {
		asUser += fmt.Sprintf(", version %d", j.CredentialVersion)
	}
	p.row("Batch user", asUser)
	if j.PID > 0 {
		p.row("Process", strconv.Itoa(j.PID))
	}
	for _, t := range []struct {
		name string
		at   time.Time
	}{{"Started", j.Started}, {"Ended", j.Ended}} {
		if !t.at.IsZero() {
			p.row(t.name, t.at.UTC().Format("2006-01-02 15:04:05.000 UTC")+", "+a.when(t.at))
		}
	}
	if j.Rusage != nil {
		p.row("Used", fmt.Sprintf("%.3f s of CPU, %s of memory at most", j.Rusage.CPUSeconds, octets(j.Rusage.MaxRSS)))
	}
	if j.Survivors > 0 {
		p.row("Survivors", fmt.Sprintf("%d processes outlived it and were killed", j.Survivors))
	}
	if len(j.Withheld) > 0 {
		p.row("Withheld", strings.Join(j.Withheld, ", "))
	}
	if j.CommandSHA256 != "" {
		p.row("Command", "sha256 "+j.CommandSHA256)
	}
	if j.DecisionID != "" {
		p.row("Decision", j.DecisionID)
	}
	return p.String()
}

// named is the subject of what is done with a job: nobody unless a flag names somebody.
func (q *question) named() (subject wire.Subject, object json.RawMessage, err error) {
	object, err = q.object()
	return wire.Subject{User: q.subject, Roles: q.roles, By: q.by}, object, err
}

func (a *app) signalCommand() *cobra.Command {
	var q question
	var grace time.Duration
	cmd := &cobra.Command{
		Use:   "signal ID [SIGNAL]",
		Short: "Send a signal (TERM) to every process of a job",
		Long: `Send a signal (TERM) to every process of a job. CANCEL in its place is TERM, and KILL for those that are left after the
grace; the job then ends as failed with job.canceled, which a scheduler tells apart from a job that failed by itself.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: a.ask(func(ctx context.Context, c *client.Client, args []string) error {
			subject, object, err := q.named()
			if err != nil {
				return err
			}
			body := wire.Signal{Signal: "TERM", Grace: wire.Duration(grace), Subject: subject, Object: object}
			if len(args) > 1 {
				body.Signal = strings.TrimPrefix(args[1], "SIG")
			}
			job, err := c.Signal(ctx, args[0], body)
			if err != nil {
				return err
			}
			return a.show(job, fmt.Sprintf("%s sent to job %s, which was %s.\n", body.Signal, cell(job.ID), job.State))
		}),
	}
	cmd.Flags().DurationVar(&grace, "grace", 0, "KILL for those that are left after this time; for CANCEL that of the configuration unless given")
	q.subjectFlags(cmd)
	return cmd
}

func (a *app) outputCommand() *cobra.Command {
	var q question
	var fromStderr, follow bool
	cmd := &cobra.Command{
		Use:   "output ID",
		Short: "Copy what a job has written to stdout, or with --stderr to its stderr",
		Args:  cobra.ExactArgs(1),
		RunE: a.ask(func(ctx context.Context, c *client.Client, args []string) error {
			id, s := args[0], &stream{name: client.Stdout, to: a.out}
			if fromStderr {
				s.name = client.Stderr
			}
			var err error
			if s.from.Subject, s.from.Object, err = q.named(); err != nil {
				return err
			}
			// The first look tells whether there is such a job.
			if _, err := s.copy(ctx, c, id); err != nil || !follow {
				return err
			}
			_, err = a.follow(ctx, c, id, []*stream{s})
			return err
		}),
	}
	cmd.Flags().BoolVar(&fromStderr, "stderr", false, "the job's stderr instead of its stdout")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the job has ended")
	q.subjectFlags(cmd)
	return cmd
}
