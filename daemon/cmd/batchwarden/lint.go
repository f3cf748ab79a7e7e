package main

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"batchwarden/daemon/policy"
	"batchwarden/daemon/strict"
)

func (a *app) lintCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "lint FILE...",
		Short: "Find what is legal in policy documents and surely not meant",
		Long: `Print what is legal in the documents and surely not meant: rows that can never match, rights that a type does not have,
groups that deny everything, grants without effect, roles and groups that nobody has. One line for each finding, with
file, line, place and a code that the handbook of the model explains. Exit code 0 when nothing was found, 1 when
something was, 78 when a document is refused, whose faults are then on stderr.`,
		Args: cobra.MinimumNArgs(1),
		RunE: do(func(_ *cobra.Command, args []string) error { return a.lint(args) }),
	}
}

// remark is a policy.Finding and where in which file it is.
type remark struct {
	File   string `json:"file"`
	Line   int    `json:"line,omitempty"`
	Column int    `json:"column,omitempty"`
	policy.Finding
}

func (f remark) String() string {
	at := f.File
	if f.Line > 0 {
		at += ":" + strconv.Itoa(f.Line)
	}
	if f.Place != "" {
		at += ": " + f.Place
	}
	return at + ": " + f.Text + " [" + f.Code + "]"
}

// linted is what lint prints as JSON.
type linted struct {
	Findings []remark `json:"findings"`
	Refused  []fault  `json:"refused"`
}

func (a *app) lint(files []string) error {
	v := linted{Findings: []remark{}, Refused: []fault{}}
	refused := 0
	for _, file := range files {
		found, err := lintFile(file)
		v.Findings = append(v.Findings, found...)
		if err == nil {
			continue
		}
		refused++
		for _, f := range faultsOf(file, errorOf(err)) {
			v.Refused = append(v.Refused, fault(f))
			if !a.json {
				fmt.Fprintln(a.errs, clean(f.String()))
			}
		}
	}
	var text strings.Builder
	for _, f := range v.Findings {
		text.WriteString(cell(f.String()) + "\n")
	}
	if err := a.show(v, text.String()); err != nil {
		return err
	}
	switch {
	case refused > 0:
		return &failure{exitConfig, fmt.Errorf("%s refused", counted(refused, "document"))}
	case len(v.Findings) > 0:
		return no
	}
	return nil
}

// errorOf is what a failure says. A fault that already names its file is taken as it is.
func errorOf(err error) error {
	if f, is := errors.AsType[*failure](err); is && f.err != nil {
		return f.err
	}
	return err
}

func lintFile(file string) ([]remark, error) {
	doc, err := open(file, models())
	if err != nil {
		return nil, err
	}
	linter, is := doc.model.(policy.Linter)
	if !is {
		return nil, fmt.Errorf("nothing is known about documents of the model %q", doc.name)
	}
	found, err := linter.Lint(file, doc.text)
	if err != nil {
		return nil, err
	}
	return doc.placed(found)
}

// placed finds the lines of findings and sorts by them.
func (s *source) placed(found []policy.Finding) ([]remark, error) {
	list := make([]remark, len(found))
	for i, f := range found {
		list[i] = remark{File: s.file, Finding: f}
	}
	// A document says where a place is only of faults: each finding is made one, with its number for a text.
	lines, err := strict.Parse(s.file, s.text)
	if err != nil {
		return nil, err
	}
	for i, f := range found {
		lines.Fault(f.Place, "%d", i)
	}
	if at, are := errors.AsType[strict.Faults](lines.Err()); are {
		for _, f := range at {
			if i, err := strconv.Atoi(f.Text); err == nil && i < len(list) { // the last may count those without a line
				list[i].Line, list[i].Column = f.Line, f.Column
			}
		}
	}
	slices.SortStableFunc(list, func(a, b remark) int { return cmp.Compare(lineOrLast(a), lineOrLast(b)) })
	return list, nil
}

// lineOrLast puts what has no line behind all that has one.
func lineOrLast(f remark) int {
	if f.Line == 0 {
		return 1 << 30
	}
	return f.Line
}
