package main

import (
	"fmt"
	"runtime"
	"time"
)

// An engine decides by rows. Ask readies questions, outside of all
// measurements, and returns what answers the i'th of them.
type engine interface {
	ask(questions []question) (func(i int) (bool, error), error)
}

// A contender is a way to decide.
type contender struct {
	name  string
	build func(rows []row) (engine, error)
	peer  bool // the bounds hold against it
}

// contenders are all ways, ours first. The tuned ones are the peers with rows
// that were taken apart by hand, for the peers' sake.
var contenders = []contender{
	{"ours", newOurs, false},
	{"linear", newLinear, false},
	{"cedar-go", newCedar, true},
	{"casbin", newCasbin, true},
	{"cedar-go tuned", newCedarTuned, false},
	{"casbin tuned", newCasbinTuned, false},
}

// byGroup takes rows apart.
func byGroup(rows []row) (one, two, nots []row) {
	for _, r := range rows {
		switch r.group {
		case "1":
			one = append(one, r)
		case "2":
			two = append(two, r)
		default:
			nots = append(nots, r)
		}
	}
	return one, two, nots
}

// A cost is what one decision costs. The zero cost was not measured.
type cost struct {
	ns     float64 // of the best round
	allocs float64
	asked  int // distinct questions in a round
}

// An effort bounds a measurement. A round asks as many of the questions as
// its time allows, but at least a few, and always the same ones.
type effort struct {
	round    time.Duration
	least    int
	rounds   int
	allAtAll bool // all questions in each round, whatever the time
}

// measure asks e. Every answer is held against the one that is expected, in a
// round that is not counted. Half of what is asked is allowed.
func (f effort) measure(e engine, questions []question) (c cost, err error) {
	ask, err := e.ask(questions)
	if err != nil {
		return c, err
	}
	c.asked = len(questions)
	begun := time.Now()
	for i, q := range questions {
		if !f.allAtAll && i%2 == 0 && i >= f.least && time.Since(begun) > f.round {
			c.asked = i
			break
		}
		allowed, err := ask(i)
		if err != nil {
			return c, err
		}
		if allowed != q.allowed {
			return c, fmt.Errorf("answers %v to %+v", allowed, q)
		}
	}
	var before, after runtime.MemStats
	for round := range f.rounds {
		runtime.ReadMemStats(&before)
		begun := time.Now()
		for i := range c.asked {
			if _, err := ask(i); err != nil {
				return c, err
			}
		}
		took := time.Since(begun)
		runtime.ReadMemStats(&after)
		ns := float64(took.Nanoseconds()) / float64(c.asked)
		allocs := float64(after.Mallocs-before.Mallocs) / float64(c.asked)
		if round == 0 {
			c.ns, c.allocs = ns, allocs
		}
		c.ns, c.allocs = min(c.ns, ns), min(c.allocs, allocs)
	}
	return c, nil
}

// better is the lesser of two costs that were measured in the same way.
func better(a, b cost) cost {
	return cost{min(a.ns, b.ns), min(a.allocs, b.allocs), a.asked}
}
