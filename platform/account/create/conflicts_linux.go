package create

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"batchwarden/platform/account"
)

// persons is the first number that systems give to people.
const persons = 1000

func conflicts(entries []Entry) (found []string, err error) {
	text, err := os.ReadFile("/etc/group")
	if err != nil {
		return nil, fmt.Errorf("create: %w", err)
	}
	say := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	for _, e := range entries {
		if !e.User {
			continue // whoever is in a group of that name was put there to have what it gives
		}
		group, there := groupLine(string(text), e.Name)
		others := slices.DeleteFunc(group.members, func(name string) bool { return name == e.Name })
		if len(others) > 0 {
			say("group %s is there already and has members that are no service of ours: %s", e.Name, strings.Join(others, ", "))
		}
		user, err := account.System().Fresh(e.Name)
		switch {
		case errors.Is(err, account.ErrMissing):
			if there && (group.gid == "0" || len(group.gid) > 3) {
				say("group %s is there already, and with gid %s it is no service's", e.Name, group.gid)
			}
			continue
		case err != nil:
			return nil, fmt.Errorf("create: %w", err)
		}
		if user.UID == 0 || user.UID >= persons {
			say("user %s is there already, and with uid %d it is no service's", e.Name, user.UID)
		}
		if shell := filepath.Base(user.Shell); shell != "nologin" && shell != "false" {
			say("user %s is there already and can log in, with the shell %q", e.Name, user.Shell)
		}
		if !there || group.gid != fmt.Sprint(user.GID) {
			say("user %s is there already, and its group, %d, is none of its own", e.Name, user.GID)
		}
	}
	return found, nil
}

type group struct {
	gid     string
	members []string
}

// groupLine finds a group in the text of /etc/group.
func groupLine(text, name string) (group, bool) {
	for line := range strings.Lines(text) {
		f := strings.Split(strings.TrimRight(line, "\n"), ":")
		if len(f) == 4 && f[0] == name {
			return group{f[2], strings.FieldsFunc(f[3], func(r rune) bool { return r == ',' })}, true
		}
	}
	return group{}, false
}
