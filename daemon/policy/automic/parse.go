package automic

import (
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"batchwarden/daemon/policy"
	"batchwarden/daemon/strict"
)

const (
	format    = 1
	maxColumn = 200 // characters (AU13)
	maxFile   = 255
)

type document struct {
	Format     *int                 `json:"format"`
	Model      string               `json:"model"`
	GroupScope *string              `json:"group_scope"`
	Users      map[string]docUser   `json:"users"`
	Groups     map[string]docGroup  `json:"groups"`
	Objects    map[string]docObject `json:"objects"`
}

type docUser struct {
	docGroup
	Groups []string `json:"groups"`
}

type docGroup struct {
	Rows []docRow `json:"rows"`
}

type docRow struct {
	Group    string `json:"grp"`
	Type     string `json:"type"`
	Name     string `json:"name"`
	Host     string `json:"host"`
	Login    string `json:"login"`
	FileSrc  string `json:"file_src"`
	HostDst  string `json:"host_dst"`
	LoginDst string `json:"login_dst"`
	FileDst  string `json:"file_dst"`
	Rights   string `json:"rights"`
}

type docObject struct {
	Access map[string]string `json:"access"`
}

// Parse compiles a JSON or YAML document. The error is strict.Faults with
// every fault and its place, or wraps policy.ErrNewer.
func Parse(file string, data []byte) (*Policy, error) {
	return parse(file, data, new(document), map[string]*profile{})
}

// parse is Parse, and leaves what it read in doc and groups.
func parse(file string, data []byte, doc *document, groups map[string]*profile) (*Policy, error) {
	in, err := strict.Parse(file, data)
	if err != nil {
		return nil, err
	}
	in.IgnoreX = true
	in.Decode(doc)
	if doc.Format != nil && *doc.Format > format {
		return nil, fmt.Errorf("%s: format %d, where %d is understood: %w", file, *doc.Format, format, policy.ErrNewer)
	}
	b := builder{in}
	p := &Policy{byType: b.head(doc), users: make(map[string]*user, len(doc.Users))}
	for name, g := range doc.Groups {
		b.name("groups."+name, name)
		groups[name] = b.profile("groups."+name, name, g.Rows)
	}
	for name, d := range doc.Users {
		place := "users." + name
		b.name(place, name)
		u := &user{from: []*profile{b.profile(place, name, d.Rows)}}
		for i, group := range d.Groups {
			g := groups[group]
			if g == nil {
				in.Fault(fmt.Sprintf("%s.groups[%d]", place, i), "the document defines no group %q", group)
			} else if !slices.Contains(u.from, g) {
				u.from = append(u.from, g)
				u.groups = append(u.groups, group)
			}
		}
		p.users[name] = u
	}
	b.objects(p, doc.Objects)
	if err := in.Err(); err != nil {
		return nil, err
	}
	for _, g := range groups {
		g.index()
	}
	for _, u := range p.users {
		u.from[0].index()
	}
	return p, nil
}

type builder struct{ in *strict.Document }

func (b builder) head(doc *document) (byType bool) {
	if doc.Format != nil && *doc.Format < 1 {
		b.in.Fault("format", "is %d; this program knows %d", *doc.Format, format)
	}
	switch {
	case doc.Model == "automic":
	case b.in.Has("model"):
		b.in.Fault("model", `is %q, not "automic"`, doc.Model)
	default:
		b.in.Fault("model", `is required: "automic"`)
	}
	if doc.GroupScope == nil || *doc.GroupScope == "all" {
		return false
	}
	if *doc.GroupScope != "type" {
		b.in.Fault("group_scope", "%q is not one of all, type", *doc.GroupScope)
	}
	return true
}

func (b builder) profile(place, name string, docs []docRow) *profile {
	p := &profile{place: place, name: name, rows: make([]row, 0, len(docs))}
	for i := range docs {
		r := b.row(&docs[i], func(column string) string { return fmt.Sprintf("%s.rows[%d]%s", place, i, column) })
		r.index = uint32(i)
		p.rows = append(p.rows, r)
		p.groups |= 1 << r.group
		if r.group == 0 {
			continue
		}
		for k := range typeNames {
			if r.kinds&kind(k).bit() != 0 {
				p.byKind[k] |= 1 << r.group
			}
		}
	}
	return p
}

func (b builder) row(d *docRow, place func(column string) string) row {
	var r row
	switch g := d.Group; {
	case len(g) == 1 && g[0] >= '1' && g[0] <= '9':
		r.group = g[0] - '0'
	case strings.EqualFold(g, "NOT") && len(g) == 3:
	case g == "":
		b.in.Fault(place(".grp"), "is required: 1 to 9 or NOT")
	default:
		b.in.Fault(place(".grp"), "%q is not one of 1 to 9, NOT", g)
	}
	r.kinds = b.kinds(d.Type, place)
	var bad rune
	if r.rights, bad = rightsOf(d.Rights); bad != 0 {
		b.in.Fault(place(".rights"), "%q is not one of the rights %s", bad, letters)
	}
	column := func(name, text string, limit int, fold func(string) string) filter {
		if n := utf8.RuneCountInString(text); n > limit {
			b.in.Fault(place(name), "%d characters, at most %d", n, limit) // AU13
		}
		return compile(text, fold)
	}
	r.name = column(".name", d.Name, maxColumn, upper)
	r.host = column(".host", d.Host, maxColumn, upper)
	r.login = column(".login", d.Login, maxColumn, upper)
	if d.HostDst == "" && d.LoginDst == "" && d.FileSrc == "" && d.FileDst == "" {
		return r
	}
	r.more = &more{
		hostDst:        column(".host_dst", d.HostDst, maxColumn, upper),
		loginDst:       column(".login_dst", d.LoginDst, maxColumn, upper),
		fileSrc:        column(".file_src", d.FileSrc, maxFile, asIs),
		fileDst:        column(".file_dst", d.FileDst, maxFile, asIs),
		fileSrcWindows: compile(d.FileSrc, likeWindows),
		fileDstWindows: compile(d.FileDst, likeWindows),
	}
	if *r.more == (more{}) {
		r.more = nil // nothing but "*"
	}
	return r
}

// kinds reads the column Type: types or "*", separated by commas (AU12); an
// empty one does not restrict (AU15).
func (b builder) kinds(column string, place func(string) string) kinds {
	if column == "" {
		return allKinds
	}
	var all kinds
	for element := range strings.SplitSeq(column, ",") {
		switch element = strings.TrimSpace(element); {
		case element == "*":
			all |= allKinds
		case element == "":
		case kindOf(element) == noKind:
			b.in.Fault(place(".type"), "%q is not a type", element)
		default:
			all |= kindOf(element).bit()
		}
	}
	return all
}

// objects reads the objects' own access lists (AU28).
func (b builder) objects(p *Policy, docs map[string]docObject) {
	for id, d := range docs {
		place := "objects." + id
		typeName, name, ok := strings.Cut(id, "/")
		k := kindOf(typeName)
		if !ok || k == noKind || name == "" {
			b.in.Fault(place, "%q is not TYPE/NAME", id)
			continue
		}
		list := &access{place, map[string]rights{}}
		for principal, column := range d.Access {
			b.name(place+".access."+principal, principal)
			r, bad := rightsOf(column)
			if bad != 0 {
				b.in.Fault(place+".access."+principal, "%q is not one of the rights %s", bad, letters)
			}
			list.rights[principal] = r
		}
		if k == folder {
			if bad := badFolder(name); bad != "" {
				b.in.Fault(place, "the folder %q %s", name, bad)
			}
			name = trimFolder(name)
		}
		if p.objects[k] == nil {
			p.objects[k] = map[string]*access{}
		}
		if _, twice := p.objects[k][upper(name)]; twice {
			b.in.Fault(place, "is there twice, in other letters")
		}
		p.objects[k][upper(name)] = list
	}
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

// index makes the profile ready to decide.
func (p *profile) index() {
	p.grants = build(p.rows, func(r *row) bool { return r.group > 0 && r.rights != 0 })
	p.nots = build(p.rows, func(r *row) bool { return r.group == 0 && r.rights != 0 })
	p.denials = map[uint32]string{}
	for i := range p.rows {
		if p.rows[i].group == 0 {
			p.denials[uint32(i)] = fmt.Sprintf("the NOT row %s.rows[%d] denies", p.place, i)
		}
	}
}
