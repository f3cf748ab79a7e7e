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
	only := flag.Bool("many", false, "only what has a bound: a daemon with many credentials")
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
	if err := measureAll(*quick, *only, *check, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// measureAll runs beds and everything there is to measure, or only what has a
// bound.
func measureAll(quick, many, check bool, out io.Writer) error {
	if !many {
		err := withBed(testbed.Options{OnDisk: true}, func(bed *testbed.Bed) error { return benchmark(bed, quick, out) })
		if err != nil {
			return err
		}
	}
	return withBed(manyOptions(), func(bed *testbed.Bed) error {
		n := 10_000
		if quick {
			n = 200
		}
		found, err := measureMany(bed, n)
		over := found.print(out)
		if !check && errors.Is(over, errOver) {
			over = nil
		}
		return errors.Join(err, over)
	})
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
