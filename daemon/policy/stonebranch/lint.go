package stonebranch

import (
	"maps"
	"slices"
	"strings"

	"batchwarden/daemon/policy"
)

var _ policy.Linter = Model{}

// Lint finds what is legal and surely not meant. The codes are explained in
// STONEBRANCH.md.
func (Model) Lint(file string, data []byte) ([]policy.Finding, error) {
	l, groups := &linter{}, map[string]*source{}
	var err error
	if l.p, err = parse(file, data, &l.doc, groups); err != nil {
		return nil, err
	}
	used := map[string]bool{}
	for _, u := range l.doc.Users {
		for _, g := range u.Groups {
			used[g] = true
		}
	}
	for _, name := range slices.Sorted(maps.Keys(l.doc.Groups)) {
		l.source(groups[name], l.doc.Groups[name], []*source{groups[name]})
		l.group(name, l.doc.Groups[name], used[name])
	}
	for _, name := range slices.Sorted(maps.Keys(l.doc.Users)) {
		u := l.p.users[name]
		l.source(u.from[0], l.doc.Users[name].docGroup, u.from)
		l.user(name, u)
	}
	return l.found.Sorted(), nil
}

type linter struct {
	p     *Policy
	doc   document
	found policy.Findings
}

// source looks at the roles and permissions of a user or a group. From are
// the sources that are always there with it: itself and a user's groups.
func (l *linter) source(s *source, doc docGroup, from []*source) {
	for i, name := range doc.Roles {
		for _, other := range doc.Roles {
			if r, o := roleOf(name), roleOf(other); r != o && o.contained()&r != 0 {
				l.found.Add(at(s.place+".roles", i), "role.contained", "%s contains %s: taking it away revokes nothing (ST1, ST2)", other, name)
				break
			}
		}
	}
	for i, d := range doc.Permissions {
		l.written(at(s.place+".permissions", i), d)
	}
	var all roles
	for _, f := range from {
		all |= f.roles
	}
	all = all.contained()
	for k := range kinds {
		for i := range s.permissions[k] {
			p := &s.permissions[k][i]
			if p.ops == 0 && p.commands == 0 {
				continue // said already
			}
			l.needed(k, p, at(s.place+".permissions", p.index), all, from)
		}
	}
}

// written looks at a permission as it is written.
func (l *linter) written(place string, d docPermission) {
	k, _ := kindOf(d.Type)
	switch {
	case len(d.Operations) == 0 && len(d.Commands) == 0:
		l.found.Add(place, "permission.empty", "the permission has no operation and no command: it grants nothing (ST6)")
	case len(d.Operations) == 0 && k.every() == 0:
		l.found.Add(place+".commands", "permission.empty", "%v has no commands, so ALL is none: the permission grants nothing (ST12)", k)
	}
	if b := d.BusinessServices; b != nil && len(b.Services) > 0 {
		if c := criterion(slices.Index(criterionNames[:], b.Criterion)); !c.lists() {
			l.found.Add(place+".business_services", "services.ignored", "%s does not look at the services that are listed (ST11); specific or specific_or_unassigned does", b.Criterion)
		}
	}
}

// needed finds permissions without which nothing would change.
func (l *linter) needed(k kind, p *permission, place string, all roles, from []*source) {
	nobody := eval{p: l.p, u: &user{}}
	holder := eval{p: l.p, u: &user{roles: all}}
	switch {
	case p.all(func(op ops, c uint32) bool { return nobody.standing(want{k, op, c}) != "" }):
		l.found.Add(place, "permission.open", "everybody known may do this already, as long as the system properties are as they are (%s)", l.open(k, p))
		return
	case p.all(func(op ops, c uint32) bool { return holder.standing(want{k, op, c}) != "" }):
		l.found.Add(place, "permission.by_role", "the roles here give all of it already: %s (ST1, ST4)", strings.Join(all.giving(k).names(), ", "))
		return
	}
	for n, s := range from {
		if len(s.permissions[k]) > maxCompared {
			continue
		}
		for i := range s.permissions[k] {
			o := &s.permissions[k][i]
			if n == 0 && o.index == p.index || !o.covers(p) {
				continue
			}
			if n == 0 && o.index > p.index && p.covers(o) {
				continue // twins: the later one is not needed
			}
			l.found.Add(place, "permission.covered", "%s.permissions[%d] grants all of it already (ST6)", s.place, o.index)
			return
		}
	}
}

// maxCompared is up to how many permissions of one type and source are
// compared with each other.
const maxCompared = 2000

// all reports whether f holds of every operation and command of p.
func (p *permission) all(f func(ops, uint32) bool) bool {
	for op := opCreate; op <= opExecute; op <<= 1 {
		if p.ops&op != 0 && !f(op, 0) {
			return false
		}
	}
	for c := p.commands; c != 0; c &= c - 1 {
		if !f(0, c&-c) {
			return false
		}
	}
	return true
}

// open names the rules that leave it open.
func (l *linter) open(k kind, p *permission) string {
	nobody := eval{p: l.p, u: &user{}}
	var rules []string
	p.all(func(op ops, c uint32) bool {
		if rule := nobody.standing(want{k, op, c}); !slices.Contains(rules, rule) {
			rules = append(rules, rule)
		}
		return true
	})
	slices.Sort(rules)
	return strings.Join(rules, ", ")
}

// giving are the roles of the set that give rights of the type.
func (r roles) giving(k kind) roles {
	if r&opsAdmin != 0 {
		return opsAdmin
	}
	given := r & k.keeper()
	if k == webhook {
		given |= r & opsWebhookView
	}
	if k.isBundled() {
		given |= r & opsPromotionAdmin
	}
	return given
}

// covers reports that p grants all that q grants. False may also mean that
// this was not found out.
func (p *permission) covers(q *permission) bool {
	return q.ops&^p.ops == 0 && q.commands&^p.commands == 0 && policy.Covers(p.name, q.name) && p.criterion.covers(q.criterion, p.services, q.services)
}

// covers reports that the criterion c with its services holds of every
// record of which d with its services does (ST11).
func (c criterion) covers(d criterion, with, its []string) bool {
	within := func(a, b []string) bool {
		return !slices.ContainsFunc(a, func(s string) bool { return !slices.Contains(b, s) })
	}
	switch {
	case c == anyOrUnassigned:
		return true
	case d == unassigned:
		return c.holds(nil, with)
	case d == specific:
		return (c == specific || c == specificOrUnassigned) && within(its, with)
	case d == specificOrUnassigned:
		return c == specificOrUnassigned && within(its, with)
	case d == notSpecific:
		return (c == notSpecific || c == notSpecificOrUnassigned) && within(with, its)
	case d == notSpecificOrUnassigned:
		return c == notSpecificOrUnassigned && within(with, its)
	}
	return false
}

func (l *linter) group(name string, g docGroup, used bool) {
	place := "groups." + name
	if !used {
		l.found.Add(place, "group.unused", "nobody is in the group")
	}
	if len(g.Roles) == 0 && len(g.Permissions) == 0 {
		l.found.Add(place, "group.empty", "the group gives nothing")
	}
}

// user looks at what a user has with all his groups.
func (l *linter) user(name string, u *user) {
	place := "users." + name
	granted := [kinds]bool{}
	some, launches := u.own != 0, false
	for _, s := range u.from {
		for k := range kinds {
			for i := range s.permissions[k] {
				p := &s.permissions[k][i]
				some = true
				granted[k] = granted[k] || p.ops&opExecute != 0
				launches = launches || k == task && p.commands&task.command(launchTask) != 0 || k == trigger && p.commands&trigger.command(triggerNow) != 0
			}
		}
	}
	if !some {
		l.found.Add(place, "user.empty", "the user has no role and no permission, own or of a group: only what is open to everybody")
	}
	if !launches || u.roles&opsAdmin != 0 {
		return
	}
	for _, k := range []kind{agent, credential} {
		if !granted[k] {
			l.found.Add(place, "user.no_"+strings.ToLower(k.String()), "the user may launch tasks or triggers and has Execute on no %v, so every launch here is denied (ST16)", k)
		}
	}
}
