package policytest

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"batchwarden/daemon/policy"
)

// A Doubt is a finding's code, its place, the document in which it is found
// there, and the same document made right.
type Doubt [4]string

// Lint checks that m finds each doubt and no other of its code, and nothing
// where it is put right; that it finds nothing in the sensible document; and
// that the handbook explains the codes that are tried, and no others.
func Lint(t *testing.T, m policy.Model, handbook, sensible string, doubts []Doubt) {
	tried := map[string]bool{}
	for _, d := range doubts {
		code, place, with, without := d[0], d[1], d[2], d[3]
		tried[code] = true
		t.Run(code+" "+place, func(t *testing.T) {
			if got := places(t, m, with, code); !slices.Equal(got, []string{place}) {
				t.Errorf("%s\ngot %s at %q, want it at %q", with, code, got, place)
			}
			if got := places(t, m, without, code); got != nil {
				t.Errorf("%s\ngot %s at %q, want none", without, code, got)
			}
		})
	}
	if got := places(t, m, sensible, ""); got != nil {
		t.Errorf("the sensible document: got findings at %q, want none", got)
	}
	_, section, _ := strings.Cut(handbook, "\n## What lint finds\n")
	section, _, _ = strings.Cut(section, "\n## ")
	explained := map[string]bool{}
	for _, code := range regexp.MustCompile("(?m)^\\| `([a-z_.]+)` \\|").FindAllStringSubmatch(section, -1) {
		explained[code[1]] = true
		if !tried[code[1]] {
			t.Errorf("the handbook explains %s, which no test tries", code[1])
		}
	}
	for code := range tried {
		if !explained[code] {
			t.Errorf("the handbook does not explain %s", code)
		}
	}
}

// places are those of the findings with the code, or of all when it is empty.
func places(t *testing.T, m policy.Model, doc, code string) []string {
	t.Helper()
	found, err := m.(policy.Linter).Lint("d", []byte(doc))
	if err != nil {
		t.Fatalf("%s\n%v", doc, err)
	}
	var places []string
	for _, f := range found {
		switch {
		case code == "":
			places = append(places, f.Place+" ["+f.Code+"]")
		case f.Code == code:
			places = append(places, f.Place)
		}
	}
	return places
}
