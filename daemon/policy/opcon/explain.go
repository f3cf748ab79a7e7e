package opcon

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"strings"

	"batchwarden/daemon/policy"
)

// Explain answers like Decide and says which roles the subject has and from
// where, what each of them gives, what the host lists say, which rule
// decided, and what would turn a denial into an allow.
func (p *Policy) Explain(r *policy.Request) (policy.Decision, *policy.Trace) {
	d := p.Decide(r)
	t := &policy.Trace{Decision: d}
	if d.Code == policy.Invalid {
		t.Add(policy.OfRule, "", "", true, "%s", d.Reason)
		return d, t
	}
	q, k := p.ask(nil, r)
	e := explainer{p: p, t: t, r: r, q: q, key: string(k)}
	e.subject()
	e.grants()
	e.lists()
	t.Add(policy.OfRule, d.Rule, "", true, "%s: %s", d.Rule, meaning(d.Rule))
	if !d.Allowed {
		t.Fix = e.fix()
	}
	return d, t
}

// meaning says a rule in the words of OPCON.md.
func meaning(rule string) string {
	switch rule {
	case "OC2":
		return "a batch user has one of the platforms windows, sql, unix, ibmi, mcp, openvms, zos and a login as that platform wants it"
	case "OC3":
		return "\"use service account\" and \"*\" exist by themselves and cannot be created, edited or deleted"
	case "OC4":
		return "batch users are kept by who has " + AllAdministrativeFunctions + ", " + AllFunctionPrivileges + " or " + Ocadm
	case "OC5":
		return "batch users are granted to roles by platform; what no role grants is revoked, at the launch too (OC7)"
	case "OC6":
		return Ocadm + " has every batch user and is not restricted by grants or machines"
	case "OC8":
		return "where a role of the subject has a list of machines, the machine must be on one of these lists"
	case "OC9":
		return "a batch user that jobs refer to cannot be deleted"
	case "OC14":
		return "who is on the host's black list, or not on a white list that has entries, is not launched"
	case "OC16":
		return "an unknown user and an unknown role have nothing"
	}
	return ""
}

type explainer struct {
	p   *Policy
	t   *policy.Trace
	r   *policy.Request
	q   question
	key string
}

func (e *explainer) subject() {
	s := &e.r.Subject
	switch u := e.p.user(s.User); {
	case s.User == "":
	case u == nil:
		e.t.Add(policy.OfSubject, "OC16", "", false, "user %q is not known to the document", s.User)
	case len(u.roles) == 0:
		e.t.Add(policy.OfSubject, "OC5", "users."+s.User, false, "user %q has no roles", s.User)
	default:
		for i, r := range u.roles {
			if i == maxRoles {
				e.t.Add(policy.OfSubject, "OC5", "users."+s.User+".roles", true, "user %q has %d more roles", s.User, len(u.roles)-i)
				break
			}
			e.t.Add(policy.OfSubject, "OC5", "users."+s.User+".roles", true, "user %q has the role %q", s.User, r.name)
		}
	}
	for i, name := range s.Roles {
		if i == maxRoles {
			e.t.Add(policy.OfSubject, "OC5", "", true, "the request names %d more roles", len(s.Roles)-i)
			break
		}
		if e.p.roles[name] == nil {
			e.t.Add(policy.OfSubject, "OC16", "", false, "the request names the role %q, which the document does not know", name)
			continue
		}
		e.t.Add(policy.OfSubject, "OC5", "", true, "the request names the role %q", name)
	}
}

// held returns the subject's roles, each once.
func (e *explainer) held() []*role {
	var held []*role
	e.p.each(&e.r.Subject, func(r *role) {
		if !slices.Contains(held, r) {
			held = append(held, r)
		}
	})
	return held
}

// maxRoles is how many of a subject's roles are shown, so that the lines behind
// them have their place.
const maxRoles = 100

// use says how much a role does for the request.
func (e *explainer) use(r *role) int {
	var h rights
	h.add(r, &e.q, []byte(e.key), e.r.Object.Machine)
	n := 0
	for _, yes := range []bool{h.ocadm, h.keeper, h.granted, h.here} {
		if yes {
			n++
		}
	}
	return n
}

func (e *explainer) grants() {
	o := &e.r.Object
	held := e.held()
	if n := len(held) - maxRoles; n > 0 {
		// What grants is shown first, so that it is among what is shown.
		slices.SortStableFunc(held, func(a, b *role) int { return cmp.Compare(e.use(b), e.use(a)) })
		held = held[:maxRoles]
		defer e.t.Add(policy.OfGrant, "OC5", "", false, "%d more roles are not shown", n)
	}
	for _, r := range held {
		place := "roles." + r.name
		if r.ocadm {
			e.t.Add(policy.OfGrant, "OC6", place, true, "%s is everything", Ocadm)
			continue
		}
		switch e.r.Action {
		case "create", "edit", "delete":
			e.t.Add(policy.OfGrant, "OC4", place+".functions", r.keeper, "role %q %s batch users", r.name, either(r.keeper, "may keep", "may not keep"))
			continue
		}
		if e.q.known {
			_, has := r.grants[e.q.platform][e.key]
			e.t.Add(policy.OfGrant, "OC5", place+".batch_users."+e.q.platform.String(), has, "role %q %s %q on %v%s",
				r.name, either(has, "grants", "does not grant"), o.BatchUser, e.q.platform, elsewhere(r, e.q.platform, o.BatchUser))
		}
		if r.restricts && e.r.Action == "launch" && e.q.machine {
			_, has := r.machines[o.Machine]
			e.t.Add(policy.OfGrant, "OC8", place+".machines", has, "role %q %s the machine %q", r.name, either(has, "lists", "does not list"), o.Machine)
		}
	}
}

// elsewhere points at the two usual mistakes: the grant is for another
// platform, or the name is written in other letters.
func elsewhere(r *role, p platform, login string) string {
	for other := range platforms {
		if other == p {
			continue
		}
		if _, has := r.grants[other][string(key(nil, other, login))]; has {
			return "; it does on " + other.String()
		}
	}
	for _, granted := range slices.Sorted(maps.Keys(r.grants[p])) {
		if granted != login && !p.folds() && strings.EqualFold(granted, login) {
			return "; it grants " + strconv.Quote(granted) + ", and " + p.String() + " names are case-sensitive (OC13)"
		}
	}
	return ""
}

func (e *explainer) lists() {
	if e.r.Action != "launch" || !e.q.known {
		return
	}
	login := e.r.Object.BatchUser
	if !e.p.black.empty() {
		e.t.Add(policy.OfList, "OC14", "host.black_list", e.q.black, "the black list %s %q", either(e.q.black, "has", "does not have"), login)
	}
	if !e.p.white.empty() {
		e.t.Add(policy.OfList, "OC14", "host.white_list", e.q.white, "the white list %s %q", either(e.q.white, "has", "does not have"), login)
	}
}

func either(yes bool, a, b string) string {
	if yes {
		return a
	}
	return b
}

// fix looks for the smallest single change that allows: one login, function,
// machine or white list entry more for what the subject has already, else
// one role more for the user, the one that gives least besides. The value is
// appended to the list at the place, which is made where there is none.
func (e *explainer) fix() *policy.Fix {
	h := e.p.rights(e.r, &e.q, []byte(e.key))
	held := slices.DeleteFunc(e.held(), func(r *role) bool { return r.ocadm })
	slices.SortStableFunc(held, func(a, b *role) int {
		return cmp.Or(cmp.Compare(a.holders, b.holders), strings.Compare(a.name, b.name))
	})
	names := make([]string, 0, len(held)+1)
	for _, r := range held {
		names = append(names, r.name)
	}
	for _, name := range e.r.Subject.Roles { // a role is made by granting it something
		if e.p.roles[name] == nil && name != "" {
			names = append(names, name)
		}
	}
	allows := func(q question, h rights) bool { return judge(e.r, q, h).Allowed }
	o := &e.r.Object

	if e.q.known && len(names) > 0 && e.q.platform.fault(o.BatchUser) == "" {
		with := h
		with.any, with.granted = true, true
		if allows(e.q, with) {
			return added("roles."+names[0]+".batch_users."+e.q.platform.String(), o.BatchUser)
		}
	}
	if len(names) > 0 {
		with := h
		with.any, with.keeper = true, true
		if allows(e.q, with) {
			return added("roles."+names[0]+".functions", AllAdministrativeFunctions)
		}
	}
	for _, r := range held {
		with := h
		with.here = true
		if r.restricts && o.Machine != "" && allows(e.q, with) {
			return added("roles."+r.name+".machines", o.Machine)
		}
	}
	if q := e.q; !q.white && plain(o.BatchUser) == "" {
		q.white = true
		if allows(q, h) {
			return added("host.white_list", o.BatchUser)
		}
	}
	if r := e.role(h); r != nil {
		return added("users."+e.r.Subject.User+".roles", r.name)
	}
	return &policy.Fix{Text: "no single grant; " + e.obstacle()}
}

// role returns the role that allows when the user gets it as well and that
// grants least, or nil. It never proposes Role_ocadm.
func (e *explainer) role(h rights) *role {
	if e.r.Subject.User == "" {
		return nil
	}
	var best *role
	for _, name := range slices.Sorted(maps.Keys(e.p.roles)) {
		r := e.p.roles[name]
		with := h
		with.add(r, &e.q, []byte(e.key), e.r.Object.Machine)
		if !r.ocadm && judge(e.r, e.q, with).Allowed && (best == nil || r.weight() < best.weight()) {
			best = r
		}
	}
	return best
}

// weight is how much a role gives.
func (r *role) weight() int {
	if r.keeper {
		return r.count + 1_000_000
	}
	return r.count
}

func added(place, value string) *policy.Fix {
	v, _ := json.Marshal(value) // a string does not fail
	return &policy.Fix{Place: place, Value: v, Text: "adding " + string(v) + " to " + place}
}

// obstacle says what no grant overcomes.
func (e *explainer) obstacle() string {
	switch {
	case !e.q.known:
		return "there is no such platform"
	case e.r.Action == "launch" && e.q.black:
		return "host.black_list names the batch user"
	case e.r.Action == "launch" || e.r.Action == "use":
		return "a role that grants the batch user, and what the lines above lack, are needed together"
	case e.q.reserved:
		return "the batch user is reserved"
	case e.r.Action == "create" && !e.q.wellFormed:
		return "the login is not one of its platform"
	case e.r.Action == "delete" && e.q.references:
		return "the jobs that refer to the batch user have to be changed first"
	}
	return "a role with " + AllAdministrativeFunctions + " is needed"
}
