// Package version is the number that all programs of one build share.
package version

// Set by the linker; see the Makefile.
var (
	Number = "unversioned"
	Commit = "unknown"
)
