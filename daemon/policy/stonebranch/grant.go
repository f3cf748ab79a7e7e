package stonebranch

import (
	"fmt"
	"slices"
	"strings"

	"batchwarden/daemon/policy"
)

var _ policy.Granter = Model{}

// Grant gives a user or a group a permission for the credential by its name,
// with the operation Execute and nothing else (ST6, ST16).
func (Model) Grant(doc []byte, to policy.Grantee, b policy.BatchUser, makeGrantee bool) (policy.Edit, error) {
	g, err := begin(doc, to, b)
	if err != nil {
		return policy.Edit{}, err
	}
	if err := g.Known(); err != nil {
		if !makeGrantee {
			return policy.Edit{}, err
		}
		if err := g.Text.Set(map[string]any{}, g.Path()...); err != nil {
			return policy.Edit{}, err
		}
		g.Changed("%s is made%s", g.Place(), map[bool]string{true: ", with what everybody has who is in the document (ST15)"}[to.User != ""])
	}
	if g.Edit.Already, err = g.by(); err != nil || g.Edit.Already != nil { // never of one that is new
		return g.Edit, err
	}
	// Not for certain services: the name means one credential, whatever they become.
	if err := g.Text.Append(struct {
		Type       string   `json:"type"`
		Name       string   `json:"name"`
		Operations []string `json:"operations"`
	}{credential.String(), b.Name, []string{opExecuteName}}, g.Path("permissions")...); err != nil {
		return policy.Edit{}, err
	}
	g.Changed("%s.permissions: Execute on the credential %q is added", g.Place(), b.Name)
	return g.Done(Model{})
}

// Revoke takes the operation Execute from the permissions of the user or
// group that name the credential, without a wildcard. A permission that is left
// without anything goes.
func (Model) Revoke(doc []byte, from policy.Grantee, b policy.BatchUser) (policy.Edit, error) {
	g, err := begin(doc, from, b)
	if err != nil {
		return policy.Edit{}, err
	}
	if err := g.Known(); err != nil {
		return policy.Edit{}, err
	}
	var all []docPermission
	g.Text.Decode(&all, g.Path("permissions")...)
	for i, d := range slices.Backward(all) {
		if d.Type != credential.String() || d.Name != b.Name || !slices.Contains(d.Operations, opExecuteName) {
			continue
		}
		place := fmt.Sprintf("%s.permissions[%d]", g.Place(), i)
		if len(d.Commands) == 0 && !slices.ContainsFunc(d.Operations, func(o string) bool { return o != opExecuteName }) {
			if err := g.Text.Remove(g.Path("permissions", i)...); err != nil {
				return policy.Edit{}, err
			}
			g.Changed("%s: Execute on the credential %q is removed", place, b.Name)
			continue
		}
		for j, o := range slices.Backward(d.Operations) {
			if o != opExecuteName {
				continue
			}
			if err := g.Text.Remove(g.Path("permissions", i, "operations", j)...); err != nil {
				return policy.Edit{}, err
			}
		}
		g.Changed("%s: Execute is taken from the permission for the credential %q", place, b.Name)
	}
	if g.Edit.Still, err = g.by(); err != nil {
		return policy.Edit{}, err
	}
	return g.Done(Model{})
}

const opExecuteName = "Execute"

// An amendment is one change of a document.
type amendment struct {
	policy.Draft
	to         policy.Grantee
	credential policy.Record
}

func begin(doc []byte, to policy.Grantee, b policy.BatchUser) (*amendment, error) {
	if to.User == "" && to.Group == "" {
		return nil, fmt.Errorf("%v %w: the Universal Controller grants to users and groups (ST6)", to, policy.ErrGrantee)
	}
	if b.Name == "" || strings.ContainsAny(b.Name, "*?") {
		return nil, fmt.Errorf("%q cannot be written as the name of one credential (ST10)", b.Name)
	}
	if _, err := Parse("", doc); err != nil {
		return nil, err
	}
	return &amendment{Draft: policy.NewDraft(doc, to), to: to, credential: policy.Record{Name: b.Name, Services: b.Services}}, nil
}

// by says by what the grantee may execute the credential: places of
// permissions, or the rule by which he needs none. A group is taken for a user
// who is in it and has nothing else.
func (g *amendment) by() ([]string, error) {
	p, err := Parse("", g.Text.Bytes())
	if err != nil {
		return nil, err
	}
	u := p.users[g.to.User]
	if g.to.Group != "" {
		if u, err = g.member(); err != nil {
			return nil, err
		}
	}
	e := eval{p: p, u: u}
	w := want{kind: credential, op: opExecute}
	if rule := e.standing(w); rule != "" {
		return []string{rule}, nil
	}
	var places []string
	for _, from := range u.from {
		for i := range from.permissions[credential] {
			if perm := &from.permissions[credential][i]; perm.ops&opExecute != 0 && perm.matches(&g.credential) {
				places = append(places, fmt.Sprintf("%s.permissions[%d]", from.place, perm.index))
			}
		}
	}
	return places, nil
}

// member is a user who is in the group and has nothing else.
func (g *amendment) member() (*user, error) {
	with := policy.NewText(g.Text.Bytes())
	name := "member"
	for with.Has("users", name) {
		name += "'"
	}
	if err := with.Set(map[string]any{"groups": []string{g.to.Group}}, "users", name); err != nil {
		return nil, err
	}
	p, err := Parse("", with.Bytes())
	if err != nil {
		return nil, err
	}
	return p.users[name], nil
}
