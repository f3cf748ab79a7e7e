package policy

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// A Finding is something in a document that is legal and surely not meant.
type Finding struct {
	Place string `json:"place"`
	Code  string `json:"code"` // stable, for scripts; the model's handbook explains it
	Text  string `json:"text"`
}

// A Linter is a Model that finds what is legal and surely not meant.
type Linter interface {
	// Lint returns the findings in a document, by place and code, at most
	// MaxFindings. A document that is refused has no findings: the error
	// is that of Parse.
	Lint(file string, doc []byte) ([]Finding, error)
}

// MaxFindings is how many findings are kept of one document.
const MaxFindings = 10_000

// Findings collects what Lint returns.
type Findings struct{ list []Finding }

// Add adds a finding.
func (f *Findings) Add(place, code, format string, args ...any) {
	if len(f.list) < 100*MaxFindings { // before they are in order; no document of sensible size has as many
		f.list = append(f.list, Finding{place, code, fmt.Sprintf(format, args...)})
	}
}

// Sorted returns what was found by place and code, each once.
func (f *Findings) Sorted() []Finding {
	list := slices.Clone(f.list)
	slices.SortFunc(list, func(a, b Finding) int {
		return cmp.Or(strings.Compare(a.Place, b.Place), strings.Compare(a.Code, b.Code), strings.Compare(a.Text, b.Text))
	})
	list = slices.Compact(list)
	return list[:min(len(list), MaxFindings)]
}

// Covers reports that wide matches every text that narrow matches. False may
// also mean that this was not found out: a '?' against a '*' is not.
func Covers(wide, narrow string) bool {
	if wide == narrow {
		return true
	}
	if strings.Contains(wide, "?") && strings.Contains(narrow, "*") {
		return false
	}
	// Narrow's wildcards count as letters here, which only a wildcard of wide matches.
	return Match(wide, narrow)
}
