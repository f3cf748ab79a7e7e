// Package version says which build this is. All programs of one build share it.
package version

// Set by the linker; installer/tools/version finds them out. They come from the commit, so that the same commit gives
// the same programs, bit by bit.
var (
	Number = "unversioned"
	Commit = "unknown" // 40 hexadecimal digits
	Date   = "unknown" // the commit's, as 2026-11-22T12:52:58Z
)
