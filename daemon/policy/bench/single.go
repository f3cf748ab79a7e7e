package main

import "math/rand/v2"

// single makes rows that differ by their host alone, or by their login alone.
// Group 2 has a part of the hosts of group 1, and the NOT rows some of those.
type single struct {
	rnd                 *rand.Rand
	byLogin, patterns   bool
	first, second, nots int // the rows of group 1 are for the hosts 0 to first, …
}

func newByHost(n int, rnd *rand.Rand) maker  { return newSingle(n, rnd, false, false) }
func newByLogin(n int, rnd *rand.Rand) maker { return newSingle(n, rnd, true, false) }

func newByPattern(n int, rnd *rand.Rand) maker { return newSingle(n, rnd, false, true) }

func newSingle(n int, rnd *rand.Rand, byLogin, patterns bool) maker {
	m := &single{rnd: rnd, byLogin: byLogin, patterns: patterns}
	m.first, m.second, m.nots = split(n)
	return m
}

// denied is the first host that has a NOT row: group 2 has as many, where it
// has more than one.
func (m *single) denied() int { return max(1, m.second-m.nots) }

func (m *single) list() (rows []row) {
	add := func(group string, from, n int, rights string) {
		for i := from; i < from+n; i++ {
			value := "UX" + number(i)
			if m.patterns && i%10 == 9 {
				value += "*"
			}
			r := row{group, "JOBS", "*", value, "*", rights}
			if m.byLogin {
				r.host, r.login = r.login, r.host
			}
			rows = append(rows, r)
		}
	}
	add("1", 0, m.first, "RXD")
	add("2", 0, m.second, "RX")
	add("NOT", m.denied(), m.nots, "X")
	return rows
}

func (m *single) question(number string) question {
	q := question{kind: "JOBS", right: "X", name: "PAY" + digits(m.rnd, 3) + ".LOAD" + digits(m.rnd, 4)}
	q.host, q.login = "UX"+number, "SV"+digits(m.rnd, 4)
	if m.byLogin {
		q.host, q.login = q.login, q.host
	}
	return q
}

func (m *single) allow() question {
	q := m.question(number(m.rnd.IntN(min(m.second, m.denied()))))
	q.allowed = true
	return q
}

func (m *single) denials() int { return 4 }

func (m *single) deny(kind int) question {
	switch kind {
	case 1: // no right in group 2, whose rows do not have it
		q := m.question(number(m.rnd.IntN(m.second)))
		q.right = "D"
		return q
	case 2: // group 1 only
		return m.question(number(m.second + m.rnd.IntN(m.first-m.second)))
	case 3: // a NOT row
		return m.question(number(m.denied() + m.rnd.IntN(m.nots)))
	}
	return m.question(nobody(m.rnd)) // a host of no row
}
