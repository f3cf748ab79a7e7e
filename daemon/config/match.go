package config

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Attested reports whether the entry asks for what only the launcher can find out: without it, it matches nobody.
func (m *Match) Attested() bool { return m.Exe != "" || m.SHA256 != "" || m.Unit != "" }

// covers reports whether whoever matches other matches m too, as far as that can be seen without asking who is in
// which group.
func (m *Match) covers(other *Match) bool {
	if m.CredentialUnit != "" || other.CredentialUnit != "" {
		return m.CredentialUnit == other.CredentialUnit
	}
	for _, part := range [][2]string{
		{m.User, other.User}, {m.Group, other.Group}, {m.Exe, other.Exe}, {m.SHA256, other.SHA256}, {m.Unit, other.Unit},
	} {
		if part[0] != "" && part[0] != part[1] {
			return false
		}
	}
	return true
}

// match is what the daemon compares with: what is attested is written in one way.
func (m *rawMatch) match() Match {
	match := Match(*m)
	match.SHA256 = strings.ToLower(m.SHA256)
	return match
}

// exe wants the path of a file as the system tells it of a process. Of a script that is the interpreter.
func (c *checker) exe(place, path string) {
	c.path(place, path)
	switch clean := filepath.ToSlash(filepath.Clean(path)); {
	case strings.ContainsAny(path, "*?[]"):
		c.fault(place, "%q looks like a pattern; exe is the path of one program", path)
	case strings.HasSuffix(path, "/"):
		c.fault(place, "%q is a directory; exe is the path of one program", path)
	case filepath.IsAbs(path) && clean != filepath.ToSlash(path) && !strings.Contains(path, ".."):
		c.fault(place, "%q is not how the system writes that path; write %s", path, clean)
	}
}

// unit wants the name of a system service, with its instance and without anything to be filled in.
func (c *checker) unit(place, unit string) {
	name, service := strings.CutSuffix(unit, ".service")
	bad := strings.ContainsFunc(name, func(r rune) bool {
		return !strings.ContainsRune("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789:-_.\\@", r)
	})
	switch {
	case !service || name == "":
		c.fault(place, "%q is not a service; give its whole name, such as lsam.service", unit)
	case bad || len(unit) > 255:
		c.fault(place, "%q is not the name of one service", unit)
	case strings.HasSuffix(name, "@"):
		c.fault(place, "%q is a template that no process runs in; name an instance, such as %sdb01.service", unit, name)
	}
}

// unmatched warns about entries that can match nobody: an earlier one takes everybody that they would match, or the
// system will never tell their exe of a process because the path leads through a link.
func (c *Config) unmatched() {
	for i := range c.Clients {
		e := &c.Clients[i]
		warn := func(format string, args ...any) {
			c.Warnings = append(c.Warnings, fmt.Sprintf("%s: client %s: ", e.File, e.Name)+fmt.Sprintf(format, args...))
		}
		for j := range c.Clients[:i] {
			if first := &c.Clients[j]; first.Match.covers(&e.Match) {
				warn("it never matches: client %s of %s is before it and takes everybody it would match", first.Name, first.File)
				break
			}
		}
		if exe := e.Match.Exe; exe != "" {
			// What cannot be looked at, or is not installed here, is not known to be wrong.
			if real, err := filepath.EvalSymlinks(exe); err == nil && real != exe {
				warn("it never matches: exe %s leads through a link to %s, which is what the system tells; write that", exe, real)
			}
		}
	}
}

// unserved warns about PAM services that this machine has no file for: such a client's jobs would all fail.
func (c *Config) unserved() {
	for i := range c.Clients {
		e := &c.Clients[i]
		if e.PAM == "" {
			continue
		}
		has := func(dir string) bool {
			_, err := os.Stat(filepath.Join(dir, e.PAM))
			return err == nil
		}
		// Where PAM looks; for a service without a file it would take "other" in silence.
		if !slices.ContainsFunc([]string{"/etc/pam.d", "/usr/lib/pam.d", "/usr/share/pam.d", "/usr/etc/pam.d"}, has) {
			c.Warnings = append(c.Warnings, fmt.Sprintf("%s: client %s: pam: there is no file /etc/pam.d/%s, and until there is no job of it starts", e.File, e.Name, e.PAM))
		}
	}
}
