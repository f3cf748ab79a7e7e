// Command bench measures what a decision by Automic rows costs: by our
// engine, by a plain scan over the rows, and by cedar-go and casbin with one
// policy for each row, all on the same rows and requests in the same run.
//
// One user has 10 to 100,000 rows; 10,000 distinct requests, half of which
// are allowed, come from a fixed seed. Every answer is checked. A figure is
// the best of several short rounds, because other programs may run on the
// machine meanwhile: the least that was seen is what the program itself needs.
// A slow engine is asked fewer of the same requests. Rounds of the peers are
// long enough to have the collections that their allocations cause.
//
// With --check it ends with 1 when a bound is missed, which it names. With
// --quick it takes seconds, and the peers are left out where they take long.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"time"
)

const legend = `A figure is the time of one decision in the best of several short rounds, for the machine may be busy with others.
ratio: to ours. allocs: allocations a decision. -: not measured. load: from the document's bytes to an engine that
decides; its index: what of that is for the index; index/rows: memory besides the rows, as a multiple of theirs.
tuned: rows taken apart by group, and the rest said in the way that costs the peer least; no bound holds against these.
`

var sizes = []int{10, 100, 1000, 10_000, 100_000}

func main() {
	quick := flag.Bool("quick", false, "take seconds: fewer rounds, and peers only where a bound needs them")
	bounds := flag.Bool("check", false, "end with 1 when a bound is missed")
	flag.Parse()
	if err := run(*quick, *bounds); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func run(quick, bounds bool) error {
	lines, err := measureAll(planFor(quick))
	if err != nil {
		return err
	}
	if err := write(os.Stdout, lines); err != nil {
		return err
	}
	fmt.Print(legend)
	if !bounds {
		return nil
	}
	missed := check(lines)
	for _, m := range missed {
		fmt.Println("missed:", m)
	}
	if missed != nil {
		return errors.New("bounds are missed")
	}
	fmt.Println("all bounds hold")
	return nil
}

// A plan says how much is measured.
type plan struct {
	ours, others effort
	variants     []variant
	loads        func(v variant) int                      // how often rows are loaded
	asks         func(v variant, n int, c contender) bool // whether c, which is not ours, is measured
}

func planFor(quick bool) plan {
	if quick {
		return plan{
			ours:     effort{rounds: 15, allAtAll: true},
			others:   effort{round: 100 * time.Millisecond, least: 10, rounds: 3},
			variants: variants,
			loads: func(v variant) int {
				if v.name == "mixed" {
					return 1
				}
				return 0
			},
			asks: func(v variant, n int, c contender) bool {
				return v.name == "mixed" && c.peer && leastRatio[n] > 0
			},
		}
	}
	return plan{
		ours:     effort{rounds: 40, allAtAll: true},
		others:   effort{round: 100 * time.Millisecond, least: 20, rounds: 3},
		variants: variants,
		loads:    func(variant) int { return 3 },
		asks: func(v variant, n int, c contender) bool {
			return v.name == "mixed" || n <= 1000 || c.name == "linear"
		},
	}
}

func measureAll(p plan) (lines []line, err error) {
	for _, v := range p.variants {
		for _, n := range sizes {
			l, err := p.line(v, n)
			if err != nil {
				return nil, fmt.Errorf("%s, %d rows: %w", v.name, n, err)
			}
			lines = append(lines, l)
		}
	}
	return lines, nil
}

func (p plan) line(v variant, n int) (line, error) {
	w := newWorkload(v, n)
	l := line{variant: v, rows: n, costs: make([]cost, len(contenders))}
	ours, err := newOurs(w.rows)
	if err != nil {
		return l, err
	}
	runtime.GC()
	if l.costs[0], err = p.ours.measure(ours, w.questions); err != nil {
		return l, fmt.Errorf("ours: %w", err)
	}
	for i, c := range contenders[1:] {
		if !p.asks(v, n, c) {
			continue
		}
		e, err := c.build(w.rows)
		if err != nil {
			return l, fmt.Errorf("%s: %w", c.name, err)
		}
		runtime.GC()
		if l.costs[i+1], err = p.others.measure(e, w.questions); err != nil {
			return l, fmt.Errorf("%s: %w", c.name, err)
		}
	}
	// Ours again, for the machine may have been busy before.
	runtime.GC()
	again, err := p.ours.measure(ours, w.questions)
	if err != nil {
		return l, fmt.Errorf("ours: %w", err)
	}
	l.costs[0] = better(l.costs[0], again)
	if times := p.loads(v); times > 0 {
		l.index, err = measureIndex(w.rows, times)
	}
	return l, err
}
