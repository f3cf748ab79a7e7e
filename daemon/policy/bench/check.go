package main

import (
	"fmt"
	"math"
	"time"
)

// check returns what misses a bound. A bound that was not measured is missed, too.
func check(lines []line) (missed []string) {
	b := bounds{first: map[string]float64{}}
	for _, l := range lines {
		b.line(l)
	}
	if b.times != len(variants)*len(sizes) || b.indexes == 0 || b.peers != len(leastRatio) {
		b.missed = append(b.missed, "not all that has a bound was measured")
	}
	return b.missed
}

type bounds struct {
	missed                []string
	first                 map[string]float64 // by variant: a decision by the fewest rows
	times, indexes, peers int                // how many were held against a bound
}

func (b *bounds) line(l line) {
	miss := func(format string, args ...any) {
		b.missed = append(b.missed, fmt.Sprintf("%s, %d rows: ", l.variant.name, l.rows)+fmt.Sprintf(format, args...))
	}
	ours, largest := l.costs[0], l.rows == sizes[len(sizes)-1]
	if ours.allocs > 0 {
		miss("%.4g allocations a decision, not 0", ours.allocs)
	}
	b.times++
	most := 1000.0
	if largest {
		most = 2000
	}
	if ours.ns > most {
		miss("a decision takes %.0f ns, at most %.0f", ours.ns, most)
	}
	if l.rows == sizes[0] {
		b.first[l.variant.name] = ours.ns
	}
	if growth := ours.ns / b.first[l.variant.name]; largest && growth > 8 {
		miss("a decision takes %.1f times as long as by %d rows, at most 8", growth, sizes[0])
	}

	if largest && l.index.rows > 0 {
		b.indexes++
		if l.index.index > time.Second {
			miss("the index takes %v, at most 1s", l.index.index)
		}
		if l.index.memory > 3 {
			miss("the index takes %.2f times the memory of the rows, at most 3", l.index.memory)
		}
	}
	if least := leastRatio[l.rows]; least > 0 && l.variant.name == "mixed" {
		b.peers++
		if faster := l.fasterPeer(); faster < least {
			miss("the faster peer takes %.0f times as long, at least %.0f", faster, least)
		}
	}
}

// leastRatio is how much faster ours is than the faster peer, by rows.
var leastRatio = map[int]float64{100: 100, 10_000: 5000}

// fasterPeer returns the ratio of the faster peer; 0 when one was not measured.
func (l line) fasterPeer() float64 {
	ratio := math.Inf(1)
	for i, c := range contenders {
		if c.peer {
			ratio = min(ratio, l.ratio(i))
		}
	}
	return ratio
}
