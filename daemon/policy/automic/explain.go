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
	t.Add(policy.OfRule, d.Rule, "", true, "%s: %s", d.Rule, meaning(d.Rule))
	if !d.Allowed {
		t.Fix = x.fix(failed)
	}
	return d, t
}

// meaning says a rule in the words of AUTOMIC.md.
func meaning(rule string) string {
	switch rule {
	case "AU3":
		return "who has no row with a group number has no right"
	case "AU6":
		return "a right that the type does not have is never granted"
	case "AU7":
		return "a NOT row that matches and ticks the right denies it, whatever other rows grant"
	case "AU8":
		return "in every authorization group of which the user has rows, his own or of his user groups, one row must match and tick the right"
	case "AU16":
		return "a launch is decided with the login that will be used, so it has to be there"
	case "AU21":
		return "creating an object needs W on the folder, and W on a row whose Name matches the template"
	case "AU22":
		return "deleting a link and adding a favorite need W on the folder"
	case "AU26":
		return "running a job needs X on the JOBS object and X on the LOGIN object"
	case "AU28":
		return "where an object has authorizations of its own, only who is listed there keeps the listed rights"
	}
	return ""
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
		x.t.Add(policy.OfSubject, "AU3", "", false, "the document has no user %q", name)
		return
	}
	for i, from := range x.user.from {
		whose := "of his own"
		if i > 0 {
			whose = "as a member of the user group " + from.name
		}
		x.t.Add(policy.OfSubject, "AU2", from.place, true, "user %q has %s %s; authorization groups: %s", name, counted(len(from.rows), "row"), whose, groupList(from.groups))
	}
}

func groupList(groups uint16) string {
	var list []string
	for g := 1; g < len(noGroup); g++ {
		if groups&(1<<g) != 0 {
			list = append(list, fmt.Sprint(g))
		}
	}
	if groups&notBit != 0 {
		list = append(list, "NOT")
	}
	if list == nil {
		return "none"
	}
	return strings.Join(list, ", ")
}

func counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// rightWords are what the vendor's people call the rights, in the order of letters.
var rightWords = [...]string{"read", "write", "execute", "delete", "cancel", "statistics", "reports", "modify at runtime", "define SLA"}

// words is a single right with its word.
func (r rights) words() string {
	for i, word := range rightWords {
		if r == 1<<i {
			return r.String() + " (" + word + ")"
		}
	}
	return r.String()
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
	x.t.Add(policy.OfCheck, "AU5", "", answer == "granted", "%s on the object %v %s: %s; filter %s", q.right.words(), q.kind, q.name, answer, q.canonical())
	f := failure{q: *q, not: v.rule == "AU6" || v.rule == "AU7", list: v.ok() && !listed.ok()}
	if q.kind.rights()&q.right == 0 {
		x.t.Add(policy.OfRule, "AU6", "", true, "objects of type %v have the rights %s, and not %s", q.kind, q.kind.rights(), q.right.words())
	} else {
		x.rows(u, q)
		f.missing = x.groups(u, q)
	}
	if list, ok := x.p.objects[q.kind][string(q.name)]; ok && (len(x.r.Action) == 1 || x.r.Action == "launch" && step == 0) {
		kept := list.leaves(x.r.Subject.User, u)&q.right != 0
		x.t.Add(policy.OfList, "AU28", list.place, v.ok() && listed.ok(), "the object has authorizations of its own (%d listed); they %s %s to the user or one of his user groups",
			len(list.rights), map[bool]string{true: "leave", false: "do not leave"}[kept], q.right.words())
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
					x.t.Add(policy.OfGrant, "AU9", fmt.Sprintf("%s.rows[%d]", from.place, r.index), matches, "%s: %s", r.shown(), r.why(q))
				}
			}
		}
		if more > 0 {
			x.t.Add(policy.OfGrant, "AU9", "", wanted, "%d more rows that %s", more, map[bool]string{true: "match", false: "do not match"}[wanted])
		}
	}
	if others > 0 {
		x.t.Add(policy.OfGrant, "AU9", "", false, "%s for other types", counted(others, "more row"))
	}
}

func (r *row) number() string {
	if r.group == 0 {
		return "NOT"
	}
	return fmt.Sprint(r.group)
}

// shown is the row as the Authorizations tab has it, without empty columns.
func (r *row) shown() string {
	types := "*"
	if r.kinds != allKinds {
		types = r.kinds.list()
	}
	text := fmt.Sprintf("row Grp %s, Type %s", r.number(), types)
	column := func(name string, f filter) {
		if f != "" {
			text += ", " + name + " " + string(f)
		}
	}
	column("Name", r.name)
	column("Host", r.host)
	column("Login", r.login)
	if m := r.more; m != nil {
		column("File name (S)", m.fileSrc)
		column("Host (D)", m.hostDst)
		column("Login (D)", m.loginDst)
		column("File name (D)", m.fileDst)
	}
	return text + ", rights " + r.rights.String()
}

// why says what keeps a row of the type from counting, or, of one that counts,
// which columns match only because the object does not have the attribute.
func (r *row) why(q *query) string {
	var not, absent []string
	column := func(ok bool, name string, f filter, value []byte) {
		switch {
		case !ok:
			not = append(not, fmt.Sprintf("%s does not match %s", name, value))
		case f != "" && len(value) == 0:
			absent = append(absent, name)
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
		not = append(not, q.right.String()+" is not ticked")
	}
	if not != nil {
		return strings.Join(not, "; ")
	}
	text := "matches and grants "
	if r.group == 0 {
		text = "matches and denies "
	}
	text += q.right.String()
	if absent != nil {
		text += " (the request has no " + strings.Join(absent, ", ") + " here, which matches any filter, AU16)"
	}
	return text
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
			x.t.Add(policy.OfGroup, "AU8", has, false, "authorization group %d does not grant: no row of it matches and ticks %s; the user has rows of it from here, so it has to", g, q.right)
			continue
		}
		x.t.Add(policy.OfGroup, "AU8", by, true, "authorization group %d grants, by the row here", g)
	}
	if need == 0 {
		x.t.Add(policy.OfGroup, "AU3", "", false, "the user has no row with a group number that counts for the type, so nothing grants")
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
	switch {
	case f.q.kind.rights()&f.q.right == 0:
		return none("objects of type %v do not have the right %s", f.q.kind, f.q.right)
	case f.not:
		return none("a NOT row denies and no other row helps against it: it has to go, or to match less")
	}
	if len(f.missing) > 1 {
		return none("the authorization groups %v each need a row", f.missing)
	}
	added := docRow{Group: "1", Type: f.q.kind.String(), Rights: f.q.right.String(),
		Name: string(f.q.name), Host: string(f.q.host), Login: string(f.q.login), FileSrc: string(f.q.fileSrc),
		HostDst: string(f.q.hostDst), LoginDst: string(f.q.loginDst), FileDst: string(f.q.fileDst)}
	if len(f.missing) == 1 {
		added.Group = fmt.Sprint(f.missing[0])
	}
	v, _ := json.Marshal(added) // texts do not fail
	fix := &policy.Fix{Place: "users." + name + ".rows", Value: v, Text: fmt.Sprintf("adding the row %s to the authorizations of %s (users.%s.rows)", added, name, name)}
	if d, ok := x.p.with(x.r, added); !ok {
		return none("a text of the request is longer than a filter may be (AU13)")
	} else if !d.Allowed {
		return none("besides others: %s", fix.Text)
	}
	return fix
}

// with decides r as if the user had one row more; false when there can be no such row.
func (p *Policy) with(r *policy.Request, d docRow) (policy.Decision, bool) {
	name := r.Subject.User
	doc, err := json.Marshal(map[string]any{"model": "automic", "users": map[string]any{name: map[string]any{"rows": []docRow{d}}}})
	if err != nil {
		return policy.Decision{}, false
	}
	extra, err := Parse("", doc)
	if err != nil { // a text too long for a filter
		return policy.Decision{}, false
	}
	u := &user{from: extra.users[name].from}
	if old := p.users[name]; old != nil {
		u.groups = old.groups
		u.from = append(u.from, old.from...)
	}
	return (&Policy{byType: p.byType, objects: p.objects, users: map[string]*user{name: u}}).Decide(r), true
}

// String is the row without its empty columns.
func (d docRow) String() string {
	text := "Grp " + d.Group + ", Type " + d.Type
	for _, c := range [...][2]string{{"Name", d.Name}, {"Host", d.Host}, {"Login", d.Login}, {"File name (S)", d.FileSrc},
		{"Host (D)", d.HostDst}, {"Login (D)", d.LoginDst}, {"File name (D)", d.FileDst}} {
		if c[1] != "" {
			text += ", " + c[0] + " " + c[1]
		}
	}
	return text + ", rights " + d.Rights
}
