package stonebranch

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"batchwarden/daemon/policy"
)

// A journal collects what a decision looked at.
type journal struct {
	checks []checked
	wanted []roles // of each set one role is enough
	by     string  // who acts for another (ST5)
	acting *user
	target *user
}

type checked struct {
	want    want
	record  policy.Record
	parents []policy.Record
	rule    string // by which it is granted, "" when it is not
}

func (j *journal) check(w want, record *policy.Record, parents []policy.Record, rule string) {
	j.checks = append(j.checks, checked{w, *record, slices.Clone(parents), rule})
}

func (j *journal) roles(want roles, u *user) {
	if u.roles&want == 0 {
		j.wanted = append(j.wanted, want)
	}
}

func (j *journal) actor(by string, actor, target *user) {
	j.by, j.acting, j.target = by, actor, target
}

func (w want) String() string {
	if w.op != 0 {
		for _, name := range []string{"Create", "Read", "Update", "Delete", "Execute"} {
			if opOf(name) == w.op {
				return name
			}
		}
	}
	for i, c := range types[w.kind].commands {
		if w.command == 1<<i {
			return c
		}
	}
	return "nothing"
}

// Explain answers like Decide and says which roles the user has and from
// where, each right that the request needs, the permissions that were looked
// at for it and why those that do not match do not, and what would turn a
// denial into an allow.
func (p *Policy) Explain(r *policy.Request) (policy.Decision, *policy.Trace) {
	log := &journal{}
	d := p.decide(r, log)
	t := &policy.Trace{Decision: d}
	if d.Code == policy.Invalid {
		t.Add(policy.OfRule, "", "", true, "%s", d.Reason)
		return d, t
	}
	x := explainer{p: p, r: r, t: t, log: log, user: p.user(r.Subject.User)}
	x.subject()
	for i := range log.checks {
		x.check(&log.checks[i])
	}
	for _, want := range log.wanted {
		t.Add(policy.OfCheck, d.Rule, "", false, "the user has none of the roles %s", strings.Join(want.names(), ", "))
	}
	if d.Rule == "ST16" && !d.Allowed {
		t.Add(policy.OfVendor, "ST17", "", true, "Start Failure: %s", d.Reason)
	}
	t.Add(policy.OfRule, d.Rule, "", true, "%s: %s", d.Rule, d.Reason)
	if !d.Allowed {
		t.Fix = x.fix()
	}
	return d, t
}

type explainer struct {
	p    *Policy
	r    *policy.Request
	t    *policy.Trace
	log  *journal
	user *user
}

func (x *explainer) subject() {
	s := &x.r.Subject
	if x.user == nil {
		x.t.Add(policy.OfSubject, "ST25", "", false, "user %q is not known to the document", s.User)
		return
	}
	for _, from := range x.user.from {
		text := "no roles"
		if from.roles != 0 {
			text = strings.Join(from.roles.names(), ", ")
		}
		x.t.Add(policy.OfSubject, "ST6", from.place, true, "user %q has from here: %s", s.User, text)
	}
	if more := x.user.roles &^ x.user.own; more != 0 && x.user.roles&opsAdmin == 0 {
		x.t.Add(policy.OfSubject, "ST2", "", true, "these contain %s", strings.Join(more.names(), ", "))
	}
	if j := x.log; j.acting != nil {
		x.t.Add(policy.OfCheck, "ST5", "users."+j.by, j.acting.roles&opsUserImpersonate != 0, "%q acts for another and needs ops_user_impersonate", j.by)
		if j.target.roles&opsAdmin != 0 {
			x.t.Add(policy.OfCheck, "ST5", "users."+j.by, j.acting.roles&opsAdmin != 0, "the other is an ops_admin; %q must be one too", j.by)
		}
	}
}

func (x *explainer) check(c *checked) {
	answer := "not granted"
	if c.rule != "" {
		answer = "granted by " + c.rule
	}
	x.t.Add(policy.OfCheck, c.rule, "", c.rule != "", "%v on %s: %s", c.want, described(c.want.kind, &c.record), answer)
	if c.rule != "" && c.rule != "ST6" && c.rule != "ST13" {
		return
	}
	shown, more := 0, 0
	for _, s := range x.user.from {
		for i := range s.permissions[c.want.kind] {
			p := &s.permissions[c.want.kind][i]
			if shown++; shown > maxPermissions {
				more++
				continue
			}
			place := fmt.Sprintf("%s.permissions[%d]", s.place, p.index)
			x.permission(c.want, p, &c.record, place, "")
			for j := range c.parents {
				if j < maxParents && c.want.kind == taskInstance && c.want.command != 0 {
					x.permission(c.want, p, &c.parents[j], place, fmt.Sprintf("parent %q: ", c.parents[j].Name))
				}
			}
		}
	}
	if more > 0 {
		x.t.Add(policy.OfGrant, "ST6", "", false, "%d more permissions of this type are not shown", more)
	}
}

// What is shown of one check, so that the lines behind it have their place.
const (
	maxPermissions = 40
	maxParents     = 10
)

func (x *explainer) permission(w want, p *permission, record *policy.Record, place, whose string) {
	why := "grants it"
	switch {
	case p.ops&w.op == 0 && p.commands&w.command == 0:
		why = "does not have " + w.String()
	case !policy.Match(p.name, record.Name):
		why = fmt.Sprintf("is for the name %q", p.name)
	case !p.criterion.holds(record.Services, p.services):
		why = fmt.Sprintf("is for the services %s %q", criterionNames[p.criterion], p.services)
	}
	x.t.Add(policy.OfGrant, "ST6", place, why == "grants it", "%sthis permission %s", whose, why)
}

func described(k kind, r *policy.Record) string {
	services := "without a service"
	if len(r.Services) > 0 {
		services = fmt.Sprintf("of %q", r.Services)
	}
	return fmt.Sprintf("%v %q (%s)", k, r.Name, services)
}

// fix looks for the one permission or role that is missing. It never
// proposes ops_admin.
func (x *explainer) fix() *policy.Fix {
	if x.r.Subject.User == "" {
		return &policy.Fix{Text: "no single grant; the request names no user"}
	}
	if j := x.log; j.acting != nil && !x.impersonated() {
		if j.target.roles&opsAdmin != 0 {
			return &policy.Fix{Text: "no single grant; only an ops_admin acts for an ops_admin"}
		}
		return x.fits(added("users."+j.by+".roles", opsUserImpersonate.name()))
	}
	log := x.log
	if x.user == nil { // what would he need if he were there
		log = &journal{}
		p := Policy{properties: x.p.properties, users: map[string]*user{x.r.Subject.User: {from: []*source{{}}}}}
		for name, u := range x.p.users {
			p.users[name] = u
		}
		if p.decide(x.r, log).Allowed {
			return &policy.Fix{Place: "users." + x.r.Subject.User + ".permissions", Text: "adding the user to the document, without any permission"}
		}
	}
	var missing []*checked
	for i := range log.checks {
		if c := &log.checks[i]; c.rule == "" && !(c.want.kind == variable && x.r.Action == "launch") {
			missing = append(missing, c)
		}
	}
	switch {
	case len(log.wanted) == 1 && len(missing) == 0:
		return x.fits(added("users."+x.r.Subject.User+".roles", least(log.wanted[0]).name()))
	case len(missing) > 0 && same(missing):
		return x.fits(added("users."+x.r.Subject.User+".permissions", grantFor(missing)))
	case len(missing) > 0:
		return &policy.Fix{Text: fmt.Sprintf("no single grant; %d rights are missing, see the checks above", len(missing))}
	}
	return &policy.Fix{Text: "no single grant"}
}

func (x *explainer) impersonated() bool {
	j := x.log
	return j.acting.roles&opsUserImpersonate != 0 && (j.target.roles&opsAdmin == 0 || j.acting.roles&opsAdmin != 0)
}

// fits withdraws a proposal that is not enough by itself.
func (x *explainer) fits(f *policy.Fix) *policy.Fix {
	if x.p.with(x.r, f).Allowed {
		return f
	}
	return &policy.Fix{Text: "no single grant; besides others: " + f.Text}
}

// with decides r as if f were in the document.
func (p *Policy) with(r *policy.Request, f *policy.Fix) policy.Decision {
	name := strings.TrimPrefix(f.Place, "users.")
	var role roles
	var text string
	var grant docPermission
	switch {
	case json.Unmarshal(f.Value, &text) == nil:
		name, role = strings.TrimSuffix(name, ".roles"), roleOf(text)
	case json.Unmarshal(f.Value, &grant) == nil:
		name = strings.TrimSuffix(name, ".permissions")
	}
	changed := Policy{properties: p.properties, users: map[string]*user{}}
	for n, u := range p.users {
		changed.users[n] = u
	}
	u := &user{}
	if old := p.users[name]; old != nil {
		*u = *old
	}
	extra := &source{roles: role}
	if k, ok := kindOf(grant.Type); ok {
		extra.permissions[k] = []permission{grant.compiled(k)}
	}
	u.from = append(slices.Clone(u.from), extra)
	u.own |= role
	u.roles = u.own.contained()
	changed.users[name] = u
	return changed.Decide(r)
}

// compiled is a permission that was made here and has no faults.
func (d docPermission) compiled(k kind) permission {
	p := permission{name: d.Name}
	if d.BusinessServices != nil {
		p.criterion = criterion(slices.Index(criterionNames[:], d.BusinessServices.Criterion))
		p.services = d.BusinessServices.Services
	}
	for _, o := range d.Operations {
		p.ops |= opOf(o).implied()
	}
	for _, c := range d.Commands {
		p.commands |= k.command(c)
	}
	return p
}

// least is the role of the set that gives least.
func least(want roles) roles {
	for _, r := range []roles{opsReportGroup, opsDashboardGroup, opsAuditView} {
		if want&r != 0 {
			return r
		}
	}
	return want & -want
}

// same reports whether all checks are about one record, so that one permission is enough.
func same(checks []*checked) bool {
	for _, c := range checks[1:] {
		if c.want.kind != checks[0].want.kind || c.record.Name != checks[0].record.Name || !sameSet(c.record.Services, checks[0].record.Services) {
			return false
		}
	}
	return true
}

// grantFor is the narrowest permission for one record.
func grantFor(checks []*checked) docPermission {
	record := &checks[0].record
	d := docPermission{Type: checks[0].want.kind.String(), Name: record.Name, Operations: []string{}, Commands: []string{},
		BusinessServices: &docServices{Criterion: criterionNames[unassigned]}}
	if len(record.Services) > 0 {
		d.BusinessServices = &docServices{criterionNames[specific], record.Services[:1]}
	}
	for _, c := range checks {
		list := &d.Operations
		if c.want.op == 0 {
			list = &d.Commands
		}
		if !slices.Contains(*list, c.want.String()) {
			*list = append(*list, c.want.String())
		}
	}
	return d
}

func added(place string, value any) *policy.Fix {
	v, _ := json.Marshal(value) // strings and lists of them do not fail
	return &policy.Fix{Place: place, Value: v, Text: "adding " + string(v) + " to " + place}
}
