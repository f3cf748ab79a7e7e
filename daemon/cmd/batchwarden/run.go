package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
)

// launch is what run's flags say beyond the question.
type launch struct {
	what
	id      string
	dir     string
	env     []string
	timeout time.Duration
	stdio   string
	detach  bool
	dry     bool
}

func (l *launch) flags(cmd *cobra.Command) {
	l.what.flags(cmd)
	f := cmd.Flags()
	f.StringVar(&l.id, "id", "", "the job's id: the same command with the same id never starts a second job (default: a new one)")
	f.StringVar(&l.dir, "dir", "", "the job's working directory (default: the account's home)")
	f.StringArrayVar(&l.env, "env", nil, "a variable `K=V` of the job's environment; may be given again")
	f.DurationVar(&l.timeout, "timeout", 0, "end the job after this time, such as 8h (default: never)")
	f.BoolVar(&l.dry, "dry-run", false, "start nothing, and show what every step would say; exit code 1 when one would refuse")
	f.StringVar(&l.stdio, "stdio", "capture", "capture what the job writes, give it this command's own stdin, stdout and stderr (passed), or null")
	f.BoolVar(&l.detach, "detach", false, "print the job's id and do not wait for its end")
}

func (a *app) runCommand() *cobra.Command {
	var q question
	var l launch
	cmd := &cobra.Command{
		Use:   "run --realm R --as BATCH_USER [--subject U] [--object K=V]... [--id ID] [--detach] {-- COMMAND [ARG...] | --command-line LINE | --script FILE [-- ARG...]}",
		Short: "Run a command as a batch user",
		Long: `Run a command as a batch user, show what it writes, and end as it ends.

Exit codes: the job's own; 128+N when signal N ended it; 125 when it was not started, with the code and the reason
on stderr; 1 when how it ended cannot be known; 64 usage; 69 the service does not answer. Ctrl-C ends this command
and not the job. With --json the job is printed at its end instead of what it wrote.

With --stdio passed the job reads and writes this command's own files: nothing is kept of what it writes, and it has
them also when this command has ended.`,
		RunE: a.ask(func(ctx context.Context, c *client.Client, args []string) error {
			body, err := l.body(&q, args)
			if err != nil {
				return err
			}
			if err := l.fill(&body, args, a.in); err != nil {
				return err
			}
			if body.Subject, err = q.asked(ctx, c); err != nil {
				return err
			}
			if l.dry {
				return a.dryRun(ctx, c, body)
			}
			return a.launch(ctx, c, body, l.detach)
		}),
	}
	q.launchFlags(cmd)
	l.flags(cmd)
	cmd.Flags().SetInterspersed(false) // what follows the command's name is the command's
	return cmd
}

// body is the launch that the flags ask for, without its subject and what runs.
func (l *launch) body(q *question, args []string) (wire.Launch, error) {
	var none wire.Launch
	if err := q.check(); err != nil {
		return none, err
	}
	switch {
	case q.as == "":
		return none, usage("no batch user is given; name one with --as (batchwarden batch-users lists them)")
	case l.timeout < 0:
		return none, usage("--timeout %v is negative", l.timeout)
	}
	if err := l.check(args, l.stdio); err != nil {
		return none, err
	}
	object, err := q.object()
	if err != nil {
		return none, err
	}
	env := make(map[string]string, len(l.env))
	for _, e := range l.env {
		name, value, ok := strings.Cut(e, "=")
		if !ok || name == "" {
			return none, usage("--env %q is not a variable; write it as name=value", e)
		}
		if _, twice := env[name]; twice {
			return none, usage("--env %s is given twice", name)
		}
		env[name] = value
	}
	id := l.id
	if id == "" {
		id = "cli-" + strings.ToLower(rand.Text())
	}
	return wire.Launch{
		ID: id, Realm: q.realm, Object: object, BatchUser: q.as, Dir: l.dir, Env: env,
		Timeout: wire.Duration(l.timeout), Stdio: cmp.Or(l.stdio, captured),
	}, nil
}

// launch starts the job and, unless it is detached, follows it to its end.
func (a *app) launch(ctx context.Context, c *client.Client, body wire.Launch, detach bool) error {
	job, again, err := a.start(ctx, c, body)
	if err != nil {
		return notStarted(body.ID, err)
	}
	if again {
		a.note("job %s was started before, by the same command; this is that job", job.ID)
	}
	if job.State == wire.Failed && !ran(job) {
		return a.ended(job)
	}
	if detach {
		return a.show(job, cell(job.ID)+"\n")
	}
	s := []*stream{{name: client.Stdout, to: a.out}, {name: client.Stderr, to: a.errs}}
	if a.json || body.Stdio != captured {
		s = nil
	}
	id := job.ID
	job, err = a.follow(ctx, c, id, s)
	if err != nil {
		return stillRunning(id, err)
	}
	return a.ended(job)
}

// captured is the value of stdio with which the service keeps what a job writes.
const captured = "capture"

// start launches the job, with our own files where that is asked for.
func (a *app) start(ctx context.Context, c *client.Client, body wire.Launch) (*wire.Job, bool, error) {
	if body.Stdio != "passed" {
		return c.Launch(ctx, body)
	}
	var files [3]*os.File
	for i, f := range []any{a.in, a.out, a.errs} {
		var is bool
		if files[i], is = f.(*os.File); !is {
			return nil, false, usage("there is no file to pass")
		}
	}
	return c.LaunchWith(ctx, body, files[0], files[1], files[2])
}

// notStarted is the error of a launch that got no job.
func notStarted(id string, err error) error {
	_, refused := errors.AsType[*wire.Problem](err)
	switch {
	case refused:
		return &failure{exitNotStarted, fmt.Errorf("not started: %w", err)}
	case errors.Is(err, context.Canceled):
		return &failure{exitInterrupted, fmt.Errorf("interrupted; whether job %s was started, batchwarden jobs %s tells", id, id)}
	case errors.Is(err, client.ErrUnreachable):
		return fmt.Errorf("%w; if it broke off just now, the same command with --id %s starts the job at most once", err, id)
	}
	return err
}

// stillRunning is the error of a job that could not be followed to its end.
func stillRunning(id string, err error) error {
	text := fmt.Sprintf("job %s goes on; batchwarden jobs %s shows its state, batchwarden output %s what it wrote", id, id, id)
	if errors.Is(err, context.Canceled) {
		return &failure{exitInterrupted, errors.New("interrupted: " + text)}
	}
	return fmt.Errorf("%w; %s", err, text)
}

// ended makes the job's end this command's end.
func (a *app) ended(job *wire.Job) error {
	if a.json {
		if err := a.print(job); err != nil {
			return err
		}
	}
	code, text := end(job)
	if code == exitOK {
		return nil
	}
	if text == "" {
		return &failure{code: code}
	}
	return &failure{code, errors.New(text)}
}

// ran tells a failed job that was stopped at its timeout from one that never began.
func ran(job *wire.Job) bool { return job.Signal != "" || job.ExitCode != nil }

// end is the exit code of a job that has ended, and what there is to say about it.
func end(job *wire.Job) (code int, text string) {
	switch {
	case job.State == wire.Failed && !ran(job):
		return exitNotStarted, fmt.Sprintf("not started: job %s: %s: %s", job.ID, job.Code, cmp.Or(job.Reason, "no reason is known"))
	case job.State == wire.Lost:
		return exitNo, fmt.Sprintf("job %s is lost: how it ended cannot be known: %s", job.ID, cmp.Or(job.Reason, cmp.Or(job.Code, "no reason is known")))
	case job.Signal != "":
		text = fmt.Sprintf("job %s was ended by %s", job.ID, job.Signal)
		if job.CoreDumped {
			text += " and left a core"
		}
		if job.Code != "" {
			text += fmt.Sprintf(" (%s: %s)", job.Code, job.Reason)
		}
		return exitSignal + signalNumber(job.Signal), text
	case job.ExitCode == nil:
		return exitNo, fmt.Sprintf("job %s is %s without an exit code", job.ID, job.State)
	case job.State == wire.Failed: // stopped, and it took that well; a 0 must not look like success
		return max(*job.ExitCode, exitNo), fmt.Sprintf("job %s failed: %s: %s", job.ID, job.Code, job.Reason)
	}
	return *job.ExitCode, ""
}

// signals are the names of 1, 2, 3 … on Linux.
const signals = "HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT " +
	"CHLD CONT STOP TSTP TTIN TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS"

// signalNumber is the number of a signal by its name, with or without SIG, or by itself; 0 when it is not known.
func signalNumber(name string) int {
	name = strings.TrimPrefix(name, "SIG")
	for i, s := range strings.Fields(signals) {
		if s == name {
			return i + 1
		}
	}
	if n, err := strconv.Atoi(name); err == nil && n > 0 && n < 128 {
		return n
	}
	return 0
}

// note says something on the side.
func (a *app) note(format string, args ...any) {
	fmt.Fprintf(a.errs, "batchwarden: %s\n", clean(fmt.Sprintf(format, args...)))
}
