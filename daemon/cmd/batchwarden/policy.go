package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"batchwarden/daemon/policy"
	"batchwarden/daemon/policy/automic"
	"batchwarden/daemon/policy/opcon"
	"batchwarden/daemon/policy/stonebranch"
	"batchwarden/daemon/strict"
)

// maxDocument bounds a policy document that is read from a file.
const maxDocument = 64 << 20

// models are the kinds of policy that this version evaluates.
func models() map[string]policy.Model {
	return map[string]policy.Model{
		"automic":     automic.Model{},
		"opcon":       opcon.Model{},
		"stonebranch": stonebranch.Model{},
	}
}

func (a *app) policyCommand() *cobra.Command {
	return parent("policy", "Check, try out and compare policy documents, without the service",
		a.lintCommand(), a.evalCommand(), a.diffCommand())
}

func (a *app) evalCommand() *cobra.Command {
	var file string
	var explain bool
	eval := &cobra.Command{
		Use:   "eval --policy FILE [--explain] < REQUESTS.jsonl",
		Short: "Decide requests by a policy document in a file, without the service",
		Long: `Read one request per line, {"subject":{...},"action":"...","object":{...}}, and write one decision per line, in the
same order, as JSON. With --explain each decision has its trace, which is also written to stderr as text for people;
--json leaves the text out. A document that is refused: its faults on stderr and exit code 78.`,
		Args: cobra.NoArgs,
		RunE: do(func(*cobra.Command, []string) error {
			if file == "" {
				return usage("no document is given; name one with --policy")
			}
			doc, err := open(file, models())
			if err != nil {
				return err
			}
			engine, err := doc.compile()
			if err != nil {
				return err
			}
			return a.eval(engine, explain)
		}),
	}
	eval.Flags().StringVar(&file, "policy", "", "the document, JSON or YAML (required)")
	eval.Flags().BoolVar(&explain, "explain", false, "add to each decision how it came about")
	return eval
}

// A source is the text of a policy document and the model that it names.
type source struct {
	file  string
	text  []byte
	name  string // of the model
	model policy.Model
}

// open reads a document and finds its model. A document that is refused is exit code 78.
func open(file string, known map[string]policy.Model) (*source, error) {
	text, err := readDocument(file)
	if err != nil {
		return nil, &failure{exitConfig, fmt.Errorf("policy %s cannot be read: %w", file, err)}
	}
	return understood(file, text, known)
}

// understood is open for a text that was read already.
func understood(file string, text []byte, known map[string]policy.Model) (*source, error) {
	refused := func(err error) (*source, error) { return nil, &failure{exitConfig, err} }
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
	return &source{file, text, head.Model, model}, nil
}

func (s *source) compile() (policy.Engine, error) {
	engine, err := s.model.Parse(s.file, s.text)
	if err != nil {
		return nil, &failure{exitConfig, err}
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

func answerOf(d policy.Decision, trace *policy.Trace) answer {
	if !d.Allowed && d.Code == "" {
		d.Code = policy.Denied
	}
	return answer{d.Allowed, d.Code, d.Rule, d.Reason, d.Withheld, trace}
}

// eval answers each line of the input by one line. A line that is no request gets its answer too: a denial that says so.
func (a *app) eval(engine policy.Engine, explain bool) error {
	out := bufio.NewWriterSize(a.out, 64<<10)
	e := json.NewEncoder(out)
	e.SetEscapeHTML(false)
	flush := func() error {
		if err := out.Flush(); err != nil {
			return fmt.Errorf("decisions cannot be written: %w", err)
		}
		return nil
	}
	in := bufio.NewReaderSize(a.in, 64<<10)
	for n := 1; ; n++ {
		line, err := readLine(in)
		if err == io.EOF {
			return flush()
		}
		if err != nil {
			return errors.Join(fmt.Errorf("requests cannot be read: %w", err), flush())
		}
		given := decide(engine, line, explain)
		if err := e.Encode(given); err != nil {
			return fmt.Errorf("decisions cannot be written: %w", err)
		}
		text := explain && !a.json
		if text || in.Buffered() == 0 { // somebody may be waiting for the answer before he asks on
			if err := flush(); err != nil {
				return err
			}
		}
		if text {
			fmt.Fprintf(a.errs, "request %d\n%s\n", n, clean(given.text()))
		}
	}
}

// text is an answer's trace for people.
func (g answer) text() string {
	if g.Trace == nil {
		return "not a valid request: " + g.Reason + "\n"
	}
	return g.Trace.String()
}

func decide(engine policy.Engine, line []byte, explain bool) answer {
	r, err := policy.ParseRequest(line)
	if err != nil {
		return answer{Code: policy.Invalid, Reason: strings.TrimPrefix(err.Error(), "policy: ")}
	}
	if explain {
		return answerOf(engine.Explain(&r))
	}
	return answerOf(engine.Decide(&r), nil)
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
			return bytes.TrimSuffix(bytes.TrimSuffix(line, []byte("\n")), []byte("\r")), nil
		}
		return nil, err
	}
}
