package main

import (
	"fmt"
	"io"
	"text/tabwriter"
	"time"
)

// A line is what was measured for one number of rows of one variant.
type line struct {
	variant variant
	rows    int
	costs   []cost    // of the contenders, in their order
	index   indexCost // zero: not measured
}

// ratio is how many times as long a contender takes as ours.
func (l line) ratio(i int) float64 { return l.costs[i].ns / l.costs[0].ns }

func write(to io.Writer, lines []line) error {
	for len(lines) > 0 {
		n := 1
		for n < len(lines) && lines[n].variant.name == lines[0].variant.name {
			n++
		}
		if err := writeVariant(to, lines[:n]); err != nil {
			return err
		}
		lines = lines[n:]
	}
	return nil
}

// writeVariant leaves out what was not measured for any number of rows.
func writeVariant(to io.Writer, lines []line) error {
	shown := make([]bool, len(contenders))
	loads := false
	for _, l := range lines {
		for i, c := range l.costs {
			shown[i] = shown[i] || c.asked > 0
		}
		loads = loads || l.index.rows > 0
	}
	v := lines[0].variant
	w := tabwriter.NewWriter(to, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintf(w, "%s: %s\nrows\t", v.name, v.about)
	for i, c := range contenders {
		switch {
		case i == 0:
			fmt.Fprintf(w, "%s\tallocs\t", c.name)
		case shown[i]:
			fmt.Fprintf(w, "%s\tratio\tallocs\t", c.name)
		}
	}
	if loads {
		fmt.Fprint(w, "load\tits index\tindex/rows\t")
	}
	fmt.Fprintln(w)
	for _, l := range lines {
		fmt.Fprintf(w, "%d\t", l.rows)
		for i, c := range l.costs {
			switch {
			case !shown[i]:
			case c.asked == 0:
				fmt.Fprint(w, "-\t-\t-\t")
			case i == 0:
				fmt.Fprintf(w, "%.0f ns\t%.4g\t", c.ns, c.allocs)
			default:
				fmt.Fprintf(w, "%.0f ns\t%s\t%.0f\t", c.ns, times(l.ratio(i)), c.allocs)
			}
		}
		if loads {
			fmt.Fprintf(w, "%s\t%s\t%.2f\t", milliseconds(l.index.parse), milliseconds(l.index.index), l.index.memory)
		}
		fmt.Fprintln(w)
	}
	fmt.Fprintln(w)
	return w.Flush()
}

func times(ratio float64) string {
	if ratio < 10 {
		return fmt.Sprintf("%.1fx", ratio)
	}
	return fmt.Sprintf("%.0fx", ratio)
}

func milliseconds(d time.Duration) string {
	return fmt.Sprintf("%.2f ms", float64(d.Microseconds())/1000)
}
