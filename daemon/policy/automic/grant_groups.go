package automic

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/bits"
	"slices"

	"batchwarden/daemon/policy"
)

// holders are the users of whose rights the grantee's rows are part, by name.
func (g *amendment) holders(p *Policy) map[string]*user {
	if g.to.Group == "" {
		return map[string]*user{g.to.User: p.users[g.to.User]}
	}
	holders := map[string]*user{}
	for name, u := range p.users {
		if slices.Contains(u.groups, g.to.Group) {
			holders[name] = u
		}
	}
	return holders
}

// alone is somebody who has the grantee's own rows in a document and no others.
func (g *amendment) alone(text *policy.Text) (*user, error) {
	rows := []docRow{}
	text.Decode(&rows, g.Path("rows")...)
	doc, err := json.Marshal(map[string]any{"model": "automic", "users": map[string]any{"alone": map[string]any{"rows": rows}}})
	if err != nil {
		return nil, err
	}
	p, err := Parse("", doc)
	if err != nil {
		return nil, err
	}
	u := p.users["alone"]
	u.from[0].place = g.Place()
	return u, nil
}

// granted are those of the groups for which somebody has a row that grants.
func (u *user) granted(q *query, need uint16) (got uint16) {
	for _, from := range u.from {
		for i := range from.rows {
			if r := &from.rows[i]; r.rights&q.right != 0 && r.matches(q) {
				got |= 1 << r.group
			}
		}
	}
	return got & need
}

// denied is the place of a NOT row that denies, "" for none.
func (u *user) denied(q *query) string {
	for _, from := range u.from {
		for i := range from.rows {
			if r := &from.rows[i]; r.group == 0 && r.rights&q.right != 0 && r.matches(q) {
				return fmt.Sprintf("%s.rows[%d]", from.place, i)
			}
		}
	}
	return ""
}

// missing are the authorization groups for which the grantee needs a row more.
func (g *amendment) missing() (uint16, error) {
	p, err := Parse("", g.Text.Bytes())
	if err != nil {
		return 0, err
	}
	own, err := g.alone(g.Text)
	if err != nil {
		return 0, err
	}
	bar := func(u *user) error {
		place := u.denied(&g.query)
		if place == "" {
			return nil
		}
		return &policy.BarError{Rule: "AU7", Place: place, Text: "this NOT row denies X on the login, and no row helps against it"}
	}
	holders := g.holders(p)
	var missing uint16
	if g.to.Group == "" {
		u := holders[g.to.User]
		need := p.counted(u, login)
		missing = need &^ u.granted(&g.query, need)
		if need == 0 {
			missing = lowest(used(u))
		}
		return missing, bar(u)
	}
	if err := bar(own); err != nil {
		return 0, err
	}
	need := p.counted(own, login)
	missing = need &^ own.granted(&g.query, need)
	shared := ^uint16(notBit) // groups that count for everybody for whom any does
	for _, u := range holders {
		theirs := p.counted(u, login)
		missing |= theirs &^ u.granted(&g.query, theirs)
		if theirs != 0 {
			shared &= theirs
		}
	}
	if missing == 0 && need == 0 {
		missing = lowest(shared)
	}
	return missing, g.harmless(p, holders, missing)
}

// harmless is the error of adding rows of the groups to a user group of whose
// users some have others only: what counts in addition has to grant (AU8).
func (g *amendment) harmless(p *Policy, holders map[string]*user, groups uint16) error {
	for _, name := range slices.Sorted(maps.Keys(holders)) {
		theirs := p.counted(holders[name], login)
		if theirs != 0 && groups&^theirs != 0 {
			return &policy.BarError{Rule: "AU8", Place: g.Place(), Text: fmt.Sprintf(
				"a row of authorization group %d here would take rights from user %q, whose rows have other groups; grant to the users instead",
				bits.TrailingZeros16(groups&^theirs), name)}
		}
	}
	return nil
}

// used are the groups of which somebody has rows, of whatever type.
func used(u *user) (groups uint16) {
	for _, from := range u.from {
		groups |= from.groups
	}
	return groups
}

// lowest is the lowest of the groups, and the first of all when there is none.
func lowest(groups uint16) uint16 {
	if groups &^= notBit; groups == 0 {
		return 1 << 1
	}
	return 1 << bits.TrailingZeros16(groups)
}

// fewer reports that for somebody fewer groups count than did in the document
// before, and some still do: then less is needed for what those grant.
func (g *amendment) fewer(before *policy.Text) (bool, error) {
	old, err := Parse("", before.Bytes())
	if err != nil {
		return false, err
	}
	p, err := Parse("", g.Text.Bytes())
	if err != nil {
		return false, err
	}
	was, now := g.holders(old), g.holders(p)
	if len(now) == 0 { // a user group that nobody is in yet
		if was["alone"], err = g.alone(before); err != nil {
			return false, err
		}
		if now["alone"], err = g.alone(g.Text); err != nil {
			return false, err
		}
	}
	for name, u := range now {
		if groups := p.counted(u, login); groups != 0 && groups != old.counted(was[name], login) {
			return true, nil
		}
	}
	return false, nil
}

// by are the places of the rows that grant.
func (g *amendment) by() ([]string, error) {
	p, err := Parse("", g.Text.Bytes())
	if err != nil {
		return nil, err
	}
	var from []*profile
	if g.to.Group == "" {
		u := p.users[g.to.User]
		if v := p.may(u, &g.query); !v.ok() {
			return nil, nil
		}
		from = u.from
	} else {
		own, err := g.alone(g.Text)
		if err != nil {
			return nil, err
		}
		if need := p.counted(own, login); need == 0 || own.granted(&g.query, need) != need || own.denied(&g.query) != "" {
			return nil, nil
		}
		from = own.from
	}
	var places []string
	for _, from := range from {
		for i := range from.rows {
			if r := &from.rows[i]; r.group > 0 && r.rights&execute != 0 && r.matches(&g.query) {
				places = append(places, fmt.Sprintf("%s.rows[%d]", from.place, i))
			}
		}
	}
	return places, nil
}
