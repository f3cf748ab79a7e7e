package policy

import (
	"encoding/json"
	"fmt"
	"strings"
)

// MaxLines is how many lines a trace keeps; more are counted.
const MaxLines = 1000

// A Trace says for people how a decision came about.
type Trace struct {
	Decision Decision
	Lines    []Line
	More     int  // lines beyond MaxLines
	Fix      *Fix // what would turn a denial into an allow; nil when allowed
}

// The kinds of lines, in the order in which a trace has them.
const (
	OfSubject = "subject" // whom the request is about and what he has, from where
	OfCheck   = "check"   // one of the things that the request needs
	OfGrant   = "grant"   // a row, permission or grant that was looked at
	OfGroup   = "group"   // an authorization group and what became of it
	OfList    = "list"    // a list of the host or of an object
	OfRule    = "rule"    // the rule that decided
	OfVendor  = "vendor"  // the message by which the vendor's people know this
)

// A Line is one step of a trace.
type Line struct {
	Kind    string `json:"kind"`
	Rule    string `json:"rule,omitempty"`
	From    string `json:"from,omitempty"` // the place in the document
	Matched bool   `json:"matched,omitempty"`
	Text    string `json:"text"`
}

// A Fix is the smallest single grant that would turn a denial into an allow:
// Value appended to the list at Place, which is made where there is none, or,
// when Place is that of a text, put there.
type Fix struct {
	Place string          `json:"place,omitempty"` // "" when no single grant is enough
	Value json.RawMessage `json:"value,omitempty"`
	Text  string          `json:"text"`
}

// Add appends a line.
func (t *Trace) Add(kind, rule, from string, matched bool, format string, args ...any) {
	if len(t.Lines) >= MaxLines {
		t.More++
		return
	}
	t.Lines = append(t.Lines, Line{kind, rule, from, matched, fmt.Sprintf(format, args...)})
}

// String returns the trace as text for a terminal, one line for each step.
func (t *Trace) String() string {
	var b strings.Builder
	for _, l := range t.Lines {
		mark := " "
		if l.Matched {
			mark = "*"
		}
		fmt.Fprintf(&b, "%s %-8s %s", mark, l.Kind, l.Text)
		if l.From != "" {
			fmt.Fprintf(&b, "  [%s]", l.From)
		}
		if l.Rule != "" && l.Kind != OfRule {
			fmt.Fprintf(&b, "  (%s)", l.Rule)
		}
		b.WriteByte('\n')
	}
	if t.More > 0 {
		fmt.Fprintf(&b, "  and %d more lines\n", t.More)
	}
	answer := "denied"
	switch {
	case t.Decision.Allowed:
		answer = "allowed"
	case t.Decision.Code == Invalid:
		answer = "not a valid request"
	}
	b.WriteString(answer)
	if t.Decision.Rule != "" {
		b.WriteString(" by " + t.Decision.Rule)
	}
	b.WriteString(": " + t.Decision.Reason + "\n")
	if len(t.Decision.Withheld) > 0 {
		fmt.Fprintf(&b, "withheld: %q\n", t.Decision.Withheld)
	}
	if t.Fix != nil {
		b.WriteString("would be allowed by: " + t.Fix.Text + "\n")
	}
	return b.String()
}

// MarshalJSON writes {"decision","lines","more","would_allow"}.
func (t *Trace) MarshalJSON() ([]byte, error) {
	lines := t.Lines
	if lines == nil {
		lines = []Line{}
	}
	return json.Marshal(struct {
		Decision   Decision `json:"decision"`
		Lines      []Line   `json:"lines"`
		More       int      `json:"more,omitempty"`
		WouldAllow *Fix     `json:"would_allow,omitempty"`
	}{t.Decision, lines, t.More, t.Fix})
}
