package service

import (
	"context"
	"os"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"time"
)

// ShareProcessors leaves half of the processors to those whom the program serves: each of its requests has somebody at
// the other end, and the machine is there for their work. It is also what answers soonest where there are few, because
// a goroutine that becomes ready then wakes no second processor to look for more. GOMAXPROCS in the environment
// counts instead.
func ShareProcessors() {
	half, _ := shares()
	runtime.GOMAXPROCS(half)
}

// shares are half of the processors and all that the program may use; all twice where the environment says how many.
func shares() (half, all int) {
	all = runtime.GOMAXPROCS(0)
	if os.Getenv("GOMAXPROCS") != "" {
		return all, all
	}
	return max(1, all/2), all
}

// How long goroutines that are ready wait for a processor is looked at in every look with requests. When many of them
// wait for a long time, all processors are used, and half again after so many looks in which few do. A request has
// several goroutines, and only one of them waits behind all other requests.
const (
	look = 100 * time.Millisecond
	long = 250 * time.Microsecond
	many = 0.1
	few  = 0.02
	calm = 10
)

// Processors shares them with those whom the program serves, as ShareProcessors does, for as long as half of them is
// enough.
type Processors struct {
	asked atomic.Bool // since the last look
	wake  chan struct{}
}

// NewProcessors changes nothing before Run.
func NewProcessors() *Processors { return &Processors{wake: make(chan struct{}, 1)} }

// Asked is told of each request. It may be called from any goroutine.
func (p *Processors) Asked() {
	if p.asked.Load() || p.asked.Swap(true) {
		return // Run knows
	}
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Run shares the processors until ctx ends. While nobody asks it sleeps.
func (p *Processors) Run(ctx context.Context) {
	half, all := shares()
	if half == all {
		return
	}
	runtime.GOMAXPROCS(half)
	defer runtime.GOMAXPROCS(all)
	w := newWaits()
	for quiet := calm; ; {
		if quiet >= calm {
			runtime.GOMAXPROCS(half) // which costs nothing where it is so
			select {
			case <-p.wake:
			case <-ctx.Done():
				return
			}
		}
		p.asked.Store(false)
		select {
		case <-time.After(look):
		case <-ctx.Done():
			return
		}
		switch share := w.long(); {
		case share > many:
			quiet = 0
			runtime.GOMAXPROCS(all)
		case share < few:
			quiet++
		}
	}
}

// waits are how long goroutines that were ready waited until they ran, as Go counts them.
type waits struct {
	sample []metrics.Sample
	before []uint64
}

func newWaits() *waits {
	w := &waits{sample: []metrics.Sample{{Name: "/sched/latencies:seconds"}}}
	w.long()
	return w
}

// long is which part of those that began to run since it was called last had waited for long.
func (w *waits) long() float64 {
	metrics.Read(w.sample)
	h := w.sample[0].Value.Float64Histogram()
	if w.before == nil {
		w.before = make([]uint64, len(h.Counts))
	}
	var all, slow uint64
	for i, n := range h.Counts {
		since := n - w.before[i]
		w.before[i] = n
		if all += since; h.Buckets[i] >= long.Seconds() {
			slow += since
		}
	}
	return float64(slow) / float64(max(all, 1))
}
