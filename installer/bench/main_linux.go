// Command bench measures batchwarden on this machine, each figure as a ratio
// to a reference measured in the same run: a shared machine's microseconds
// mean little from one run to the next. It needs root, and leaves nothing
// behind.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"batchwarden/installer/testbed"
)

func main() {
	testbed.Role()
	role()
	quick := flag.Bool("quick", false, "few rounds: shows that it works, not how fast it is")
	many := flag.Bool("many", false, "only a daemon with many credentials")
	calls := flag.Bool("calls", false, "only what calls cost, and connections")
	launches := flag.Bool("launches", false, "only launches, and other ways to run a command as another user")
	check := flag.Bool("check", false, "fail when a figure that has a bound is over it")
	inside := flag.Bool("inside", false, "run here rather than in a sandbox of its own")
	flag.Parse()
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "bench: needs root, to start jobs as other users; run: sudo make bench")
		os.Exit(1)
	}
	if !*inside {
		code, err := testbed.Sandbox(append([]string{"-inside"}, os.Args[1:]...))
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench: sandbox:", err)
			code = 1
		}
		os.Exit(code)
	}
	if err := measureAll(choice{quick: *quick, many: *many, calls: *calls, launches: *launches}, *check, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A choice is what to measure: with none of many, calls and launches, everything.
type choice struct{ quick, many, calls, launches bool }

// measureAll measures what is chosen, each on a bed of its own. check: a figure
// over its bound is an error.
func measureAll(what choice, check bool, out io.Writer) error {
	one := what.many || what.calls || what.launches
	n, much := 10_000, fullEffort
	if what.quick {
		n, much = 200, quickEffort
	}
	var over error
	bounded := func(found bounds, err error) error {
		if wrong := found.print(out); check || !errors.Is(wrong, errOver) {
			over = errors.Join(over, wrong) // the rest is measured all the same
		}
		return err
	}
	var err error
	if !one {
		err = withBed(testbed.Options{OnDisk: true}, func(bed *testbed.Bed) error { return benchmark(bed, what.quick, out) })
	}
	if err == nil && (what.calls || !one) {
		var options testbed.Options
		if options, err = callsOptions(); err == nil {
			err = withBed(options, func(bed *testbed.Bed) error { return bounded(measureCalls(bed, much, out)) })
		}
	}
	if err == nil && (what.launches || !one) {
		err = withBed(testbed.Options{OnDisk: true}, func(bed *testbed.Bed) error { return bounded(measureLaunches(bed, what.quick, out)) })
	}
	if err == nil && (what.many || !one) {
		err = withBed(manyOptions(), func(bed *testbed.Bed) error { return bounded(measureMany(bed, n)) })
	}
	return errors.Join(err, over)
}

// withBed runs a bed for as long as f takes.
func withBed(o testbed.Options, f func(*testbed.Bed) error) (err error) {
	bed, err := testbed.Prepare(o)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, bed.Close()) }()
	if err := bed.Start(); err != nil {
		return err
	}
	return f(bed)
}

// benchmark measures on a bed that runs, and prints the table.
func benchmark(bed *testbed.Bed, quick bool, out io.Writer) error {
	rounds := rounds{number: 10, wait: 20 * time.Millisecond}
	if quick {
		rounds.number, rounds.wait = 2, 0
	}
	table, err := prepare(bed, quick)
	if err != nil {
		return err
	}
	defer table.close()
	if err := rounds.run(table.all()); err != nil {
		return err
	}
	return table.print(out)
}
