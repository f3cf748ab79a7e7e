package config

import (
	"fmt"
	"slices"
	"strings"
)

// maxCredential is how long the names of a unit and of a credential of its can be together: systemd puts both into the
// name of a socket, with 25 characters of its own, and the kernel takes no more than 108.
const maxCredential = 108 - 25

// CredentialClient returns the entry that matches when systemd asks for a credential of the unit, nil for none.
func (c *Config) CredentialClient(unit string) *Client {
	for i := range c.Clients {
		if e := &c.Clients[i]; unit != "" && e.Match.CredentialUnit == unit {
			return e
		}
	}
	return nil
}

// credential checks an entry that systemd matches, and not a connection: what a connection says of itself is fixed in
// it, and what a connection is told of has no place in it.
func (c *checker) credential(place string, e *rawClient) {
	unit := e.Match.CredentialUnit
	c.unit(place+".match.credential_unit", unit)
	const connections = "is not for entries that match a credential_unit; remove it"
	for _, s := range []struct {
		name  string
		given bool
	}{
		{"match.user", e.Match.User != ""},
		{"match.group", e.Match.Group != ""},
		{"match.exe", e.Match.Exe != ""},
		{"match.sha256", e.Match.SHA256 != ""},
		{"match.unit", e.Match.Unit != ""},
		{"subjects.users", len(e.Subjects.Users) > 0},
		{"subjects.roles", len(e.Subjects.Roles) > 0},
		{"rate", !Rate(e.Rate).Unlimited()},
		{"concurrent", e.Concurrent != 0},
		{"pam", e.PAM != ""},
		{"subject_required", e.SubjectRequired},
	} {
		if s.given {
			c.fault(place+"."+s.name, connections)
		}
	}
	if len(e.Realms) > 1 {
		c.fault(place+".realms", "has %d; an entry that matches a credential_unit has one, in which it is decided", len(e.Realms))
	}
	if !slices.Equal(e.May, []string{MayRetrieve}) {
		c.fault(place+".may", "must be [%s] in an entry that matches a credential_unit", MayRetrieve)
	}
	if e.Subject == nil || e.Subject.User == "" && len(e.Subject.Roles) == 0 {
		c.fault(place+".subject", "is missing; systemd names none, so give the one for whom it is decided, such as {user: pay}")
	} else {
		c.literals(place+".subject.roles", e.Subject.Roles)
	}
	if len(e.BatchUsers) == 0 {
		c.fault(place+".batch_users", "is empty; name those that the unit may load as credentials")
	}
	for i, name := range e.BatchUsers {
		if length := len(unit) + len(name); length > maxCredential && !strings.ContainsAny(name, "*?") {
			c.fault(fmt.Sprintf("%s.batch_users[%d]", place, i), "is too long for systemd to ask for: it and the unit's name have %d characters together, at most %d fit", length, maxCredential)
		}
	}
}

// speaksFor makes a credential entry's subjects those that its fixed subject names.
func (c *Client) speaksFor(s *Subject) {
	c.Subjects.OwnName, c.Subjects.Users, c.Subjects.Roles = false, nil, s.Roles
	for _, user := range []string{s.User, s.By} {
		if user != "" {
			c.Subjects.Users = append(c.Subjects.Users, user)
		}
	}
}

// unheard warns about entries that nobody will ask for.
func (c *Config) unheard() {
	for i := range c.Clients {
		if e := &c.Clients[i]; e.Match.CredentialUnit != "" && c.SystemdSocket == "" {
			c.Warnings = append(c.Warnings, fmt.Sprintf("%s: client %s: it never matches: systemd_socket is empty, so no service can load a credential", e.File, e.Name))
		}
	}
}
