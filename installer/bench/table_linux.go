package main

import (
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"
)

// A figure is one thing that is measured again and again.
type figure struct {
	name  string
	per   int          // how often in a round
	ready func() error // what goes before each once and is not measured; may be nil
	once  func() error // what is measured
	took  []time.Duration
}

// A group is a reference and what is compared to it.
type group struct {
	reference *figure // nil when it cannot be had; why says why
	why       string
	figures   []*figure
}

// A table is all groups, and what must be closed after them.
type table struct {
	groups  []group
	closers []func() error
}

func (t *table) all() (all []*figure) {
	for _, g := range t.groups {
		if g.reference != nil {
			all = append(all, g.reference)
		}
		all = append(all, g.figures...)
	}
	return all
}

// close ends what the references run on.
func (t *table) close() error {
	var errs []error
	for _, c := range slices.Backward(t.closers) {
		errs = append(errs, c())
	}
	return errors.Join(errs...)
}

// rounds say how often all figures take turns, so that what else the machine
// does meets all of them alike.
type rounds struct {
	number int
	wait   time.Duration // between turns
}

func (r rounds) run(figures []*figure) error {
	for round := range r.number {
		for _, f := range figures {
			if round == 0 { // the first goes to caches and connections
				if err := f.measure(1); err != nil {
					return err
				}
				f.took = f.took[:0]
			}
			if err := f.measure(f.per); err != nil {
				return err
			}
			time.Sleep(r.wait)
		}
	}
	return nil
}

func (f *figure) measure(times int) error {
	for range times {
		if f.ready != nil {
			if err := f.ready(); err != nil {
				return fmt.Errorf("%s: %w", f.name, err)
			}
		}
		begun := time.Now()
		err := f.once()
		f.took = append(f.took, time.Since(begun))
		if err != nil {
			return fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return nil
}

// quantile returns the duration that a share q of the measurements did not exceed.
func (f *figure) quantile(q float64) time.Duration {
	sorted := slices.Sorted(slices.Values(f.took))
	return sorted[min(len(sorted)-1, int(q*float64(len(sorted))))]
}

// print writes what was measured.
func (t *table) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "\tp50\tp99\tp50 ratio\tp99 ratio\tn")
	for _, g := range t.groups {
		if g.reference == nil {
			fmt.Fprintf(w, "no reference: %s\t\t\t\t\t\n", g.why)
		} else {
			row(w, g.reference, g.reference, "= ")
		}
		for _, f := range g.figures {
			row(w, f, g.reference, "  ")
		}
		fmt.Fprintln(w, "\t\t\t\t\t")
	}
	return w.Flush()
}

func row(w io.Writer, f, reference *figure, mark string) {
	p50, p99 := f.quantile(0.50), f.quantile(0.99)
	ratios := "-\t-"
	if reference != nil {
		ratios = fmt.Sprintf("%.2f\t%.2f", float64(p50)/float64(reference.quantile(0.50)), float64(p99)/float64(reference.quantile(0.99)))
	}
	fmt.Fprintf(w, "%s%s\t%s\t%s\t%s\t%d\n", mark, f.name, micro(p50), micro(p99), ratios, len(f.took))
}

func micro(d time.Duration) string {
	return fmt.Sprintf("%.1fus", float64(d)/float64(time.Microsecond))
}
