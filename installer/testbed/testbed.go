// Package testbed runs the real programs on a real server for real accounts,
// for tests, the demo and the benchmarks.
//
// A test package that wants it says so in its TestMain:
//
//	func TestMain(m *testing.M) { os.Exit(testbed.Main(m)) }
//
// As root, the tests then run in mount and pid namespaces of their own, with a
// copy-on-write /etc and an empty /run. Accounts made there are real ones for
// everything that runs there, and none of it is left however the tests end.
// The demo does without that and works on the machine itself: it makes
// accounts that are marked as its own, and removes them.
package testbed

import (
	"os"
	"strconv"
)

// TB is what a Bed needs of a test or benchmark.
type TB interface {
	Helper()
	Cleanup(func())
	Failed() bool
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skip(args ...any)
}

// NoSkip names the variable with which a test that would be skipped fails.
const NoSkip = "BATCHWARDEN_NO_SKIP"

// Seed is what tests that choose at random begin with: the same for every run
// unless BATCHWARDEN_SEED says otherwise.
func Seed() uint64 {
	seed, err := strconv.ParseUint(os.Getenv("BATCHWARDEN_SEED"), 10, 64)
	if err != nil {
		return 1
	}
	return seed
}
