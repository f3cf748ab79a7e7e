// Package doctor runs the looks of a diagnosis side by side, each within its time, and collects what they found.
package doctor

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Result is how a check came out.
type Result string

// The results. Scripts rely on them.
const (
	OK      Result = "ok"
	Note    Result = "note"    // well, and good to know
	Problem Result = "problem" // something that a person has to mend
	Unknown Result = "unknown" // it could not be looked at: Reason says why, Mend who can
)

// Check is one thing that was looked at. Its Name never changes meaning.
type Check struct {
	Name   string `json:"name"`
	Result Result `json:"result"`
	Reason string `json:"reason"`
	Mend   string `json:"mend,omitempty"` // the command or the line of a configuration that mends it
}

// Look does one or more checks. What needs another look's outcome waits for it in Do.
type Look struct {
	Name string        // of the check that says that it took too long
	Time time.Duration // at most
	Do   func(context.Context) []Check
}

// Run does all looks at once and returns their checks in the order of the looks. One that is not done in its time is
// left behind, with a check that says so.
func Run(ctx context.Context, looks []Look) []Check {
	found := make([][]Check, len(looks))
	var all sync.WaitGroup
	for i, l := range looks {
		all.Go(func() { found[i] = l.run(ctx) })
	}
	all.Wait()
	checks := []Check{}
	for _, f := range found {
		checks = append(checks, f...)
	}
	return checks
}

func (l Look) run(ctx context.Context) []Check {
	ctx, cancel := context.WithTimeout(ctx, l.Time)
	defer cancel()
	done := make(chan []Check, 1)
	go func() { done <- l.Do(ctx) }() // a system call that hangs keeps it until the program ends
	select {
	case checks := <-done:
		return checks
	case <-ctx.Done():
	}
	select {
	case checks := <-done:
		return checks
	case <-time.After(l.Time / 10): // what heard of the end says what it knows
	}
	return []Check{{Name: l.Name, Result: Unknown, Reason: fmt.Sprintf("it was not done within %v", l.Time)}}
}

// Count says how many checks came out so.
func Count(checks []Check, r Result) (n int) {
	for _, c := range checks {
		if c.Result == r {
			n++
		}
	}
	return n
}
