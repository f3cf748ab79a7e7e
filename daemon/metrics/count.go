package metrics

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// mostSeries bounds a tally. Labels have few values by what they are; should
// one ever have more, what is new is counted as "other".
const mostSeries = 500

// tally counts by the values of its labels.
type tally struct {
	*prometheus.CounterVec

	mu sync.Mutex // guards n
	n  map[[4]string]prometheus.Counter
}

func (m *Metrics) tally(name, help string, labels ...string) *tally {
	t := &tally{CounterVec: prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels), n: map[[4]string]prometheus.Counter{}}
	m.registry.MustRegister(t)
	return t
}

// add counts one. It keeps the values, of which there are as many as labels.
func (t *tally) add(values ...string) {
	var key [4]string
	n := copy(key[:], values)
	t.mu.Lock()
	defer t.mu.Unlock()
	one := t.n[key]
	if one == nil {
		if len(t.n) >= mostSeries {
			key = [4]string{"other", "other", "other", "other"}
		}
		for i, value := range key {
			key[i] = text(value)
		}
		one = t.WithLabelValues(key[:n]...)
		t.n[key] = one
	}
	one.Inc()
}

// buckets are the upper ends of a histogram's classes, in seconds: from an answer out
// of memory to a sync that hangs.
var buckets = []float64{.0001, .00025, .001, .005, .025, .1, .5, 2, 10}

// times are a histogram of what takes time, for each value of a label.
func (m *Metrics) times(name, help, label string, values ...string) map[string]prometheus.Observer {
	all := prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets}, []string{label})
	m.registry.MustRegister(all)
	each := map[string]prometheus.Observer{}
	for _, value := range values {
		each[value] = all.WithLabelValues(value)
	}
	return each
}

// time is a histogram of one thing.
func (m *Metrics) time(name, help string) prometheus.Observer {
	one := prometheus.NewHistogram(prometheus.HistogramOpts{Name: name, Help: help, Buckets: buckets})
	m.registry.MustRegister(one)
	return one
}
