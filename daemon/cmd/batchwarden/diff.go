package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"batchwarden/daemon/policy"
)

// maxGenerated is how many requests diff makes unless --limit says otherwise, and mostGenerated how many it makes at most.
const (
	maxGenerated  = 200_000
	mostGenerated = 5_000_000
)

func (a *app) diffCommand() *cobra.Command {
	d := differ{a: a}
	diff := &cobra.Command{
		Use:   "diff OLD NEW {--requests FILE | --generate}",
		Short: "Show which requests two policy documents decide differently",
		Long: `Decide requests by both documents and print those whose answers differ: what was allowed and is not (lost), what was
not and is (gained), what is refused with another code (code), or allowed with other variables withheld (withheld).
With --all also those with the same answer for another reason (wording). Requests come from a file, one per line as for
policy eval (- is the standard input), or are generated: for every user a cross product of what his rows, permissions
and roles name in either document, wildcards instantiated. A generated set shows what it finds; that it finds
nothing is no proof when it was cut, or when patterns overlap in ways that its names do not show.

Exit code 0 when nothing changes, 1 when something does, 78 when a document is refused.`,
		Args: cobra.ExactArgs(2),
		RunE: do(func(_ *cobra.Command, args []string) error { return d.run(args[0], args[1]) }),
	}
	diff.Flags().StringVar(&d.requests, "requests", "", "the requests, one per line")
	diff.Flags().BoolVar(&d.generate, "generate", false, "make requests out of both documents")
	diff.Flags().IntVar(&d.limit, "limit", maxGenerated, "how many requests to make at most")
	diff.Flags().BoolVar(&d.all, "all", false, "also what only changes its rule or reason")
	return diff
}

// differ is one run of policy diff.
type differ struct {
	a        *app
	requests string
	generate bool
	limit    int
	all      bool

	old, new policy.Engine
	page     page
	out      *bufio.Writer
	sum      summary
}

// summary is the last that diff prints.
type summary struct {
	Requests  int      `json:"requests"`
	Invalid   int      `json:"invalid"` // lines that are no requests, or that both refuse as such
	Lost      int      `json:"lost"`
	Gained    int      `json:"gained"`
	Code      int      `json:"code"`
	Withheld  int      `json:"withheld"`
	Wording   int      `json:"wording"`
	Generated bool     `json:"generated"`
	Subjects  int      `json:"subjects,omitempty"`
	Cut       []string `json:"cut,omitempty"`
}

func (d *differ) run(before, after string) error {
	switch {
	case d.generate == (d.requests != ""):
		return usage("say which requests: --requests FILE or --generate")
	case d.limit < 1 || d.limit > mostGenerated:
		return usage("--limit %d is not between 1 and %d", d.limit, mostGenerated)
	}
	model, err := d.open(before, after)
	if err != nil {
		return err
	}
	d.out = bufio.NewWriterSize(d.a.out, 64<<10)
	if d.generate {
		asker, is := model.(policy.Asker)
		if !is {
			return usage("no requests can be generated for this model; give some with --requests")
		}
		err = d.made(asker.Ask(d.old, d.new, d.limit))
	} else {
		err = d.read()
	}
	if err = errors.Join(err, d.end()); err != nil {
		return err
	}
	if s := d.sum; s.Lost+s.Gained+s.Code+s.Withheld+s.Wording > 0 {
		return no
	}
	return nil
}

// open reads both documents, so that the faults of both are reported together.
func (d *differ) open(before, after string) (policy.Model, error) {
	read := func(file string, into *policy.Engine) (*source, error) {
		doc, err := open(file, models())
		if err == nil {
			*into, err = doc.compile()
		}
		return doc, err
	}
	first, err1 := read(before, &d.old)
	second, err2 := read(after, &d.new)
	switch {
	case err1 != nil && err2 != nil:
		return nil, &failure{exitConfig, errors.Join(errorOf(err1), errorOf(err2))}
	case err1 != nil || err2 != nil:
		return nil, errors.Join(err1, err2)
	case first.name != second.name:
		return nil, &failure{exitConfig, fmt.Errorf("%s is of the model %s and %s of %s: no request is valid for both", before, first.name, after, second.name)}
	}
	return first.model, nil
}

func (d *differ) made(q policy.Questions) error {
	d.sum.Generated, d.sum.Subjects, d.sum.Cut = true, q.Subjects, q.Cut
	for i := range q.Requests {
		if err := d.compare(&q.Requests[i]); err != nil {
			return err
		}
	}
	return nil
}

func (d *differ) read() error {
	in := d.a.in
	if d.requests != "-" {
		f, err := os.Open(d.requests)
		if err != nil {
			return fmt.Errorf("requests cannot be read: %w", err)
		}
		defer f.Close() // only read
		in = f
	}
	lines := bufio.NewReaderSize(in, 64<<10)
	for {
		line, err := readLine(lines)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("requests cannot be read: %w", err)
		}
		if len(strings.TrimSpace(string(line))) == 0 {
			continue
		}
		r, err := policy.ParseRequest(line)
		if err != nil {
			d.sum.Requests++
			d.sum.Invalid++
			continue
		}
		if err := d.compare(&r); err != nil {
			return err
		}
	}
}

// change is one line that diff writes as JSON.
type change struct {
	Change  string         `json:"change"`
	Request policy.Request `json:"request"`
	Old     answer         `json:"old"`
	New     answer         `json:"new"`
}

func (d *differ) compare(r *policy.Request) error {
	d.sum.Requests++
	c := policy.Compare(d.old, d.new, r)
	if c.Old.Code == policy.Invalid && c.New.Code == policy.Invalid {
		d.sum.Invalid++
	}
	kind := c.Kind()
	switch kind {
	case policy.Lost:
		d.sum.Lost++
	case policy.Gained:
		d.sum.Gained++
	case policy.Code:
		d.sum.Code++
	case policy.Withheld:
		d.sum.Withheld++
	case policy.Wording:
		if !d.all {
			return nil
		}
		d.sum.Wording++
	default:
		return nil
	}
	before, after := answerOf(c.Old, nil), answerOf(c.New, nil)
	if d.a.json {
		return d.encode(change{kind, c.Request, before, after})
	}
	if len(d.page.rows) == 0 {
		d.page.row("CHANGE", "SUBJECT", "ACTION", "OBJECT", "OLD", "NEW")
	}
	object, err := json.Marshal(&c.Request.Object)
	if err != nil {
		return err
	}
	d.page.row(kind, subjectOf(c.Request.Subject), c.Request.Action, string(object), before.short(kind), after.short(kind))
	if len(d.page.rows) < pageOfChanges {
		return nil
	}
	return d.flush()
}

// pageOfChanges is how many changes are aligned with each other.
const pageOfChanges = 1000

func (d *differ) encode(v any) error {
	e := json.NewEncoder(d.out)
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

func (d *differ) flush() error {
	if len(d.page.rows) == 0 {
		return nil
	}
	_, err := d.out.WriteString(d.page.String())
	d.page = page{}
	return err
}

func subjectOf(s policy.Subject) string {
	var parts []string
	if s.User != "" {
		parts = append(parts, s.User)
	}
	if len(s.Roles) > 0 {
		parts = append(parts, "roles "+strings.Join(s.Roles, ","))
	}
	if s.By != "" {
		parts = append(parts, "by "+s.By)
	}
	return cmp.Or(strings.Join(parts, " "), "nobody")
}

// short is an answer in a table: what it is, the rule, and for a denial why.
func (g answer) short(kind string) string {
	text := "allowed"
	if !g.Allowed {
		text = g.Code
	}
	if g.Rule != "" {
		text += " " + g.Rule
	}
	if kind == policy.Withheld {
		text += " withheld " + orNone(g.Withheld)
	}
	if !g.Allowed || kind == policy.Wording {
		text += ": " + g.Reason
	}
	return text
}

// end prints what is left and the summary.
func (d *differ) end() error {
	if d.a.json {
		if err := d.encode(struct {
			Summary summary `json:"summary"`
		}{d.sum}); err != nil {
			return err
		}
		return d.out.Flush()
	}
	if err := d.flush(); err != nil {
		return err
	}
	s := &d.sum
	parts := []string{fmt.Sprintf("%d lost", s.Lost), fmt.Sprintf("%d gained", s.Gained)}
	for _, p := range []struct {
		n    int
		what string
	}{{s.Code, "with another code"}, {s.Withheld, "with other variables withheld"}, {s.Wording, "for another reason"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	fmt.Fprintf(d.out, "%s: %s\n", counted(s.Requests, "request"), strings.Join(parts, ", "))
	if s.Invalid > 0 {
		fmt.Fprintf(d.out, "%s not valid, by both documents\n", counted(s.Invalid, "request"))
	}
	if s.Generated {
		fmt.Fprintf(d.out, "generated from both documents, about %s\n", counted(s.Subjects, "subject"))
		for _, cut := range s.Cut {
			fmt.Fprintf(d.out, "cut: %s; --limit makes more\n", cell(cut))
		}
	}
	return d.out.Flush()
}
