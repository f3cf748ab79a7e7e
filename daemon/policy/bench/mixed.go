package main

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// How a column is made from what it has to match.
const (
	exact = iota
	prefix
	suffix
	forms
)

// A place is a host and a login where a row applies.
type place struct{ host, login string }

// mixed pairs each row of group 1 with a row of group 2, so that some names
// match both: allowed is what both match.
//
// Numbers in names of rows are even, six digits wide and never cut by a
// filter; odd ones are of no row. The hosts and logins that begin with ZZ are
// of no row either, and no allowed name has a part that begins with ROOT.
type mixed struct {
	rnd                 *rand.Rand
	first, second, nots []mixedRow
}

type mixedRow struct {
	row
	place
	number int
	form   int    // of its name
	pair   int    // for group 1: its row of group 2; for NOT: of group 1
	denied string // for NOT: what its name begins with or is
}

func number(i int) string { return fmt.Sprintf("%06d", 2*i) }

// nobody is a number that no row has.
func nobody(rnd *rand.Rand) string { return fmt.Sprintf("%06d", 2*rnd.IntN(100_000)+1) }

func digits(rnd *rand.Rand, n int) string {
	below := 1
	for range n {
		below *= 10
	}
	return fmt.Sprintf("%0*d", n, rnd.IntN(below))
}

// column makes a filter for a host or login: half of them are exact, a
// quarter is * and a quarter matches by the first four characters.
func column(text string, i int) string {
	switch i % 4 {
	case 2:
		return "*"
	case 3:
		return text[:4] + "*"
	}
	return text
}

// value makes a host or login that both filters match, which were made from text.
func (m *mixed) value(text, one, other string) string {
	switch {
	case one == text || other == text:
		return text
	case one == "*" && other == "*":
		return text[:2] + digits(m.rnd, 4)
	}
	return text[:4] + digits(m.rnd, 2)
}

var areas = [...]string{"PAY", "BIL", "LOGIST", "CRM", "FINANCE"}

// area is how names begin where row i of group 2 applies.
func area(i int) string { return areas[i%len(areas)] + number(i) }

func closing(i int) string { return area(i) + ".CLOSE.M1" }

func newMixed(n int, rnd *rand.Rand) maker {
	m := &mixed{rnd: rnd}
	first, second, nots := split(n)
	for i := range second {
		r := mixedRow{number: i, form: [...]int{prefix, suffix, exact}[i%3]}
		r.place = place{"UX" + digits(m.rnd, 4), "SV" + digits(m.rnd, 4)}
		r.row = row{"2", "*", "", column(r.place.host, i/3+2), column(r.place.login, i/12+2), "RX"}
		r.row.name = [...]string{exact: closing(i), prefix: area(i) + ".*", suffix: "*.S" + number(i)}[r.form]
		m.second = append(m.second, r)
	}
	for i := range first {
		m.first = append(m.first, m.newFirst(i))
	}
	m.newNots(nots)
	return m
}

func (m *mixed) newFirst(i int) mixedRow {
	s := m.second[i%len(m.second)]
	r := mixedRow{number: i, pair: s.number, form: i / len(m.second) % forms, place: s.place}
	if s.row.host != s.place.host {
		r.place.host = s.place.host[:4] + digits(m.rnd, 2)
	}
	if s.row.login != s.place.login {
		r.place.login = s.place.login[:4] + digits(m.rnd, 2)
	}
	kind := [...]string{"JOBS", "JOBS", "JOBS", "JOBP", "JOBS", "*", "JOBS", "JOBF", "JOBS", "JOBS"}[i%10]
	rights := [...]string{"RX", "RXD", "RWXDCSP"}[i%3]
	r.row = row{"1", kind, "", column(r.place.host, i), column(r.place.login, i/4), rights}
	n := number(i)
	r.row.name = [forms][forms]string{
		exact:  {exact: closing(s.number), prefix: area(s.number) + ".*", suffix: "*" + number(s.number) + ".CLOSE.M1"},
		prefix: {exact: area(s.number) + ".LOAD" + n, prefix: area(s.number) + ".T" + n + ".*", suffix: "*.T" + n + ".END"},
		suffix: {exact: "LOAD" + n + ".S" + number(s.number), prefix: "R" + n + ".*", suffix: "*.E" + n + ".S" + number(s.number)},
	}[s.form][r.form]
	return r
}

// newNots takes from rows of group 1 that go by prefix, as their rows of group 2 do.
func (m *mixed) newNots(n int) {
	var pairs []int
	for i, r := range m.first {
		if r.form == prefix && m.second[r.pair].form == prefix {
			pairs = append(pairs, i)
		}
	}
	for k := range n {
		i := pairs[k*len(pairs)/n]
		r := mixedRow{pair: i, place: m.first[i].place, number: k, form: k % forms}
		base := strings.TrimSuffix(m.first[i].row.name, "*")
		r.denied = base + "ROOT" + number(k)
		filter := [...]string{exact: r.denied, prefix: base + "ROOT*", suffix: "*.ROOT" + number(k)}[r.form]
		r.row = row{"NOT", "*", filter, [...]string{"*", r.place.host}[k%2], "*", "WX"}
		m.nots = append(m.nots, r)
	}
}

func (m *mixed) list() (rows []row) {
	for _, list := range [][]mixedRow{m.first, m.second, m.nots} {
		for _, r := range list {
			rows = append(rows, r.row)
		}
	}
	return rows
}

func (m *mixed) any() (first, second mixedRow) {
	first = m.first[m.rnd.IntN(len(m.first))]
	return first, m.second[first.pair]
}

// question asks about a name where both rows apply.
func (m *mixed) question(first, second mixedRow, name string) question {
	kind := first.kind
	if kind == "*" {
		kind = "JOBS"
	}
	return question{kind: kind, name: name, right: "X",
		host:  m.value(first.place.host, first.row.host, second.row.host),
		login: m.value(first.place.login, first.row.login, second.row.login)}
}

// called makes a name that both rows match, if n and pair are their numbers.
func (m *mixed) called(first, second mixedRow, n, pair string) string {
	a, v := areas[second.number%len(areas)]+pair, "V"+digits(m.rnd, 4)
	return [forms][forms]string{
		exact:  {a + ".CLOSE.M1", a + ".CLOSE.M1", a + ".CLOSE.M1"},
		prefix: {exact: a + ".LOAD" + n, prefix: a + ".T" + n + "." + v, suffix: a + "." + v + ".T" + n + ".END"},
		suffix: {exact: "LOAD" + n + ".S" + pair, prefix: "R" + n + "." + v + ".S" + pair, suffix: v + ".E" + n + ".S" + pair},
	}[second.form][first.form]
}

// usual makes a question that both rows grant.
func (m *mixed) usual(first, second mixedRow) question {
	return m.question(first, second, m.called(first, second, number(first.number), number(second.number)))
}

func (m *mixed) allow() question {
	first, second := m.any()
	q := m.usual(first, second)
	q.right = [...]string{"X", "X", "X", "R"}[m.rnd.IntN(4)]
	q.allowed = true
	return q
}

func (m *mixed) denials() int { return 5 }

func (m *mixed) deny(kind int) question {
	first, second := m.any()
	switch kind {
	case 1: // no right in group 2, whose rows do not have it
		q := m.usual(first, second)
		q.right = "D"
		return q
	case 2: // group 1 only
		for second.form == exact || second.form == first.form || first.form == exact {
			first, second = m.any()
		}
		return m.question(first, second, m.called(first, second, number(first.number), nobody(m.rnd)))
	case 3: // a NOT row
		r := m.nots[m.rnd.IntN(len(m.nots))]
		return m.forbidden(r, m.first[r.pair])
	case 4: // the name, but another host
		for second.form == exact || first.row.host == "*" {
			first, second = m.any()
		}
		q := m.usual(first, second)
		q.host = "ZZ" + digits(m.rnd, 4)
		return q
	}
	// a name of no row
	return m.question(first, second, m.called(first, second, nobody(m.rnd), nobody(m.rnd)))
}

// forbidden makes a question that both groups allow and the NOT row r denies.
func (m *mixed) forbidden(r, first mixedRow) question {
	name := r.denied
	switch r.form {
	case prefix:
		name += "." + digits(m.rnd, 4)
	case suffix:
		name = strings.TrimSuffix(first.row.name, "*") + "V" + digits(m.rnd, 4) + ".ROOT" + number(r.number)
	}
	q := m.question(first, m.second[first.pair], name)
	if r.row.host != "*" {
		q.host = r.place.host
	}
	return q
}
