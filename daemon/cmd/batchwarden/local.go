package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"batchwarden/daemon/config"
	"batchwarden/daemon/policy"
	"batchwarden/daemon/policy/opcon"
	"batchwarden/daemon/strict"
	"batchwarden/daemon/version"
)

// maxDocument bounds a policy document that is read from a file.
const maxDocument = 64 << 20

// models are the kinds of policy that this version evaluates.
func models() map[string]policy.Model {
	return map[string]policy.Model{
		"opcon": opcon.Model{},
	}
}

// parent is a command that only has others below it.
func parent(name, short string, children ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			return fmt.Errorf("%s is not a command by itself; it wants another word after it", name)
		},
	}
	cmd.AddCommand(children...)
	return cmd
}

func (a *app) configCommand() *cobra.Command {
	var limits string
	check := &cobra.Command{
		Use:   "check [FILE]",
		Short: "Check a configuration, without the service and without root; exit code 78 when it has faults",
		Long: `Check batchwarden.yaml, or FILE, with clients.d beside it, and with --limits a limits.yaml. Faults are printed with
file, line, column and place, all of them at once. What is right in itself and would still be refused where it lies, such
as a file that others can write, is a warning.`,
		Args: cobra.MaximumNArgs(1),
		RunE: do(func(_ *cobra.Command, args []string) error {
			file := config.DefaultFile
			if len(args) == 1 {
				file = args[0]
			}
			return a.checkConfig(file, limits)
		}),
	}
	check.Flags().StringVar(&limits, "limits", "", "check this limits.yaml too")
	return parent("config", "Check a configuration", check)
}

// verdict is what config check prints as JSON.
type verdict struct {
	Valid    bool     `json:"valid"`
	Files    []string `json:"files"`
	Faults   []fault  `json:"faults"`
	Warnings []string `json:"warnings"`
}

type fault struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	Place  string `json:"place,omitempty"`
	Text   string `json:"text"`
}

func (a *app) checkConfig(file, limits string) error {
	v := verdict{Files: []string{file}, Faults: []fault{}, Warnings: []string{}}
	c, warnings, err := config.Check(file)
	if c != nil {
		v.Files = c.Files
	}
	v.Warnings = append(v.Warnings, warnings...)
	all := faultsOf(file, err)
	if limits != "" {
		v.Files = append(v.Files, limits)
		_, warnings, err := config.CheckLimits(limits)
		v.Warnings = append(v.Warnings, warnings...)
		all = append(all, faultsOf(limits, err)...)
	}
	for _, f := range all {
		v.Faults = append(v.Faults, fault(f))
	}
	v.Valid = len(all) == 0
	if a.json {
		if err := a.print(v); err != nil {
			return err
		}
	} else {
		for _, w := range v.Warnings {
			fmt.Fprintf(a.errs, "warning: %s\n", clean(w))
		}
		for _, f := range all {
			fmt.Fprintln(a.errs, clean(f.String()))
		}
	}
	if !v.Valid {
		return &failure{exitConfig, fmt.Errorf("%s is not a valid configuration: %s; nothing was changed", file, counted(len(all), "fault"))}
	}
	if a.json {
		return nil
	}
	_, err = fmt.Fprintf(a.out, "%s: ok, %s\n", strings.Join(v.Files, ", "), counted(len(v.Warnings), "warning"))
	return err
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// faultsOf are the faults that an error is, nil for none.
func faultsOf(file string, err error) strict.Faults {
	if err == nil {
		return nil
	}
	if fs, are := errors.AsType[strict.Faults](err); are {
		return fs
	}
	return strict.Faults{{File: file, Text: err.Error()}}
}

func (a *app) policyCommand() *cobra.Command {
	var file string
	var explain bool
	eval := &cobra.Command{
		Use:   "eval --policy FILE [--explain] < REQUESTS.jsonl",
		Short: "Decide requests by a policy document in a file, without the service",
		Long: `Read one request per line, {"subject":{...},"action":"...","object":{...}}, and write one decision per line, in the
same order, as JSON. With --explain each decision has its trace. A document that is refused: its faults on stderr and
exit code 78.`,
		Args: cobra.NoArgs,
		RunE: do(func(*cobra.Command, []string) error {
			if file == "" {
				return usage("no document is given; name one with --policy")
			}
			engine, err := compile(file, models())
			if err != nil {
				return err
			}
			return a.eval(engine, explain)
		}),
	}
	eval.Flags().StringVar(&file, "policy", "", "the document, JSON or YAML (required)")
	eval.Flags().BoolVar(&explain, "explain", false, "add to each decision how it came about")
	return parent("policy", "Try out a policy document", eval)
}

// compile reads a policy document by the model that it names. A document that is refused is exit code 78.
func compile(file string, known map[string]policy.Model) (policy.Engine, error) {
	refused := func(err error) (policy.Engine, error) { return nil, &failure{exitConfig, err} }
	text, err := readDocument(file)
	if err != nil {
		return refused(fmt.Errorf("policy %s cannot be read: %w", file, err))
	}
	doc, err := strict.Parse(file, text)
	if err != nil {
		return refused(err)
	}
	var head struct {
		Model string `json:"model"`
	}
	doc.Decode(&head) // what it says of the other members is the model's business
	model, is := known[head.Model]
	switch {
	case head.Model == "":
		return refused(fmt.Errorf("%s: model: is missing or not a text; known: %s", file, names(known)))
	case !is:
		return refused(fmt.Errorf("%s: model: %q is not supported by this version; known: %s", file, head.Model, names(known)))
	}
	engine, err := model.Parse(file, text)
	if err != nil {
		return refused(err)
	}
	return engine, nil
}

func readDocument(file string) (text []byte, err error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	text, err = io.ReadAll(io.LimitReader(f, maxDocument+1))
	if err == nil && len(text) > maxDocument {
		err = fmt.Errorf("it is longer than %d octets", maxDocument)
	}
	return text, err
}

// answer is one line that eval writes.
type answer struct {
	Allowed  bool          `json:"allowed"`
	Code     string        `json:"code"`
	Rule     string        `json:"rule"`
	Reason   string        `json:"reason"`
	Withheld []string      `json:"withheld,omitempty"`
	Trace    *policy.Trace `json:"trace,omitempty"`
}

// eval answers each line of the input by one line. A line that is no request gets its answer too: a denial that says so.
func (a *app) eval(engine policy.Engine, explain bool) error {
	in := bufio.NewReaderSize(a.in, 64<<10)
	out := bufio.NewWriterSize(a.out, 64<<10)
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	for {
		line, err := readLine(in)
		if err == io.EOF {
			return out.Flush()
		}
		if err != nil {
			return errors.Join(fmt.Errorf("requests cannot be read: %w", err), out.Flush())
		}
		if err := e.Encode(decide(engine, line, explain)); err != nil {
			return fmt.Errorf("decisions cannot be written: %w", err)
		}
		if in.Buffered() == 0 { // somebody may be waiting for the answer before he asks on
			if err := out.Flush(); err != nil {
				return fmt.Errorf("decisions cannot be written: %w", err)
			}
		}
	}
}

func decide(engine policy.Engine, line []byte, explain bool) answer {
	r, err := policy.ParseRequest(line)
	if err != nil {
		return answer{Code: policy.Invalid, Reason: strings.TrimPrefix(err.Error(), "policy: ")}
	}
	var d policy.Decision
	var trace *policy.Trace
	if explain {
		d, trace = engine.Explain(&r)
	} else {
		d = engine.Decide(&r)
	}
	if !d.Allowed && d.Code == "" {
		d.Code = policy.Denied
	}
	return answer{d.Allowed, d.Code, d.Rule, d.Reason, d.Withheld, trace}
}

// readLine returns a line without its end. Of a line that no request can be as long as, it returns enough for that to
// be noticed.
func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		if len(line) <= policy.MaxRequest {
			line = append(line, part...)
		}
		switch {
		case err == bufio.ErrBufferFull:
			continue
		case err == io.EOF && len(line) > 0, err == nil:
			return []byte(strings.TrimRight(string(line), "\r\n")), nil
		}
		return nil, err
	}
}

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  cobra.NoArgs,
		RunE: do(func(*cobra.Command, []string) error {
			v := build{version.Number, version.Commit, runtime.Version()}
			return a.show(v, fmt.Sprintf("batchwarden %s (commit %s, %s)\n", v.Version, v.Commit, v.Go))
		}),
	}
}

type build struct {
	Version string `json:"version"`
	Commit  string `json:"commit"`
	Go      string `json:"go"`
}
