package main

import (
	"strings"
	"unicode/utf8"
)

// linear looks at one row after the other and does for each what the rules
// say, in their order. It is what the others are held against.
type linear struct{ rows []row }

// newLinear folds the rows once (AU14), as a program without an index would.
func newLinear(rows []row) (engine, error) {
	folded := make([]row, len(rows))
	for i, r := range rows {
		folded[i] = row{r.group, strings.ToUpper(r.kind), strings.ToUpper(r.name), strings.ToUpper(r.host), strings.ToUpper(r.login), r.rights}
	}
	return linear{folded}, nil
}

func (l linear) ask(questions []question) (func(i int) (bool, error), error) {
	return func(i int) (bool, error) { return l.allows(questions[i]), nil }, nil
}

func (l linear) allows(q question) bool {
	q.kind, q.name, q.host, q.login = strings.ToUpper(q.kind), strings.ToUpper(q.name), strings.ToUpper(q.host), strings.ToUpper(q.login)
	var counted, granted [10]bool // by group number
	for i := range l.rows {
		r := &l.rows[i]
		group := 0
		if r.group != "NOT" {
			group = int(r.group[0] - '0')
			counted[group] = true // AU8: also when it has no row for the type
		}
		if granted[group] || !strings.Contains(r.rights, q.right) || !r.matches(&q) {
			continue
		}
		if group == 0 {
			return false // AU7
		}
		granted[group] = true
	}
	return counted != [10]bool{} && counted == granted // AU3; OR inside a group, AND across groups (AU8)
}

// matches is AU9: all columns together.
func (r *row) matches(q *question) bool {
	return among(r.kind, q.kind) && among(r.name, q.name) && attribute(r.host, q.host) && attribute(r.login, q.login)
}

// attribute is AU16: one that the object does not have matches.
func attribute(column, text string) bool { return text == "" || among(column, text) }

// among is AU12 and AU15: a column lists filters, and an empty one does not restrict.
func among(column, text string) bool {
	if column == "" {
		return true
	}
	for {
		element, rest, more := strings.Cut(column, ",")
		if element = strings.TrimSpace(element); element != "" && glob(element, text) {
			return true
		}
		if !more {
			return false
		}
		column = rest
	}
}

// glob is AU11.
func glob(pattern, text string) bool {
	for pattern != "" {
		switch {
		case pattern[0] == '*':
			for i := len(text); i >= 0; i-- {
				if glob(pattern[1:], text[i:]) {
					return true
				}
			}
			return false
		case text == "":
			return false
		case pattern[0] == '?':
			_, n := utf8.DecodeRuneInString(text)
			pattern, text = pattern[1:], text[n:]
		case pattern[0] != text[0]:
			return false
		default:
			pattern, text = pattern[1:], text[1:]
		}
	}
	return text == ""
}
