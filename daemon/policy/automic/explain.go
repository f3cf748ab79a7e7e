package automic

import (
	"encoding/json"
	"fmt"
	"strings"

	"batchwarden/daemon/policy"
)

// Explain answers like Decide and says for each right that the request needs:
// the rows of the type and why each does or does not match, from which
// profile they come, what became of each authorization group, which NOT row
// denied, the filter and the message by which the vendor's people know a
// denial, and what would turn it into an allow.
func (p *Policy) Explain(r *policy.Request) (policy.Decision, *policy.Trace) {
	d := p.Decide(r)
	t := &policy.Trace{Decision: d}
	if d.Code == policy.Invalid {
		t.Add(policy.OfRule, "", "", true, "%s", d.Reason)
		return d, t
	}
	x := explainer{p: p, r: r, t: t, user: p.users[r.Subject.User]}
	x.subject()
	var failed []failure
	for step := 0; ; step++ {
		q, v, more := question(r, step, nil)
		if !v.ok() || !more {
			break
		}
		if f := x.right(&q, step); f != nil {
			failed = append(failed, *f)
		}
	}
	t.Add(policy.OfRule, d.Rule, "", true, "%s: %s", d.Rule, d.Reason)
	if !d.Allowed {
		t.Fix = x.fix(failed)
	}
	return d, t
}

type explainer struct {
	p    *Policy
	r    *policy.Request
	t    *policy.Trace
	user *user // nil when the document does not know him
}

// A failure is a right that was not granted, and what is missing.
type failure struct {
	q       query
	not     bool  // a NOT row or the type denies: no row helps
	missing []int // groups
	list    bool  // the object's own list denies
}

func (x *explainer) subject() {
	name := x.r.Subject.User
	if x.user == nil {
		x.t.Add(policy.OfSubject, "AU3", "", false, "user %q is not known to the document", name)
		return
	}
	for i, from := range x.user.from {
		whose := "his own"
		if i > 0 {
			whose = "those of the group " + from.name
		}
		x.t.Add(policy.OfSubject, "AU2", from.place, true, "user %q has %d rows, %s; groups %s", name, len(from.rows), whose, groupList(from.groups&^notBit))
	}
}

func groupList(groups uint16) string {
	var list []string
	for g := 1; g < len(noGroup); g++ {
		if groups&(1<<g) != 0 {
			list = append(list, fmt.Sprint(g))
		}
	}
	if list == nil {
		return "none"
	}
	return strings.Join(list, ", ")
}

// right explains one right on one object.
func (x *explainer) right(q *query, step int) *failure {
	u := x.user
	if u == nil {
		u = &user{from: []*profile{{}}}
	}
	v := x.p.may(u, q)
	listed := verdict{}
	if v.ok() {
		listed = x.p.listed(u, x.r.Subject.User, q, x.r.Action, step)
	}
	answer := "granted"
	if !v.ok() || !listed.ok() {
		answer = "not granted"
	}
	x.t.Add(policy.OfCheck, "AU5", "", answer == "granted", "%s on %v %s: %s; filter %s", q.right, q.kind, q.name, answer, q.canonical())
	f := failure{q: *q, not: v.rule == "AU6" || v.rule == "AU7", list: v.ok() && !listed.ok()}
	if q.kind.rights()&q.right == 0 {
		x.t.Add(policy.OfRule, "AU6", "", true, "objects of type %v have the rights %s", q.kind, q.kind.rights())
	} else {
		x.rows(u, q)
		f.missing = x.groups(u, q)
	}
	if list, ok := x.p.objects[q.kind][string(q.name)]; ok && (len(x.r.Action) == 1 || x.r.Action == "launch" && step == 0) {
		x.t.Add(policy.OfList, "AU28", list.place, v.ok() && listed.ok(), "the object has an access list of %d entries; it %s the right", len(list.rights), map[bool]string{true: "leaves", false: "does not leave"}[list.leaves(x.r.Subject.User, u)&q.right != 0])
	}
	if answer == "granted" {
		return nil
	}
	x.vendor(q, v)
	return &f
}

// canonical is the filter of AU10, empty slots left empty.
func (q *query) canonical() string {
	parts := []string{q.kind.String()}
	for _, part := range [][]byte{q.name, q.host, q.hostDst, q.login, q.loginDst, q.fileSrc, q.fileDst} {
		parts = append(parts, string(part))
	}
	return strings.Join(parts, "/")
}

// maxRows is how many rows of each sort are shown for one right, so that the
// groups and messages behind them always have their place.
const maxRows = 100

// rows names the rows that cover the type: those that match first.
func (x *explainer) rows(u *user, q *query) {
	others := 0
	for _, wanted := range []bool{true, false} {
		shown, more := 0, 0
		for _, from := range u.from {
			for i := range from.rows {
				r := &from.rows[i]
				matches := r.matches(q) && r.rights&q.right != 0
				switch {
				case matches != wanted:
				case r.kinds&q.kind.bit() == 0:
					others++
				case shown == maxRows:
					more++
				default:
					shown++
					x.t.Add(policy.OfGrant, "AU9", fmt.Sprintf("%s.rows[%d]", from.place, r.index), matches, "%s: %s", r.number(), r.why(q))
				}
			}
		}
		if more > 0 {
			x.t.Add(policy.OfGrant, "AU9", "", wanted, "%d more rows that %s", more, map[bool]string{true: "match", false: "do not match"}[wanted])
		}
	}
	if others > 0 {
		x.t.Add(policy.OfGrant, "AU9", "", false, "%d rows are for other types", others)
	}
}

func (r *row) number() string {
	if r.group == 0 {
		return "NOT"
	}
	return fmt.Sprintf("group %d", r.group)
}

// why says what keeps a row of the type from counting.
func (r *row) why(q *query) string {
	var not []string
	column := func(ok bool, name string, f filter, value []byte) {
		if !ok {
			not = append(not, fmt.Sprintf("%s %q does not match %q", name, f, value))
		}
	}
	if q.kind == folder {
		column(r.name.matchesFolder(q.name), "Name", r.name, q.name)
	} else {
		column(r.name.matchesName(q.name), "Name", r.name, q.name)
	}
	column(r.host.matches(q.host), "Host", r.host, q.host)
	column(r.login.matches(q.login), "Login", r.login, q.login)
	if m := r.more; m != nil {
		src, dst := m.fileSrc, m.fileDst
		if q.srcWindows {
			src = m.fileSrcWindows
		}
		if q.dstWindows {
			dst = m.fileDstWindows
		}
		column(m.hostDst.matches(q.hostDst), "Host (D)", m.hostDst, q.hostDst)
		column(m.loginDst.matches(q.loginDst), "Login (D)", m.loginDst, q.loginDst)
		column(src.matches(q.fileSrc), "File name (S)", src, q.fileSrc)
		column(dst.matches(q.fileDst), "File name (D)", dst, q.fileDst)
	}
	if r.rights&q.right == 0 {
		not = append(not, fmt.Sprintf("%s is not ticked (%s)", q.right, r.rights))
	}
	switch {
	case not != nil:
		return strings.Join(not, "; ")
	case r.group == 0:
		return "matches and denies " + q.right.String()
	}
	return "matches and has " + q.right.String()
}

// groups says of each group that counts whether a row grants, and returns
// the numbers of those without.
func (x *explainer) groups(u *user, q *query) (missing []int) {
	need := x.p.counted(u, q.kind)
	for g := 1; g < len(noGroup); g++ {
		if need&(1<<g) == 0 {
			continue
		}
		by, has := "", "" // who grants, and whose rows make the group count
		for _, from := range u.from {
			for i := range from.rows {
				r := &from.rows[i]
				if int(r.group) != g {
					continue
				}
				if has == "" {
					has = from.place
				}
				if by == "" && r.rights&q.right != 0 && r.matches(q) {
					by = fmt.Sprintf("%s.rows[%d]", from.place, r.index)
				}
			}
		}
		if by == "" {
			missing = append(missing, g)
			x.t.Add(policy.OfGroup, "AU8", has, false, "group %d: no row matches and has %s; the group counts because of the rows here", g, q.right)
			continue
		}
		x.t.Add(policy.OfGroup, "AU8", by, true, "group %d grants", g)
	}
	if need == 0 {
		x.t.Add(policy.OfGroup, "AU3", "", false, "no row with a group counts")
	}
	return missing
}

// vendor adds the messages that the engine itself would write (AU10, AU26).
func (x *explainer) vendor(q *query, v verdict) {
	if !v.ok() {
		reason := v.reason
		if v.rule == "AU6" {
			reason = noGroup[0]
		}
		x.t.Add(policy.OfVendor, "AU10", "", true, "U00004506 Access violation: User: '%s' Object: '%s' Access: '%s' Reason: %s",
			x.r.Subject.User, q.name, q.right, reason)
	}
	x.t.Add(policy.OfVendor, "AU10", "", true, "U00004519 Used filter: '%s'", q.canonical())
	if x.r.Action == "launch" && q.kind == login {
		x.t.Add(policy.OfVendor, "AU26", "", true, "U00011181: X on the LOGIN object %q is missing", q.name)
	}
}

// fix is one row for the user, when that is enough.
func (x *explainer) fix(failed []failure) *policy.Fix {
	none := func(format string, args ...any) *policy.Fix {
		return &policy.Fix{Text: "no single grant; " + fmt.Sprintf(format, args...)}
	}
	name := x.r.Subject.User
	if len(failed) != 1 || name == "" {
		return none("%d rights are missing", len(failed))
	}
	f := failed[0]
	if f.list {
		list := x.p.objects[f.q.kind][string(f.q.name)]
		v, _ := json.Marshal((list.rights[name] | f.q.right).String()) // a text does not fail
		place := list.place + ".access." + name
		return &policy.Fix{Place: place, Value: v, Text: fmt.Sprintf("setting %s to %s", place, v)}
	}
	if f.not {
		return none("no row helps against a NOT row, or for a right that the type does not have")
	}
	if len(f.missing) > 1 {
		return none("the groups %v each need a row", f.missing)
	}
	row := docRow{Group: "1", Type: f.q.kind.String(), Rights: f.q.right.String(),
		Name: string(f.q.name), Host: string(f.q.host), Login: string(f.q.login), FileSrc: string(f.q.fileSrc),
		HostDst: string(f.q.hostDst), LoginDst: string(f.q.loginDst), FileDst: string(f.q.fileDst)}
	if len(f.missing) == 1 {
		row.Group = fmt.Sprint(f.missing[0])
	}
	v, _ := json.Marshal(row) // texts do not fail
	fix := &policy.Fix{Place: "users." + name + ".rows", Value: v, Text: fmt.Sprintf("adding the row %s to users.%s.rows", v, name)}
	if !x.p.with(x.r, row).Allowed {
		return none("besides others: %s", fix.Text)
	}
	return fix
}

// with decides r as if the user had one row more.
func (p *Policy) with(r *policy.Request, d docRow) policy.Decision {
	name := r.Subject.User
	doc, err := json.Marshal(map[string]any{"model": "automic", "users": map[string]any{name: map[string]any{"rows": []docRow{d}}}})
	if err != nil {
		return policy.Decision{}
	}
	extra, err := Parse("", doc)
	if err != nil { // a name with a comma, or too long for a filter
		return policy.Decision{}
	}
	u := &user{from: extra.users[name].from}
	if old := p.users[name]; old != nil {
		u.groups = old.groups
		u.from = append(u.from, old.from...)
	}
	return (&Policy{byType: p.byType, objects: p.objects, users: map[string]*user{name: u}}).Decide(r)
}
