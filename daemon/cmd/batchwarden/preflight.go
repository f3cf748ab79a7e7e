package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"batchwarden/daemon/config"
	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
)

// inFlight is how many jobs preflight asks about at one time, and so how many lines it holds.
const inFlight = 4

func (a *app) preflightCommand() *cobra.Command {
	var as string
	cmd := &cobra.Command{
		Use:   "preflight FILE",
		Short: "Say of tonight's jobs which would not be started; exit code 1 when there is one",
		Long: `Go through the launches in FILE, or - for stdin, as explain does, and start none: each line is the body of a launch as the
API has it, in JSON, and may have a member "client", the name of the client entry that will launch it. One line of text
for each job says ok, or which step would refuse it and why; a summary ends it. With --json each line is a JSON object, and
so is the summary, the last one.

  {"client":"opcon-lsam","realm":"opcon","subject":{"user":"jdoe"},"batch_user":"payroll","command":["/opt/pay/run.sh"]}

Exit codes: 0 all would be started; 1 one would not, or its line is no launch; 64 the file cannot be read; 77 not permitted.
For operators, and clients that may explain.`,
		Args: cobra.ExactArgs(1),
		RunE: a.ask(func(ctx context.Context, c *client.Client, args []string) error {
			in := a.in
			if args[0] != "-" {
				f, err := os.Open(args[0])
				if err != nil {
					return usage("%w", err)
				}
				defer f.Close() // only read
				in = f
			}
			return a.preflight(ctx, c, in, as)
		}),
	}
	cmd.Flags().StringVar(&as, "client", "", "for lines that name no client: as if this one asked, by the name of its entry")
	return cmd
}

// flight is one line of the file and what came of it.
type flight struct {
	Line  int         `json:"line"`
	OK    bool        `json:"ok"`
	ID    string      `json:"id,omitempty"`
	Job   string      `json:"-"` // in words
	Step  string      `json:"step,omitempty"`
	Code  string      `json:"code,omitempty"`
	Why   string      `json:"reason,omitempty"`
	Fix   *remedy     `json:"remedy,omitempty"`
	Dim   int         `json:"unseen,omitempty"` // steps that could not be looked at
	fatal error       // for this line and all others
	body  wire.Launch // as far as it is one
}

// tally is the last line of preflight.
type tally struct {
	Jobs  int            `json:"jobs"`
	OK    int            `json:"ok"`
	Codes map[string]int `json:"codes,omitempty"` // of those that are not
}

// preflight asks about each line, a few at one time, and tells in their order.
func (a *app) preflight(ctx context.Context, c *client.Client, in io.Reader, as string) error {
	w, err := c.Whoami(ctx)
	if err != nil {
		return err
	}
	if !w.Operator && !slices.Contains(w.May, config.MayExplain) {
		return wire.NewProblem(wire.CallerForbidden, "preflight is for operators, and clients that may explain")
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	asked := make(chan chan flight, inFlight-1) // in the order of the lines
	var broken error                            // of reading; read when asked is closed
	go func() {                                 // ends with the file, or with ctx
		defer close(asked)
		broken = eachLine(in, wire.MaxBody, func(n int, line []byte, long bool) bool {
			answer := make(chan flight, 1)
			select {
			case asked <- answer:
			case <-ctx.Done():
				return false
			}
			if long {
				answer <- flight{Line: n, Code: wire.RequestTooLarge, Why: fmt.Sprintf("the line has more than %d octets", wire.MaxBody)}
				return true
			}
			go func() { answer <- fly(ctx, c, n, line, as) }() // ends with its answer, or with ctx
			return true
		})
	}()
	s := tally{Codes: map[string]int{}}
	for answer := range asked {
		f := <-answer
		if f.fatal != nil {
			return f.fatal
		}
		s.Jobs++
		if f.OK {
			s.OK++
		} else {
			s.Codes[f.Code]++
		}
		if err := a.tellFlight(&f); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if broken != nil {
		return usage("%w", broken)
	}
	return a.sumUp(&s)
}

// fly asks about one launch.
func fly(ctx context.Context, c *client.Client, n int, line []byte, as string) flight {
	f := flight{Line: n}
	body, client, err := launchIn(line)
	if err != nil {
		f.Code, f.Why = wire.RequestInvalid, err.Error()
		return f
	}
	_ = json.Unmarshal(body, &f.body) // what is wrong with it the service says
	f.ID = f.body.ID
	f.Job = fmt.Sprintf("%s as %s for %s in %s", runs(&f.body), cmp.Or(f.body.BatchUser, "nobody"), cmp.Or(subject(f.body.Subject), "nobody"), cmp.Or(f.body.Realm, "no realm"))
	d, err := patiently(ctx, func() (*wire.DryRun, error) { return c.Explain(ctx, body, cmp.Or(client, as)) })
	if p, refused := errors.AsType[*wire.Problem](err); refused && p.Code != wire.CallerUnknown && p.Code != wire.AuditUnavailable {
		f.Step, f.Code, f.Why = "request", p.Code, p.Detail
		return f
	}
	if err != nil {
		f.fatal = err
		return f
	}
	f.OK, f.Code, f.Dim = d.Start, d.Code, unseen(d)
	if first, _ := refusals(d); first != nil {
		f.Step, f.Why, f.Fix = first.Step, first.Detail, remedyFor(d, &f.body)
	}
	return f
}

// patiently asks again whenever the service says that it is too much at once.
func patiently[T any](ctx context.Context, ask func() (T, error)) (T, error) {
	for {
		v, err := ask()
		p, refused := errors.AsType[*wire.Problem](err)
		if !refused || p.Code != wire.Overloaded {
			return v, err
		}
		select {
		case <-ctx.Done():
			return v, ctx.Err()
		case <-time.After(time.Duration(max(1, p.RetryAfter)) * time.Second):
		}
	}
}

// launchIn takes the member client from a line. All else stays as it is, for the service to judge.
func launchIn(line []byte) (body json.RawMessage, client string, err error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(line, &members); err != nil || members == nil {
		if syntax, is := errors.AsType[*json.SyntaxError](err); is {
			return nil, "", fmt.Errorf("the line is not JSON: octet %d: %w", syntax.Offset, err)
		}
		return nil, "", errors.New("the line is not a JSON object")
	}
	name, given := members["client"]
	if !given {
		return line, "", nil
	}
	if err := json.Unmarshal(name, &client); err != nil || client == "" {
		return nil, "", errors.New("client is not the name of a client entry")
	}
	delete(members, "client")
	body, err = json.Marshal(members)
	return body, client, err
}

// eachLine gives the lines that are not blank to hear, with their numbers, until it returns false. One that is longer than
// most is given without its text.
func eachLine(in io.Reader, most int, hear func(n int, line []byte, long bool) bool) error {
	r := bufio.NewReaderSize(in, 64<<10)
	for n := 1; ; n++ {
		var line []byte
		long := false
		var err error
		for more := true; more; {
			var part []byte
			part, err = r.ReadSlice('\n')
			more = errors.Is(err, bufio.ErrBufferFull)
			if long = long || len(line)+len(part) > most+1; long {
				line = nil
				continue
			}
			line = append(line, part...)
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if line = bytes.TrimSpace(line); (len(line) > 0 || long) && !hear(n, line, long) || err != nil {
			return nil
		}
	}
}

func (a *app) tellFlight(f *flight) error {
	if a.json {
		return a.printLine(f)
	}
	text := "ok"
	switch {
	case !f.OK:
		text = "NO"
	case f.Dim > 0:
		text = "--"
	}
	text = fmt.Sprintf("%s  line %d", text, f.Line) + named(", job ", cell(f.ID)) + named(": ", cell(f.Job))
	switch {
	case f.Step != "":
		text += fmt.Sprintf(": %s: %s: %s", stepName(f.Step), cell(f.Code), cell(f.Why))
	case !f.OK:
		text += fmt.Sprintf(": %s: %s", cell(f.Code), cell(f.Why))
	case f.Dim > 0:
		text += fmt.Sprintf(": ok, but for %s that could not be looked at", counted(f.Dim, "step"))
	}
	if f.Fix != nil {
		text += "\n      " + cell(f.Fix.short())
	}
	_, err := fmt.Fprintln(a.out, text)
	return err
}

// printLine writes v as one line of JSON.
func (a *app) printLine(v any) error {
	e := json.NewEncoder(a.out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func (a *app) sumUp(s *tally) error {
	var err error
	switch bad := s.Jobs - s.OK; {
	case a.json:
		err = a.printLine(map[string]*tally{"summary": s})
	case s.Jobs == 0:
		_, err = fmt.Fprintln(a.out, "There are no jobs in the file.")
	case bad == 0:
		_, err = fmt.Fprintf(a.out, "All would be started: %s.\n", counted(s.Jobs, "job"))
	default:
		_, err = fmt.Fprintf(a.out, "%d of %s would not be started: %s.\n", bad, counted(s.Jobs, "job"), counts(s.Codes))
	}
	if err != nil || s.OK == s.Jobs {
		return err
	}
	return no
}
