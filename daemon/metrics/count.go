package metrics

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// mostSeries bounds a tally. Labels have few values by what they are; should
// one ever have more, what is new is counted as "other".
const mostSeries = 500

// tally counts by the values of its labels.
type tally struct {
	labels []string

	mu sync.Mutex // guards what follows
	n  map[[4]string]uint64
}

// add counts one. It keeps the values.
func (t *tally) add(values ...string) {
	var key [4]string
	copy(key[:], values)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.n == nil {
		t.n = map[[4]string]uint64{}
	}
	if _, known := t.n[key]; !known && len(t.n) >= mostSeries {
		key = [4]string{"other", "other", "other", "other"}
	}
	t.n[key]++
}

// write puts all counts on the page, in order.
func (t *tally) write(p *page) {
	t.mu.Lock()
	n := maps.Clone(t.n)
	t.mu.Unlock()
	for _, key := range slices.SortedFunc(maps.Keys(n), func(a, b [4]string) int { return slices.Compare(a[:], b[:]) }) {
		var pairs []string
		for i, name := range t.labels {
			pairs = append(pairs, name, key[i])
		}
		p.value(float64(n[key]), pairs...)
	}
}

// bounds are the upper ends of a histogram's classes: from an answer out of
// memory to a sync that hangs.
var bounds = [...]time.Duration{
	100 * time.Microsecond, 250 * time.Microsecond, time.Millisecond, 5 * time.Millisecond, 25 * time.Millisecond,
	100 * time.Millisecond, 500 * time.Millisecond, 2 * time.Second, 10 * time.Second,
}

// histogram counts times by class. The zero value is empty.
type histogram struct {
	counts [len(bounds) + 1]atomic.Uint64 // the last: above all bounds
	sum    atomic.Int64                   // nanoseconds
}

func (h *histogram) observe(d time.Duration) {
	i := 0
	for i < len(bounds) && d > bounds[i] {
		i++
	}
	h.counts[i].Add(1)
	h.sum.Add(int64(d))
}
