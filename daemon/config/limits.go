package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"batchwarden/daemon/strict"
)

// Ceilings are the limits of a process that `max` can bound and a request ask for, by the names of setrlimit(2).
var Ceilings = []string{"as", "core", "cpu", "data", "fsize", "memlock", "msgqueue", "nice", "nofile", "nproc", "rtprio", "rttime", "sigpending", "stack"}

// ParseLimits reads the text of a limits.yaml; file is the name that faults carry. The error is strict.Faults.
func ParseLimits(file string, data []byte) (*Limits, error) {
	doc, err := strict.Parse(file, data)
	if err != nil {
		return nil, err
	}
	l := defaultLimits()
	c := decoded(doc, &l)
	c.version(l.Version)
	c.accounts("requesters", l.Requesters)
	c.accounts("allow_users", l.AllowUsers)
	c.accounts("deny_users", l.DenyUsers)
	c.accounts("deny_groups", l.DenyGroups)
	for i, command := range l.AllowCommands {
		c.command(fmt.Sprintf("allow_commands[%d]", i), command)
	}
	for i, name := range l.AllowEnv {
		if name == "" || strings.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r == '=' || r == '*' || r == '?' || r > 0x7e }) {
			c.fault(fmt.Sprintf("allow_env[%d]", i), "%q is not the name of an environment variable; globs are not known here", name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.Max)) {
		if !slices.Contains(Ceilings, name) {
			c.fault("max."+name, "is unknown; known: %s", strings.Join(Ceilings, ", "))
		}
	}
	if err := doc.Err(); err != nil {
		return nil, err
	}
	limits := &Limits{
		Requesters: l.Requesters,
		AllowRoot:  l.AllowRoot,
		MinUID:     l.MinUID,
		MinGID:     l.MinGID,
		AllowUsers: l.AllowUsers,
		DenyUsers:  l.DenyUsers,
		DenyGroups: l.DenyGroups,
		AllowEnv:   l.AllowEnv,
		Max:        l.Max,
	}
	for _, command := range l.AllowCommands {
		limits.AllowCommands = append(limits.AllowCommands, Command(command))
	}
	return limits, nil
}

func (c *checker) command(place string, command rawCommand) {
	c.path(place+".path", command.Path)
	if command.SHA256 == "" {
		return
	}
	c.sha256(place+".sha256", command.SHA256)
	if Command(command).Dir() {
		c.fault(place+".sha256", "is for a file, and %q is a directory", command.Path)
	}
}
