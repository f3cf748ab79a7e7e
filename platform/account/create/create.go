// Package create makes and removes the system accounts that services run as.
package create

import (
	"context"
	"fmt"
	"strings"
)

// An Entry is one line of a sysusers.d(5) file: a user with a group of the same name, or a group.
type Entry struct {
	Name    string
	User    bool // else a group alone
	Comment string
	Home    string
	Shell   string
}

// Parse reads the lines "u NAME - "COMMENT" HOME SHELL" and "g NAME -" of a sysusers.d(5) file; it knows no others.
func Parse(text string) ([]Entry, error) {
	var all []Entry
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line == "" || line[0] == '#' {
			continue
		}
		before, rest, quoted := strings.Cut(line, `"`)
		comment, after, closed := strings.Cut(rest, `"`)
		f, more := strings.Fields(before), strings.Fields(after)
		switch {
		case len(f) == 3 && f[0] == "u" && f[2] == "-" && quoted && closed && len(more) == 2:
			all = append(all, Entry{Name: f[1], User: true, Comment: comment, Home: more[0], Shell: more[1]})
		case len(f) == 3 && f[0] == "g" && f[2] == "-" && !quoted:
			all = append(all, Entry{Name: f[1]})
		default:
			return nil, fmt.Errorf("create: the line %q is not understood", line)
		}
	}
	return all, nil
}

// Conflicts says of each entry whose name is taken by something else than a service's account, what that is: a person's
// user or group. One that Make made, here or earlier, is none.
func Conflicts(entries []Entry) ([]string, error) { return conflicts(entries) }

// Missing returns the entries that this host does not have.
func Missing(entries []Entry) ([]Entry, error) { return absent(entries) }

// Make makes what is missing of the entries, as system accounts that nobody can log in to: with systemd-sysusers, or
// with groupadd and useradd where that is not there. A user's group that is there already becomes the user's.
func Make(ctx context.Context, entries []Entry) error { return makeAll(ctx, entries) }

// Remove removes users with their groups, and groups. What is not there is no error. Their files stay.
func Remove(ctx context.Context, entries []Entry) error { return removeAll(ctx, entries) }
