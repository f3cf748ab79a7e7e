// Command batchwarden is the operator's and the scripts' way to the batchwarden service: it asks over the service's
// socket, and does the few things that need no service: checking a configuration, trying out a policy.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"time"

	"github.com/spf13/cobra"

	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
)

// Exit codes. Scripts rely on them.
const (
	exitOK          = 0
	exitNo          = 1 // denied, unhealthy, or it did not work
	exitUsage       = 64
	exitUnreachable = 69
	exitForbidden   = 77
	exitConfig      = 78
	exitNotStarted  = 125 // of run
	exitInterrupted = 130 // by Ctrl-C
	exitSignal      = 128 // of run, plus the number of the signal that ended the job
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	a := &app{in: os.Stdin, out: os.Stdout, errs: os.Stderr, now: time.Now, socket: os.Getenv("BATCHWARDEN_SOCKET")}
	code := a.run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

// app is one run of the program and where it reads and writes.
type app struct {
	in   io.Reader
	out  io.Writer
	errs io.Writer
	now  func() time.Time

	socket string
	json   bool
}

// run does what the arguments say and returns the exit code.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root()
	root.SetArgs(append([]string{}, args...)) // nil would mean os.Args
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.errs)
	used, err := root.ExecuteContextC(ctx)
	code := exitCode(err)
	if err != nil && err.Error() != "" {
		fmt.Fprintf(a.errs, "batchwarden: %s\n", clean(err.Error()))
		next := advice(err)
		if code == exitUsage && next == "" {
			next = howUsed(used)
		}
		if next != "" {
			fmt.Fprintf(a.errs, "%s\n", next)
		}
	}
	return code
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "batchwarden",
		Short: "Ask the batchwarden service of this machine",
		Long: `batchwarden asks the service of this machine who may run which job as which batch user, runs jobs, and shows
how the service is.

Exit codes: 0 yes; 1 no (denied, unhealthy); 64 usage; 69 the service does not answer; 77 not permitted;
78 bad configuration or document. run has the job's own: see batchwarden run --help.`,
		Args:          cobra.NoArgs,
		SilenceErrors: true,
		SilenceUsage:  true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return errors.New("no command is given")
		},
	}
	if a.socket == "" {
		a.socket = client.DefaultSocket
	}
	root.PersistentFlags().StringVar(&a.socket, "socket", a.socket, "the service's socket; also in the environment as BATCHWARDEN_SOCKET")
	root.PersistentFlags().BoolVar(&a.json, "json", false, "print data as JSON")
	root.AddCommand(
		a.statusCommand(), a.whoamiCommand(), a.syncCommand(), a.reloadCommand(), a.suspendCommand(), a.resumeCommand(), a.logLevelCommand(),
		a.runCommand(), a.authorizeCommand(), a.explainCommand(), a.preflightCommand(),
		a.batchUsersCommand(), a.verifyCommand(), a.retrieveCommand(),
		a.jobsCommand(), a.outputCommand(), a.signalCommand(), a.auditCommand(), a.metricsCommand(),
		a.doctorCommand(), a.configCommand(), a.policyCommand(), a.adminCommand(), a.setupCommand(), a.supportCommand(), a.versionCommand(), a.manCommand(),
	)
	root.AddCommand(topicCommands()...)
	a.complete(root)
	return root
}

// a command that asks the service.
type asking func(ctx context.Context, c *client.Client, args []string) error

// ask makes a command's RunE of what it asks the service.
func (a *app) ask(f asking) func(*cobra.Command, []string) error {
	return do(func(cmd *cobra.Command, args []string) error {
		c := client.New(a.socket)
		defer c.Close()
		defer a.sayWaiting(cmd.Context())()
		return f(cmd.Context(), c, args)
	})
}

// plain is a command without arguments that shows what one call answers.
func plain[T any](a *app, name, short string, call func(*client.Client, context.Context) (T, error), text func(T) string) *cobra.Command {
	return &cobra.Command{
		Use:   name,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: a.ask(func(ctx context.Context, c *client.Client, _ []string) error {
			v, err := call(c, ctx)
			if err != nil {
				return err
			}
			return a.show(v, text(v))
		}),
	}
}

// do marks the errors of f as a command's own: what cobra itself says about arguments stays a usage error.
func do(f func(*cobra.Command, []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		err := f(cmd, args)
		if err == nil {
			return nil
		}
		if _, is := errors.AsType[*failure](err); is {
			return err
		}
		return &failure{codeOf(err), err}
	}
}

// failure is an error that knows its exit code. Without an error it is a plain "no", already said in words.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string {
	if f.err == nil {
		return ""
	}
	return f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

// no is the exit code 1 after an answer that was printed.
var no = &failure{code: exitNo}

func usage(format string, args ...any) error { return &failure{exitUsage, fmt.Errorf(format, args...)} }

func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if f, is := errors.AsType[*failure](err); is {
		return f.code
	}
	return exitUsage
}

// codeOf is the exit code of an error that a call returned.
func codeOf(err error) int {
	if p, is := errors.AsType[*wire.Problem](err); is {
		switch {
		case p.Code == wire.CallerUnknown, p.Code == wire.CallerForbidden:
			return exitForbidden
		case p.Status == 400 || p.Code == wire.RequestTooLarge:
			return exitUsage
		}
		return exitNo
	}
	switch {
	case errors.Is(err, client.ErrUnreachable):
		return exitUnreachable
	case errors.Is(err, context.Canceled):
		return exitInterrupted
	}
	return exitNo
}
