package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"batchwarden/daemon/policy"
	"batchwarden/daemon/strict"
	"batchwarden/vault/admin"
)

func (a *app) vaultPolicyCommand(f *adminFlags) *cobra.Command {
	return parent("policy", "Put, compare and read the policy documents in Vault",
		a.policyPutCommand(f), a.policyCompareCommand(f), a.policyGetCommand(f), a.policyDeleteCommand(f), a.policyListCommand(f))
}

// A held policy is the document of one realm in one scope of Vault. Without a text there is none yet.
type held struct {
	scope   string
	realm   string
	version int64 // what a change of it has to name
	text    []byte
	name    string // of the model
	model   policy.Model
	engine  policy.Engine
	refused error // why machines do not take the text that lies there

	subjects []policy.Subject // for a review
}

func (h *held) at() string { return h.scope + "/policies/" + h.realm }

// hold reads a policy from Vault. One that machines would refuse is no error.
func hold(ctx context.Context, v *admin.Admin, scope, realm string) (*held, error) {
	h := &held{scope: scope, realm: realm}
	var err error
	if h.text, h.version, err = v.Policy(ctx, scope, realm); err != nil || h.text == nil {
		return h, err
	}
	h.refused = h.compile(h.at())
	return h, nil
}

// compile finds the model of the text and has it parsed.
func (h *held) compile(file string) error {
	s, err := understood(file, h.text, models())
	if err != nil {
		return err
	}
	h.name, h.model = s.name, s.model
	h.engine, err = s.compile()
	return err
}

// must is an error where there is no policy that a machine would take.
func (h *held) must() error {
	switch {
	case h.text == nil:
		return &failure{exitNo, fmt.Errorf("there is no policy at %s; batchwarden admin policy put %s FILE makes one", h.at(), h.realm)}
	case h.refused != nil:
		return &failure{exitConfig, fmt.Errorf("machines refuse what lies at %s: %w", h.at(), errorOf(h.refused))}
	}
	return nil
}

// with is what the document would be with another text.
func (h *held) with(file string, text []byte) (*held, error) {
	now := &held{scope: h.scope, realm: h.realm, version: h.version, text: text}
	if err := now.compile(file); err != nil {
		return nil, err
	}
	if h.engine != nil && h.name != now.name {
		return nil, &failure{exitConfig, fmt.Errorf("the policy at %s is of the model %s, and %s of %s: delete it first if that is meant", h.at(), h.name, file, now.name)}
	}
	return now, nil
}

// effects are what changes from one document to the other.
type effects struct {
	Findings  []remark `json:"findings"` // of lint, that the old document does not have
	Changes   []change `json:"changes"`  // the first of them
	Lost      int      `json:"lost"`
	Gained    int      `json:"gained"`
	Other     int      `json:"other"`
	Requests  int      `json:"requests"`
	Cut       []string `json:"cut,omitempty"`
	Instead   string   `json:"instead_of_refused,omitempty"` // why the old document counts for nothing
	unchanged bool
}

const (
	maxEffects  = 200    // changes that are kept
	askedAtMost = 50_000 // requests that are made
)

// effectsOf compares two documents as policy diff --generate and policy lint do.
func effectsOf(old, now *held) (*effects, error) {
	e := &effects{Findings: []remark{}, Changes: []change{}}
	before := old.engine
	if old.refused != nil {
		e.Instead = errorOf(old.refused).Error()
	}
	if before == nil {
		var err error
		if before, err = now.model.Parse("", fmt.Appendf(nil, `{"model":%q}`, now.name)); err != nil {
			return nil, err
		}
	}
	var err error
	if e.Findings, err = newFindings(old, now); err != nil {
		return nil, err
	}
	asker, is := now.model.(policy.Asker)
	if !is {
		return nil, fmt.Errorf("no requests can be made for the model %s", now.name)
	}
	q := asker.Ask(before, now.engine, askedAtMost)
	e.Requests, e.Cut = len(q.Requests), q.Cut
	for i := range q.Requests {
		c := policy.Compare(before, now.engine, &q.Requests[i])
		kind := c.Kind()
		switch kind {
		case "", policy.Wording:
			continue
		case policy.Lost:
			e.Lost++
		case policy.Gained:
			e.Gained++
		default:
			e.Other++
		}
		if len(e.Changes) < maxEffects {
			e.Changes = append(e.Changes, change{kind, c.Request, answerOf(c.Old, nil), answerOf(c.New, nil)})
		}
	}
	return e, nil
}

// newFindings are what lint says of the new document and does not say of the old one.
func newFindings(old, now *held) ([]remark, error) {
	linter, is := now.model.(policy.Linter)
	if !is {
		return []remark{}, nil
	}
	found, err := linter.Lint(now.at(), now.text)
	if err != nil {
		return nil, err
	}
	known := map[policy.Finding]bool{}
	if old.engine != nil {
		before, err := linter.Lint(old.at(), old.text)
		if err != nil {
			return nil, err
		}
		for _, f := range before {
			known[f] = true
		}
	}
	found = slices.DeleteFunc(found, func(f policy.Finding) bool { return known[f] })
	list := []remark{}
	for _, f := range found {
		list = append(list, remark{File: now.at(), Finding: f})
	}
	return list, nil
}

// text shows the effects, at most so many changes.
func (e *effects) text(most int) string {
	var p page
	if e.Instead != "" {
		p.line("The document that lies there is refused by machines, so the new one is compared with an empty one.")
	}
	for _, f := range e.Findings[:min(len(e.Findings), most)] {
		p.line("lint: %s", f)
	}
	if n := len(e.Findings) - most; n > 0 {
		p.line("lint: and %d more", n)
	}
	if len(e.Changes) > 0 {
		p.row("CHANGE", "SUBJECT", "ACTION", "OBJECT", "OLD", "NEW")
	}
	for _, c := range e.Changes[:min(len(e.Changes), most)] {
		object, err := json.Marshal(&c.Request.Object)
		if err != nil {
			object = []byte("?") // not of an object that was parsed or made here
		}
		p.row(c.Change, subjectOf(c.Request.Subject), c.Request.Action, string(object), c.Old.short(c.Change), c.New.short(c.Change))
	}
	if total := e.Lost + e.Gained + e.Other; total > min(len(e.Changes), most) {
		p.line("and %d more changes; policy diff shows all", total-min(len(e.Changes), most))
	}
	p.line("Of %s made from both documents: %d lost, %d gained, %d otherwise changed.", counted(e.Requests, "request"), e.Lost, e.Gained, e.Other)
	for _, cut := range e.Cut {
		p.line("cut: %s", cut)
	}
	return p.String()
}

const shown = 20 // changes in a text

func (a *app) policyPutCommand(f *adminFlags) *cobra.Command {
	var s scopeFlags
	var yes bool
	cmd := &cobra.Command{
		Use:   "put REALM FILE {--machine M|--group G|--platform P} {--yes|--dry-run}",
		Short: "Put a policy document, after showing what it changes",
		Long: `Check a policy document, YAML or JSON, show what lint finds and what changes for whom, and with --yes put it into
Vault: only if nobody else changed it since it was read. A document that machines would refuse is not put.`,
		Args: cobra.ExactArgs(2),
		RunE: a.administer(f, func(ctx context.Context, v *admin.Admin, _ *cobra.Command, args []string) error {
			old, now, e, err := a.compared(ctx, v, &s, args[0], args[1])
			if err != nil {
				return err
			}
			write := yes || v.DryRun()
			var steps []admin.Step
			if write && !e.unchanged {
				steps, err = v.PutPolicy(ctx, old.scope, old.realm, now.name, now.text, old.version)
				if err != nil {
					return a.finish(v, steps, err)
				}
			}
			d := a.doneOf(v, steps)
			text := e.text(shown)
			switch {
			case e.unchanged:
				text = d.text()
			case write:
				text += d.text()
			}
			if err := a.show(struct {
				done
				*effects
			}{d, e}, text); err != nil {
				return err
			}
			if !write && !e.unchanged {
				return &failure{exitNo, errors.New("nothing was written: repeat with --yes to put the document")}
			}
			return nil
		}),
	}
	s.flags(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "put it")
	return cmd
}

// compared reads what is in Vault and in a file.
func (a *app) compared(ctx context.Context, v *admin.Admin, s *scopeFlags, realm, file string) (old, now *held, e *effects, err error) {
	scope, err := s.must()
	if err != nil {
		return nil, nil, nil, err
	}
	if err := admin.CheckName(realm); err != nil {
		return nil, nil, nil, &failure{exitUsage, err}
	}
	text, err := readDocument(file)
	if err != nil {
		return nil, nil, nil, &failure{exitUsage, fmt.Errorf("policy %s cannot be read: %w", file, err)}
	}
	if old, err = hold(ctx, v, scope, realm); err != nil {
		return nil, nil, nil, err
	}
	if _, err = old.with(file, text); err != nil { // with the file's own lines, and its model
		return nil, nil, nil, err
	}
	read, err := strict.Parse(file, text)
	if err != nil {
		return nil, nil, nil, &failure{exitConfig, err}
	}
	if now, err = old.with(file, read.JSON()); err != nil {
		return nil, nil, nil, err
	}
	if e, err = effectsOf(old, now); err != nil {
		return nil, nil, nil, err
	}
	e.unchanged = old.text != nil && sameJSON(old.text, now.text)
	return old, now, e, nil
}

// sameJSON reports that two documents say the same, whatever the order of their members.
func sameJSON(x, y []byte) bool {
	plain := func(text []byte) string {
		var v any
		d := json.NewDecoder(strings.NewReader(string(text)))
		d.UseNumber()
		if d.Decode(&v) != nil {
			return ""
		}
		out, err := json.Marshal(v)
		if err != nil {
			return ""
		}
		return string(out)
	}
	p := plain(x)
	return p != "" && p == plain(y)
}

func (a *app) policyCompareCommand(f *adminFlags) *cobra.Command {
	var s scopeFlags
	cmd := &cobra.Command{
		Use:   "diff REALM FILE {--machine M|--group G|--platform P}",
		Short: "Show what a policy document would change; exit code 1 when something would",
		Args:  cobra.ExactArgs(2),
		RunE: a.administer(f, func(ctx context.Context, v *admin.Admin, _ *cobra.Command, args []string) error {
			_, _, e, err := a.compared(ctx, v, &s, args[0], args[1])
			if err != nil {
				return err
			}
			return a.answer(e, e.text(maxEffects), e.Lost+e.Gained+e.Other == 0)
		}),
	}
	s.flags(cmd)
	return cmd
}

func (a *app) policyGetCommand(f *adminFlags) *cobra.Command {
	var s scopeFlags
	cmd := &cobra.Command{
		Use:   "get REALM {--machine M|--group G|--platform P}",
		Short: "Write a policy document to stdout, as JSON, its parts joined",
		Args:  cobra.ExactArgs(1),
		RunE: a.administer(f, func(ctx context.Context, v *admin.Admin, _ *cobra.Command, args []string) error {
			scope, err := s.must()
			if err != nil {
				return err
			}
			h, err := hold(ctx, v, scope, args[0])
			if err != nil {
				return err
			}
			if h.text == nil {
				return h.must()
			}
			_, err = io.WriteString(a.out, string(h.text)+"\n")
			return err
		}),
	}
	s.flags(cmd)
	return cmd
}

func (a *app) policyDeleteCommand(f *adminFlags) *cobra.Command {
	var s scopeFlags
	var yes, purge bool
	cmd := &cobra.Command{
		Use:   "delete REALM {--machine M|--group G|--platform P} {--yes|--dry-run} [--purge]",
		Short: "Delete a policy: where no wider scope has one, the realm denies everything",
		Args:  cobra.ExactArgs(1),
		RunE: a.administer(f, func(ctx context.Context, v *admin.Admin, _ *cobra.Command, args []string) error {
			scope, err := s.must()
			if err != nil {
				return err
			}
			if !yes && !v.DryRun() {
				return usage("machines without another policy of the realm will deny everything; say --yes if that is meant")
			}
			steps, err := v.DeletePolicy(ctx, scope, args[0], purge)
			return a.finish(v, steps, err)
		}),
	}
	s.flags(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "delete it")
	cmd.Flags().BoolVar(&purge, "purge", false, "with all versions, for good")
	return cmd
}

func (a *app) policyListCommand(f *adminFlags) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the policies and the scopes in which they lie",
		Args:  cobra.NoArgs,
		RunE: a.administer(f, func(ctx context.Context, v *admin.Admin, _ *cobra.Command, _ []string) error {
			type entry struct {
				Scope string `json:"scope"`
				Realm string `json:"realm"`
			}
			all := []entry{}
			var p page
			p.row("SCOPE", "REALM")
			scopes, err := v.Scopes(ctx)
			if err != nil {
				return err
			}
			for _, scope := range scopes {
				realms, err := v.Policies(ctx, scope)
				if err != nil {
					return err
				}
				for _, realm := range realms {
					all = append(all, entry{scope, realm})
					p.row(scope, realm)
				}
			}
			text := p.String()
			if len(all) == 0 {
				text = "There are no policies. batchwarden admin policy put REALM FILE makes one.\n"
			}
			return a.show(struct {
				Policies []entry `json:"policies"`
			}{all}, text)
		}),
	}
}
