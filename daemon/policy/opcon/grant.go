package opcon

import (
	"fmt"
	"slices"

	"batchwarden/daemon/policy"
)

var _ policy.Granter = Model{}

// Grant adds the batch user to the role's list for its platform (OC5).
func (m Model) Grant(doc []byte, to policy.Grantee, b policy.BatchUser, makeRole bool) (policy.Edit, error) {
	g, err := begin(doc, to, b)
	if err != nil {
		return policy.Edit{}, err
	}
	if bar := g.barred(); bar != nil {
		return policy.Edit{}, bar
	}
	if to.Role == Ocadm {
		g.Edit.Already = []string{"OC6"}
		return g.Edit, nil
	}
	if g.p.roles[to.Role] == nil {
		if !makeRole {
			return policy.Edit{}, fmt.Errorf("%v %w", to, policy.ErrUnknownGrantee)
		}
		g.Changed("%s is made", g.Place())
	}
	if at := g.granted(); at != nil {
		g.Edit.Already = g.places(at)
		return g.Edit, nil
	}
	if err := g.Text.Append(b.Name, g.list()...); err != nil {
		return policy.Edit{}, err
	}
	g.Changed("%s: %q is added", g.place(), b.Name)
	return g.Done(Model{})
}

// Revoke takes the batch user out of the role's list for its platform.
func (m Model) Revoke(doc []byte, from policy.Grantee, b policy.BatchUser) (policy.Edit, error) {
	g, err := begin(doc, from, b)
	if err != nil {
		return policy.Edit{}, err
	}
	switch {
	case g.p.roles[from.Role] == nil:
		return policy.Edit{}, fmt.Errorf("%v %w", from, policy.ErrUnknownGrantee)
	case from.Role == Ocadm && g.barred() == nil:
		g.Edit.Still = []string{"OC6"}
	}
	for _, i := range slices.Backward(g.granted()) {
		if err := g.Text.Remove(append(g.list(), i)...); err != nil {
			return policy.Edit{}, err
		}
		g.Changed("%s[%d]: %q is removed", g.place(), i, b.Name)
	}
	return g.Done(Model{})
}

// An amendment is one change of a document.
type amendment struct {
	p *Policy
	policy.Draft
	name     string
	platform platform
}

func begin(doc []byte, to policy.Grantee, b policy.BatchUser) (*amendment, error) {
	if to.Role == "" {
		return nil, fmt.Errorf("%v %w: OpCon grants batch users to roles (OC5)", to, policy.ErrGrantee)
	}
	p, ok := platformOf(b.Platform)
	if !ok {
		return nil, fmt.Errorf("%q is not a platform of OpCon (OC2)", b.Platform)
	}
	if text := p.fault(b.Name); text != "" {
		return nil, fmt.Errorf("batch user on %v: %s (OC2)", p, text)
	}
	parsed, err := Parse("", doc)
	if err != nil {
		return nil, err
	}
	return &amendment{p: parsed, Draft: policy.NewDraft(doc, to), name: b.Name, platform: p}, nil
}

// barred is why nobody launches as the batch user, whatever is granted (OC14).
func (g *amendment) barred() *policy.BarError {
	switch {
	case g.p.black.has(g.platform, g.key()):
		return &policy.BarError{Rule: "OC14", Place: "host.black_list", Text: "the batch user is on the list, so nobody launches as it whatever is granted"}
	case !g.p.white.empty() && !g.p.white.has(g.platform, g.key()):
		return &policy.BarError{Rule: "OC14", Place: "host.white_list", Text: "the batch user is not on the list, so nobody launches as it whatever is granted"}
	}
	return nil
}

func (g *amendment) key() []byte { return key(nil, g.platform, g.name) }

func (g *amendment) list() []any {
	return g.Path("batch_users", g.platform.String())
}

func (g *amendment) place() string { return g.Place() + ".batch_users." + g.platform.String() }

// granted are the places of the batch user in the role's list.
func (g *amendment) granted() (at []int) {
	var logins []string
	g.Text.Decode(&logins, g.list()...)
	for i, login := range logins {
		if string(key(nil, g.platform, login)) == string(g.key()) {
			at = append(at, i)
		}
	}
	return at
}

func (g *amendment) places(at []int) (places []string) {
	for _, i := range at {
		places = append(places, fmt.Sprintf("%s[%d]", g.place(), i))
	}
	return places
}
