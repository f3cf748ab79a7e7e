package main

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"batchwarden/daemon/policy"
)

// A reviewWriter writes a review line by line: there may be a million.
type reviewWriter struct {
	format string
	why    bool
	out    *bufio.Writer
	csv    *csv.Writer
	page   page
	lines  int
}

func newReviewWriter(a *app, f *reviewFlags) (*reviewWriter, error) {
	w := &reviewWriter{format: f.format, why: f.why, out: bufio.NewWriterSize(a.out, 64<<10)}
	switch f.format {
	case "text", "json":
	case "csv":
		w.csv = csv.NewWriter(w.out)
		if err := w.csv.Write([]string{"machine", "batch_user", "account", "scope", "realm", "called", "user", "role", "for", "by"}); err != nil {
			return nil, err
		}
	default:
		return nil, usage("--format %q is not one of text, json, csv", f.format)
	}
	return w, nil
}

func (w *reviewWriter) heads() []string {
	heads := []string{"MACHINE", "BATCH USER", "ACCOUNT", "REALM", "CALLED", "SUBJECT", "FOR"}
	if w.why {
		heads = append(heads, "BY")
	}
	return heads
}

// add writes one line.
func (w *reviewWriter) add(u usable) error {
	w.lines++
	switch w.format {
	case "json":
		text, err := json.Marshal(u)
		if err != nil {
			return err
		}
		open := ",\n    "
		if w.lines == 1 {
			open = "{\n  \"uses\": [\n    "
		}
		_, err = w.out.WriteString(open + string(text))
		return err
	case "csv":
		return w.csv.Write([]string{u.Machine, u.BatchUser, u.Account, u.Scope, u.Realm, u.Called, u.User, u.Role, strings.Join(u.For, " "), strings.Join(u.By, " ")})
	}
	if len(w.page.rows) == 0 {
		w.page.row(w.heads()...)
	}
	subject := u.User
	if u.Role != "" {
		subject = "role " + u.Role
	}
	cells := []string{u.Machine, u.BatchUser, u.Account, u.Realm, u.Called, subject, strings.Join(u.For, ", ")}
	if w.why {
		cells = append(cells, strings.Join(u.By, ", "))
	}
	w.page.row(cells...)
	if len(w.page.rows) > pageOfChanges {
		return w.flush()
	}
	return nil
}

// flush writes what is aligned with each other: the lines of one machine, and not too many.
func (w *reviewWriter) flush() error {
	if len(w.page.rows) == 0 {
		return nil
	}
	_, err := w.out.WriteString(w.page.String() + "\n")
	w.page = page{}
	return err
}

// end writes what the review means and what it could not say.
func (w *reviewWriter) end(r *reviewer) error {
	meaning := map[string]string{}
	for _, s := range r.scopes {
		for _, h := range s.policies {
			if m, is := h.model.(policy.Reviewer); is {
				meaning[h.name] = m.Meaning()
				if r.asked {
					meaning[h.name] = "the whole launch, with the object that was given"
				}
			}
		}
	}
	switch w.format {
	case "json":
		if w.lines == 0 {
			fmt.Fprint(w.out, "{\n  \"uses\": [")
		}
		text, err := json.Marshal(struct {
			Meaning map[string]string `json:"can_use_means"`
			Notes   []string          `json:"notes"`
		}{meaning, append([]string{}, r.notes.List()...)})
		if err != nil {
			return err
		}
		fmt.Fprintf(w.out, "\n  ],\n  %s\n", text[1:]) // the members of the object that began above
	case "csv":
		w.csv.Flush()
		if err := w.csv.Error(); err != nil {
			return err
		}
		for _, n := range r.notes.List() { // a table has no room for them
			fmt.Fprintf(r.app.errs, "note: %s\n", cell(n))
		}
	default:
		if w.lines == 0 {
			fmt.Fprintln(w.out, "Nobody can use anything of this.")
		}
		for _, model := range slices.Sorted(maps.Keys(meaning)) {
			fmt.Fprintf(w.out, "%s: can use means %s.\n", model, meaning[model])
		}
		for _, n := range r.notes.List() {
			fmt.Fprintf(w.out, "note: %s\n", cell(n))
		}
	}
	return w.out.Flush()
}
