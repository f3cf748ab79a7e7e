package main

import (
	"math/rand/v2"
)

// A row is one line of a profile. Every text is in upper case, so that the
// peers need not fold what ours and the linear scan do (AU14).
type row struct {
	group, kind, name, host, login, rights string
}

// A question is one request and the answer that it was made to have. Its host
// and login are never empty, so that AU16 needs no expression by the peers.
type question struct {
	kind, name, host, login, right string
	allowed                        bool
}

// A variant says by which columns rows differ.
type variant struct {
	name  string
	about string
	make  func(n int, rnd *rand.Rand) maker
}

var variants = []variant{
	{"mixed", "names exact, prefix* and *suffix, hosts and logins exact or wildcard", newMixed},
	{"host", "Name * in every row, which differ only by host", newByHost},
	{"login", "Name * in every row, which differ only by login", newByLogin},
	{"host*", "as host, but every tenth host is a pattern that ends in *", newByPattern},
}

// A maker made rows and makes questions about them.
type maker interface {
	list() []row
	allow() question
	// deny makes a question of one of so many kinds that the rows deny.
	deny(kind int) question
	denials() int
}

// A workload is one user's rows and questions about them. The questions are
// distinct, and every second one is allowed, so that of any even number of
// them half are.
type workload struct {
	rows      []row
	questions []question
}

const (
	requests = 10_000
	seed     = 3
)

// newWorkload makes n rows: one in a hundred is a NOT row, four are of
// group 2, the others of group 1; of each at least one.
func newWorkload(v variant, n int) workload {
	rnd := rand.New(rand.NewPCG(seed, uint64(n)))
	m := v.make(n, rnd)
	w := workload{rows: m.list(), questions: make([]question, 0, requests)}
	rnd.Shuffle(len(w.rows), func(i, j int) { w.rows[i], w.rows[j] = w.rows[j], w.rows[i] })
	seen := make(map[question]bool, requests)
	for i := range requests {
		for try := 0; ; try++ {
			q := m.allow
			if i%2 == 1 {
				q = func() question { return m.deny((i/2 + try) % m.denials()) }
			}
			if q := q(); !seen[q] {
				seen[q] = true
				w.questions = append(w.questions, q)
				break
			}
		}
	}
	return w
}

// split returns how many of n rows are of group 1, group 2 and NOT.
func split(n int) (first, second, nots int) {
	second, nots = max(1, n*4/100), max(1, n/100)
	return n - second - nots, second, nots
}
