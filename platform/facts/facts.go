// Package facts tells about the host what somebody far away needs to know to help, in the system's own words. It reads
// nothing that holds a secret, and of files that might, no more than name, owner, mode and size.
package facts

import (
	"context"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"
)

// Fact is a named text, or why there is none.
type Fact struct {
	Name string // a relative path, with slashes
	Text string
	Err  error
}

// System is kernel, distribution, memory, cgroups and the settings that matter to us.
func System() []Fact { return system() }

// Processes are identity, limits and cgroup of each running process of these programs.
func Processes(programs ...string) []Fact { return processes(programs) }

// Units are the files of these units of the system's service manager, with what was dropped in. Values of
// environments and credentials are left out.
func Units(names ...string) []Fact { return units(names) }

// Journal is the last lines that these units wrote into the system's journal. The error wraps errors.ErrUnsupported
// where there is no journal.
func Journal(ctx context.Context, lines int, units ...string) (string, error) {
	return journal(ctx, lines, units)
}

// List names what lies in and below dir: mode, owner, size, time, path; at most so many lines. What cannot be looked
// at has a line that says so.
func List(dir string, most int) string {
	var b strings.Builder
	n := 0
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error { // each error has its line
		if n++; n > most {
			fmt.Fprintf(&b, "there is more than these %d\n", most)
			return fs.SkipAll
		}
		if err != nil {
			fmt.Fprintf(&b, "%v\n", err)
			return nil
		}
		info, err := d.Info()
		if err != nil {
			fmt.Fprintf(&b, "%v\n", err)
			return nil
		}
		fmt.Fprintf(&b, "%s %s %12d %s %s\n", info.Mode(), owner(info), info.Size(), info.ModTime().UTC().Format(time.RFC3339), path)
		return nil
	})
	return b.String()
}
