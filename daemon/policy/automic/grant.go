package automic

import (
	"fmt"
	"slices"
	"strings"

	"batchwarden/daemon/policy"
)

var _ policy.Granter = Model{}

// Grant gives a user or a user group X on the LOGIN object (AU26): one row for
// each authorization group that has to grant and does not (AU8). It adds no
// group number to anybody who has others, for that would take rights away.
// The rows for the jobs are the controller's business.
func (Model) Grant(doc []byte, to policy.Grantee, b policy.BatchUser, makeGrantee bool) (policy.Edit, error) {
	g, err := begin(doc, to, b)
	if err != nil {
		return policy.Edit{}, err
	}
	if err := g.Known(); err != nil {
		if !makeGrantee {
			return policy.Edit{}, err
		}
		if err := g.Text.Set(map[string]any{"rows": []any{}}, g.Path()...); err != nil {
			return policy.Edit{}, err
		}
		g.Changed("%s is made", g.Place())
	}
	missing, err := g.missing()
	if err != nil {
		return policy.Edit{}, err
	}
	if missing == 0 {
		g.Edit.Already, err = g.by()
		return g.Edit, err
	}
	for number := 1; number < len(noGroup); number++ {
		if missing&(1<<number) != 0 {
			if err := g.add(fmt.Sprint(number)); err != nil {
				return policy.Edit{}, err
			}
		}
	}
	return g.Done(Model{})
}

// Revoke takes X from the rows of the user or user group that are about this
// LOGIN object alone. A row that has no right left goes, unless it is the last
// of its authorization group and others remain: without the group less would
// be needed for everything else (AU8).
func (Model) Revoke(doc []byte, from policy.Grantee, b policy.BatchUser) (policy.Edit, error) {
	g, err := begin(doc, from, b)
	if err != nil {
		return policy.Edit{}, err
	}
	if err := g.Known(); err != nil {
		return policy.Edit{}, err
	}
	for i, d := range slices.Backward(g.rows()) {
		r, ok := d.direct(g.name)
		if !ok || r.rights&execute == 0 {
			continue
		}
		place := fmt.Sprintf("%s.rows[%d]", g.Place(), i)
		if err := g.Text.Set((r.rights &^ execute).String(), g.Path("rows", i, "rights")...); err != nil { // "" is no right
			return policy.Edit{}, err
		}
		if r.rights != execute {
			g.Changed("%s: X is taken from the row %s", place, d)
			continue
		}
		before := *g.Text
		if err := g.Text.Remove(g.Path("rows", i)...); err != nil {
			return policy.Edit{}, err
		}
		fewer, err := g.fewer(&before)
		if err != nil {
			return policy.Edit{}, err
		}
		if fewer {
			*g.Text = before
			g.Changed("%s: X is taken from the row %s, which stays without a right so that group %s counts as before (AU8)", place, d, d.Group)
			continue
		}
		g.Changed("%s: the row %s is removed", place, d)
	}
	if g.Edit.Still, err = g.by(); err != nil {
		return policy.Edit{}, err
	}
	return g.Done(Model{})
}

// An amendment is one change of a document.
type amendment struct {
	policy.Draft
	to    policy.Grantee
	name  string // of the LOGIN object
	query query
}

func begin(doc []byte, to policy.Grantee, b policy.BatchUser) (*amendment, error) {
	if to.User == "" && to.Group == "" {
		return nil, fmt.Errorf("%v %w: Automic grants to users and user groups (AU1)", to, policy.ErrGrantee)
	}
	if b.Name == "" || strings.ContainsAny(b.Name, "*?,") || strings.TrimSpace(b.Name) != b.Name {
		return nil, fmt.Errorf("%q cannot be written as a filter for one LOGIN object (AU11, AU12)", b.Name)
	}
	if _, err := Parse("", doc); err != nil {
		return nil, err
	}
	_, name := put(nil, b.Name)
	return &amendment{Draft: policy.NewDraft(doc, to), to: to, name: b.Name,
		query: query{kind: login, right: execute, name: name}}, nil
}

// rows are the grantee's own.
func (g *amendment) rows() []docRow {
	rows := []docRow{}
	g.Text.Decode(&rows, g.Path("rows")...)
	return rows
}

// direct compiles a row that is about the LOGIN object and no other.
func (d docRow) direct(name string) (row, bool) {
	if d.Host != "" || d.Login != "" || d.FileSrc != "" || d.HostDst != "" || d.LoginDst != "" || d.FileDst != "" {
		return row{}, false
	}
	r := builder{}.row(&d, nil) // it has no faults: the document was parsed
	return r, r.group > 0 && r.kinds == login.bit() && string(r.name) == upper(name)
}

// add gives the right in one authorization group: by a row that is there for
// this LOGIN object already, or a new one.
func (g *amendment) add(number string) error {
	for i, d := range g.rows() {
		if r, ok := d.direct(g.name); ok && d.Group == number {
			d.Rights = (r.rights | execute).String()
			g.Changed("%s.rows[%d]: X is added to the row %s", g.Place(), i, d)
			return g.Text.Set(d.Rights, g.Path("rows", i, "rights")...)
		}
	}
	g.Changed("%s.rows: the row %s is added", g.Place(), docRow{Group: number, Type: login.String(), Name: g.name, Rights: execute.String()})
	return g.Text.Append(struct {
		Group  string `json:"grp"`
		Type   string `json:"type"`
		Name   string `json:"name"`
		Rights string `json:"rights"`
	}{number, login.String(), g.name, execute.String()}, g.Path("rows")...)
}
