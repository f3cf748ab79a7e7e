package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// print writes v as indented JSON.
func (a *app) print(v any) error {
	e := json.NewEncoder(a.out)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// show prints v as JSON when --json asks for it, else as text says it.
func (a *app) show(v any, text string) error {
	if a.json {
		return a.print(v)
	}
	_, err := io.WriteString(a.out, text)
	return err
}

// answer shows v; where it means no, so does the exit code.
func (a *app) answer(v any, text string, yes bool) error {
	if err := a.show(v, text); err != nil || yes {
		return err
	}
	return no
}

// clean makes a text from elsewhere safe for a terminal: what does not print, line ends and tabs excepted, is shown as
// its number.
func clean(s string) string {
	bad := func(r rune) bool { return !unicode.IsPrint(r) && r != '\n' && r != '\t' }
	if !strings.ContainsFunc(s, bad) {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if bad(r) {
			fmt.Fprintf(&b, "<%02X>", r)
			continue
		}
		b.WriteRune(r)
	}
	return b.String()
}

// cell is clean for one cell of a table.
func cell(s string) string {
	return clean(strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		return r
	}, s))
}

// page is text in aligned columns. A row of one cell is a line by itself.
type page struct {
	rows  [][]string
	tints map[place]tint
	painter
}

// place is one cell of a page.
type place struct{ row, cell int }

func (p *page) row(cells ...string) { p.rows = append(p.rows, cells) }

func (p *page) line(format string, args ...any) { p.row(fmt.Sprintf(format, args...)) }

// tint gives one cell of the last row a tint.
func (p *page) tint(cell int, t tint) {
	if p.tints == nil {
		p.tints = map[place]tint{}
	}
	p.tints[place{len(p.rows) - 1, cell}] = t
}

func (p *page) String() string {
	var b strings.Builder
	w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
	for _, row := range p.rows {
		for i, c := range row {
			row[i] = cell(c)
		}
		fmt.Fprintln(w, strings.Join(row, "\t"))
	}
	_ = w.Flush() // into memory
	lines := strings.Split(b.String(), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
		if i < len(p.rows) {
			lines[i] = p.painted(i, lines[i])
		}
	}
	return strings.Join(lines, "\n")
}

// painted is a line of the page with its cells' tints: put on last, as they take no room.
func (p *page) painted(row int, line string) string {
	if !p.painter {
		return line
	}
	var b strings.Builder
	for i, c := range p.rows[row] {
		before, after, found := strings.Cut(line, strings.TrimRight(c, " "))
		if !found {
			break
		}
		b.WriteString(before + p.paint(p.tints[place{row, i}], strings.TrimRight(c, " ")))
		line = after
	}
	return b.String() + line
}

// span says a length of time in at most two units.
func span(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d days %d h", int(d.Hours())/24, int(d.Hours())%24)
}

// when says a moment of the past, "" for none.
func (a *app) when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return span(a.now().Sub(t)) + " ago"
}

func orNone(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	return strings.Join(list, ", ")
}

// octets says a size in the largest unit of which there is at least one.
func octets(n int64) string {
	const units = "KMGT"
	if n < 1024 {
		return fmt.Sprintf("%d B", n)
	}
	f, u := float64(n)/1024, 0
	for f >= 1024 && u < len(units)-1 {
		f, u = f/1024, u+1
	}
	return fmt.Sprintf("%.1f %ciB", f, units[u])
}
