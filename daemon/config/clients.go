package config

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// written is where a client's name was first used.
type written struct{ file, place string }

// clients checks one file's entries. seen collects names over all files; realms is nil when they could not be read.
func (c *checker) clients(file string, entries []rawClient, realms map[string]rawRealm, seen map[string]written) {
	for i := range entries {
		e, place := &entries[i], fmt.Sprintf("clients[%d]", i)
		c.client(place, e, realms)
		if e.Name == "" {
			continue
		}
		if first, twice := seen[e.Name]; twice {
			c.fault(place+".name", "%q is the name of %s in %s too; jobs belong to a name, so each entry needs its own", e.Name, first.place, first.file)
			continue
		}
		seen[e.Name] = written{file, place}
	}
}

func (c *checker) client(place string, e *rawClient, realms map[string]rawRealm) {
	c.name(place+".name", e.Name)
	c.match(place+".match", &e.Match)
	for i, realm := range e.Realms {
		if _, known := realms[realm]; !known && realms != nil {
			c.fault(fmt.Sprintf("%s.realms[%d]", place, i), "%q is not among the realms: %s", realm, listed(realms))
		}
	}
	c.oneOf(place+".may", e.May, MayAuthorize, MayLaunch, MayRetrieve, MayExplain)
	if len(e.May) > 0 && len(e.Realms) == 0 {
		c.fault(place+".realms", "is empty; what the client may do, it may do in a realm: name one")
	}
	c.globs(place+".subjects.users", e.Subjects.Users)
	c.literals(place+".subjects.roles", e.Subjects.Roles)
	c.literals(place+".subjects.privileged", e.Subjects.Privileged)
	c.globs(place+".batch_users", e.BatchUsers)
	if e.Concurrent < 0 {
		c.fault(place+".concurrent", "must not be negative")
	}
	if strings.ContainsAny(e.PAM, "/\x00") || strings.HasPrefix(e.PAM, ".") {
		c.fault(place+".pam", "%q is not the name of a PAM service, which is that of a file in /etc/pam.d", e.PAM)
	}
	if e.SubjectRequired {
		c.built("clients[].subject_required", place+".subject_required", "true")
	}
	if e.Match.CredentialUnit != "" {
		c.credential(place, e)
	} else {
		if e.Subject != nil {
			c.fault(place+".subject", "is only for entries that match a credential_unit; a connection names its own subjects")
		}
		if e.Object != nil {
			c.fault(place+".object", "is only for entries that match a credential_unit; a connection names its own objects")
		}
	}
}

func (c *checker) match(place string, m *rawMatch) {
	if m.User == "" && m.Group == "" && m.CredentialUnit == "" {
		c.fault(place, "names neither user nor group; without one the entry would match everybody")
	}
	if m.User != "" {
		c.account(place+".user", m.User)
	}
	if m.Group != "" {
		c.account(place+".group", m.Group)
	}
	if m.Exe != "" {
		c.exe(place+".exe", m.Exe)
	}
	if m.SHA256 != "" {
		c.sha256(place+".sha256", m.SHA256)
	}
	if m.Unit != "" {
		c.unit(place+".unit", m.Unit)
	}
}

// globs refuses what looks like a pattern of another kind: it would be taken literally and match nothing.
func (c *checker) globs(place string, globs []string) {
	for i, g := range globs {
		at := fmt.Sprintf("%s[%d]", place, i)
		switch {
		case g == "":
			c.fault(at, "is empty; it would match nothing: remove it")
		case strings.ContainsAny(g, "[]{}"):
			c.fault(at, "%q has brackets; in a glob * stands for any characters and ? for one, and there is nothing else", g)
		case strings.TrimSpace(g) != g:
			c.fault(at, "%q has blanks around it; remove them", g)
		}
	}
}

// literals refuses globs where only exact names count.
func (c *checker) literals(place string, names []string) {
	c.notBlank(place, names)
	for i, name := range names {
		if strings.ContainsAny(name, "*?") {
			c.fault(fmt.Sprintf("%s[%d]", place, i), "%q looks like a glob; only exact names count here", name)
		}
	}
}

func listed(realms map[string]rawRealm) string {
	if len(realms) == 0 {
		return "there are none"
	}
	return strings.Join(slices.Sorted(maps.Keys(realms)), ", ")
}

// build makes an entry that passed its checks into what the daemon uses. place is where it lies in its document.
func (c *checker) build(file, place string, e *rawClient) Client {
	client := Client{
		Name:            e.Name,
		Match:           e.Match.match(),
		Realms:          e.Realms,
		May:             e.May,
		Subjects:        Subjects{Users: e.Subjects.Users, Roles: e.Subjects.Roles, Privileged: e.Subjects.Privileged},
		BatchUsers:      e.BatchUsers,
		Rate:            Rate(e.Rate),
		Concurrent:      e.Concurrent,
		PAM:             e.PAM,
		SubjectRequired: e.SubjectRequired,
		Object:          json.RawMessage(e.Object),
		File:            file,
		Line:            c.doc.Line(place),
	}
	client.Subjects.OwnName = !c.doc.Has(place + ".subjects.users")
	if e.Subject != nil {
		client.Subject = &Subject{User: e.Subject.User, Roles: e.Subject.Roles, By: e.Subject.By}
		client.speaksFor(client.Subject)
	}
	return client
}
