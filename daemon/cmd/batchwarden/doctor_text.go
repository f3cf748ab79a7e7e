package main

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"batchwarden/daemon/doctor"
)

// text says the problems first, each with what mends it, and then the rest.
func (r *report) text() string {
	var b strings.Builder
	b.WriteString(r.headline())
	width := 0
	for _, c := range r.Checks {
		width = max(width, len(c.Name))
	}
	part := func(title string, result doctor.Result) {
		if doctor.Count(r.Checks, result) == 0 {
			return
		}
		fmt.Fprintf(&b, "\n%s\n", title)
		for _, c := range r.Checks {
			if c.Result != result {
				continue
			}
			indent := "\n" + strings.Repeat(" ", width+4)
			fmt.Fprintf(&b, "  %-*s  %s\n", width, cell(c.Name), strings.Join(wrap(cell(c.Reason), columns-width-4), indent))
			if c.Mend != "" {
				fmt.Fprintf(&b, "  %-*s  mend: %s\n", width, "", cell(c.Mend))
			}
		}
	}
	part("Problems:", doctor.Problem)
	b.WriteString(r.unseen())
	part("Good to know:", doctor.Note)
	part("Well:", doctor.OK)
	return b.String()
}

// columns is how wide reasons are. What mends is one line, to be copied.
const columns = 120

// wrap breaks a text at blanks into lines of at most n characters, where it can.
func wrap(text string, n int) (lines []string) {
	line := ""
	for word := range strings.FieldsSeq(text) {
		if line != "" && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > n {
			lines, line = append(lines, line), ""
		}
		if line != "" {
			line += " "
		}
		line += word
	}
	return append(lines, line)
}

// unseen says what could not be looked at: what has the same reason together.
func (r *report) unseen() string {
	type why struct{ reason, who string }
	var order []why
	names := map[why][]string{}
	for _, c := range r.Checks {
		if c.Result != doctor.Unknown {
			continue
		}
		w := why{c.Reason, c.Mend}
		if names[w] == nil {
			order = append(order, w)
		}
		names[w] = append(names[w], c.Name)
	}
	if len(order) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("\nCould not be looked at:\n")
	for _, w := range order {
		fmt.Fprintf(&b, "  %s\n      %s\n", cell(strings.Join(names[w], ", ")), cell(w.reason))
		if w.who != "" {
			fmt.Fprintf(&b, "      %s\n", cell(w.who))
		}
	}
	return b.String()
}

func (r *report) headline() string {
	on := ""
	if r.Machine != "" {
		on = " on " + cell(r.Machine)
	}
	text := "No problem was found" + on
	if r.Problems > 0 {
		text = "There is " + counted(r.Problems, "problem") + on
		if r.Problems > 1 {
			text = "There are " + counted(r.Problems, "problem") + on
		}
	}
	if r.Unknown > 0 {
		text += fmt.Sprintf("; %d of %s could not be made", r.Unknown, counted(len(r.Checks), "check"))
	}
	return text + ".\n"
}
