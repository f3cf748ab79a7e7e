package stonebranch

import (
	"fmt"
	"slices"
	"strings"
	"unicode"

	"batchwarden/daemon/policy"
	"batchwarden/daemon/strict"
)

const format = 1

type document struct {
	Format     *int                `json:"format"`
	Model      string              `json:"model"`
	Properties properties          `json:"properties"`
	Users      map[string]docUser  `json:"users"`
	Groups     map[string]docGroup `json:"groups"`
}

// properties are the system properties, all false unless set (ST15).
type properties struct {
	Restricted        bool `json:"business_service_visibility_restricted"` // ST15a
	StrictConnections bool `json:"strict_connection_execute_constraints"`  // ST15b
	OwnAudit          bool `json:"audit_owner_read_permitted"`             // ST15c
	StrictReports     bool `json:"strict_report_create_constraints"`       // ST15d
	StrictDashboards  bool `json:"strict_dashboard_create_constraints"`    // ST15e
	PromotionRead     bool `json:"promotion_read_permission_required"`     // ST15f
	StrictVariables   bool `json:"enhanced_variable_security"`             // ST15g
}

type docUser struct {
	docGroup
	Groups []string `json:"groups"`
}

type docGroup struct {
	Roles       []string        `json:"roles"`
	Permissions []docPermission `json:"permissions"`
}

type docPermission struct {
	Type             string       `json:"type"`
	Name             string       `json:"name"`
	BusinessServices *docServices `json:"business_services"`
	Operations       []string     `json:"operations"`
	Commands         []string     `json:"commands"`
}

type docServices struct {
	Criterion string   `json:"criterion"`
	Services  []string `json:"services"`
}

// Parse compiles a JSON or YAML document. The error is strict.Faults with
// every fault and its place, or wraps policy.ErrNewer.
func Parse(file string, data []byte) (*Policy, error) {
	return parse(file, data, new(document), map[string]*source{})
}

// parse is Parse, and leaves what it read in doc and groups.
func parse(file string, data []byte, doc *document, groups map[string]*source) (*Policy, error) {
	in, err := strict.Parse(file, data)
	if err != nil {
		return nil, err
	}
	in.IgnoreX = true
	in.Decode(doc)
	if doc.Format != nil && *doc.Format > format {
		return nil, fmt.Errorf("%s: format %d, where %d is understood: %w", file, *doc.Format, format, policy.ErrNewer)
	}
	b := builder{in: in}
	b.head(doc)
	p := &Policy{properties: doc.Properties, users: make(map[string]*user, len(doc.Users))}
	for name, g := range doc.Groups {
		b.name("groups."+name, name)
		groups[name] = b.source("groups."+name, g)
	}
	for name, d := range doc.Users {
		place := "users." + name
		b.name(place, name)
		u := &user{from: []*source{b.source(place, d.docGroup)}}
		for i, group := range d.Groups {
			g := groups[group]
			if g == nil {
				in.Fault(at(place+".groups", i), "the document defines no group %q", group) // ST25
			} else if !slices.Contains(u.from, g) {
				u.from = append(u.from, g)
			}
		}
		for _, s := range u.from {
			u.own |= s.roles
		}
		u.roles = u.own.contained()
		p.users[name] = u
	}
	if err := in.Err(); err != nil {
		return nil, err
	}
	return p, nil
}

type builder struct{ in *strict.Document }

func (b builder) head(doc *document) {
	if doc.Format != nil && *doc.Format < 1 {
		b.in.Fault("format", "is %d; this program knows %d", *doc.Format, format)
	}
	switch {
	case doc.Model == "stonebranch":
	case b.in.Has("model"):
		b.in.Fault("model", `is %q, not "stonebranch"`, doc.Model)
	default:
		b.in.Fault("model", `is required: "stonebranch"`)
	}
}

func (b builder) source(place string, doc docGroup) *source {
	s := &source{place: place}
	for i, name := range doc.Roles {
		r := roleOf(name)
		if r == 0 {
			b.in.Fault(at(place+".roles", i), "%q is not a role", name) // ST3
		}
		s.roles |= r
	}
	for i, d := range doc.Permissions {
		if k, p, ok := b.permission(at(place+".permissions", i), d); ok {
			p.index = i
			s.permissions[k] = append(s.permissions[k], p)
		}
	}
	return s
}

func (b builder) permission(place string, d docPermission) (kind, permission, bool) {
	p := permission{name: d.Name}
	if p.name == "" {
		p.name = "*" // ST10
	}
	if len(p.name) > policy.MaxText {
		b.in.Fault(place+".name", "has %d bytes, at most %d", len(p.name), policy.MaxText)
	}
	if d.BusinessServices != nil {
		b.services(place+".business_services", *d.BusinessServices, &p)
	}
	k, ok := kindOf(d.Type)
	if !ok {
		if b.in.Has(place + ".type") {
			b.in.Fault(place+".type", "%q is not a type", d.Type) // ST7
		} else {
			b.in.Fault(place+".type", "is required")
		}
		return k, p, false
	}
	for i, name := range d.Operations {
		o := opOf(name)
		switch {
		case o == 0:
			b.in.Fault(at(place+".operations", i), "%q is not one of Create, Read, Update, Delete, Execute", name)
		case o&types[k].ops == 0:
			b.in.Fault(at(place+".operations", i), "%v has no operation %s", k, name) // ST9
		}
		p.ops |= o
	}
	p.ops = p.ops.implied()
	for i, name := range d.Commands {
		c := k.command(name)
		switch {
		case name == allCommands:
			c = k.every()
		case c == 0:
			b.in.Fault(at(place+".commands", i), "%v has no command %q; it has %s", k, name, listed(types[k].commands)) // ST12
		}
		p.commands |= c
	}
	return k, p, true
}

func listed(commands []string) string {
	if len(commands) == 0 {
		return "none"
	}
	return strings.Join(commands, ", ")
}

func (b builder) services(place string, d docServices, p *permission) {
	c := criterion(slices.Index(criterionNames[:], d.Criterion))
	if c >= criteria {
		if b.in.Has(place + ".criterion") {
			b.in.Fault(place+".criterion", "%q is not one of %s", d.Criterion, strings.Join(criterionNames[:], ", "))
		} else {
			b.in.Fault(place+".criterion", "is required")
		}
		return
	}
	if c.lists() && len(d.Services) == 0 {
		b.in.Fault(place, "%s needs at least one service", d.Criterion) // ST11
	}
	for i, s := range d.Services {
		b.name(at(place+".services", i), s)
	}
	p.criterion, p.services = c, d.Services
}

// name checks a name that is compared and shown. The empty one is what a
// request has that names none.
func (b builder) name(place, name string) {
	switch {
	case name == "":
		b.in.Fault(place, "a name is empty")
	case len(name) > policy.MaxText:
		b.in.Fault(place, "a name has %d bytes, at most %d", len(name), policy.MaxText)
	case strings.ContainsFunc(name, unicode.IsControl):
		b.in.Fault(place, "a name contains a control character")
	}
}

func at(place string, i int) string { return fmt.Sprintf("%s[%d]", place, i) }
