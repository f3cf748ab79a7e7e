package automic

import (
	"sort"
	"strings"

	"batchwarden/daemon/policy"
)

// A query is what is asked of the rows, as rows compare it (AU5).
type query struct {
	kind                   kind
	right                  rights
	name, host, login      []byte
	hostDst, loginDst      []byte
	fileSrc, fileDst       []byte
	srcWindows, dstWindows bool
}

// A verdict is an answer about one right on one object; reason is empty when it is yes.
type verdict struct{ rule, reason string }

func (v verdict) ok() bool { return v.reason == "" }

// roomForText is how many bytes of a request's texts are compared without
// allocating.
const roomForText = 512

// Decide answers r. It allocates nothing for requests of usual length.
func (p *Policy) Decide(r *policy.Request) policy.Decision {
	if err := check(r); err != nil {
		return policy.Refuse(err)
	}
	u := p.users[r.Subject.User]
	if u == nil || r.Subject.User == "" {
		return policy.Deny("AU3", "the document does not know the user")
	}
	var room [roomForText]byte
	for step := 0; ; step++ {
		q, v, more := question(r, step, room[:0])
		if !v.ok() {
			return policy.Deny(v.rule, v.reason)
		}
		if !more {
			break
		}
		if v := p.may(u, &q); !v.ok() {
			return policy.Deny(v.rule, v.reason)
		}
		if v := p.listed(u, r.Subject.User, &q, r.Action, step); !v.ok() {
			return policy.Deny(v.rule, v.reason)
		}
	}
	return policy.Allow(r, granting(r.Action), "every authorization group grants the right")
}

// granting is the rule that an allowed action cites.
func granting(action string) string {
	switch action {
	case "launch":
		return "AU26"
	case "create":
		return "AU21"
	case "delete_link", "add_favorite":
		return "AU22"
	}
	return "AU8"
}

// check finds what makes r no request of this model.
func check(r *policy.Request) *policy.InvalidError {
	if len(r.Subject.Roles) > 0 {
		return &policy.InvalidError{Field: "subject.roles", Text: "is not a member for automic"}
	}
	if r.Subject.By != "" {
		return &policy.InvalidError{Field: "subject.by", Text: "is not a member for automic"}
	}
	o := &r.Object
	var listed, required policy.Members
	switch r.Action {
	case "launch":
		required = policy.MemberName | policy.MemberLogin
		listed = required | policy.MemberHost
	case "create":
		required = policy.MemberType | policy.MemberTemplate | policy.MemberFolder
		listed = required
	case "delete_link", "add_favorite":
		required = policy.MemberFolder
		listed = required
	default:
		if right, bad := rightsOf(r.Action); len(r.Action) != 1 || bad != 0 || right == 0 {
			return &policy.InvalidError{Field: "action", Text: "is not a right, create, delete_link, add_favorite or launch"}
		}
		required = policy.MemberType | policy.MemberName
		listed = required | policy.MemberHost | policy.MemberLogin | policy.MemberFileSrc | policy.MemberHostDst |
			policy.MemberLoginDst | policy.MemberFileDst
	}
	if err := o.Only(r.Action, listed, required); err != nil {
		return err
	}
	return checkTexts(o)
}

// checkTexts finds names that are none (AU14, AU16, AU17).
func checkTexts(o *policy.Object) *policy.InvalidError {
	bad := func(field, text string) *policy.InvalidError {
		return &policy.InvalidError{Field: "object." + field, Text: text}
	}
	if o.Given&policy.MemberName != 0 && o.Name == "" {
		return bad("name", "is empty")
	}
	if o.Given&policy.MemberTemplate != 0 && o.Template == "" {
		return bad("template", "is empty")
	}
	if text := badFile(o.FileSrc); text != "" {
		return bad("file_src", text)
	}
	if text := badFile(o.FileDst); text != "" {
		return bad("file_dst", text)
	}
	if o.Given&policy.MemberFolder != 0 {
		if text := badFolder(o.Folder); text != "" {
			return bad("folder", text)
		}
	}
	if kindOf(o.Type) == folder && o.Given&policy.MemberName != 0 {
		if text := badFolder(o.Name); text != "" {
			return bad("name", text)
		}
	}
	return nil
}

// trimFolder makes \PROD\ and \PROD the same folder.
func trimFolder(path string) string {
	if len(path) > 1 {
		return strings.TrimSuffix(path, `\`)
	}
	return path
}

// question returns the step'th right that r needs, its texts in b where there
// is room; more is false behind the last. A verdict that is not ok denies
// without asking.
func question(r *policy.Request, step int, b []byte) (q query, v verdict, more bool) {
	o := &r.Object
	switch r.Action {
	case "launch": // AU26: X on the job and X on the login itself
		switch step {
		case 0:
			if o.Login == "" {
				return q, verdict{"AU16", "a launch is never authorized with an empty login"}, false
			}
			q.kind, q.right = jobs, execute
			b, q.name = put(b, o.Name)
			b, q.host = put(b, o.Host)
			_, q.login = put(b, o.Login)
		case 1:
			q.kind, q.right = login, execute
			_, q.name = put(b, o.Login)
		}
		return q, verdict{}, step < 2
	case "create": // AU21: W on the folder and on the template's name
		switch step {
		case 0:
			q.kind, q.right = folder, write
			_, q.name = put(b, trimFolder(o.Folder))
		case 1:
			if q.kind, q.right = kindOf(o.Type), write; q.kind == noKind {
				return q, verdict{"AU6", "there is no such type"}, false
			}
			_, q.name = put(b, o.Template)
		}
		return q, verdict{}, step < 2
	case "delete_link", "add_favorite": // AU22
		q.kind, q.right = folder, write
		_, q.name = put(b, trimFolder(o.Folder))
		return q, verdict{}, step < 1
	}
	if step > 0 {
		return q, verdict{}, false
	}
	q.right, _ = rightsOf(r.Action)
	if q.kind = kindOf(o.Type); q.kind == noKind {
		return q, verdict{"AU6", "there is no such type"}, false
	}
	name := o.Name
	if q.kind == folder {
		name = trimFolder(name)
	}
	b, q.name = put(b, name)
	b, q.host = put(b, o.Host)
	b, q.login = put(b, o.Login)
	b, q.hostDst = put(b, o.HostDst)
	b, q.loginDst = put(b, o.LoginDst)
	b, q.fileSrc, q.srcWindows = putFile(b, o.FileSrc)
	_, q.fileDst, q.dstWindows = putFile(b, o.FileDst)
	return q, verdict{}, true
}

// put appends s to b as rows compare it and returns that part.
func put(b []byte, s string) (all, part []byte) {
	n := len(b)
	b = upperTo(b, s)
	return b, b[n:len(b):len(b)]
}

func putFile(b []byte, s string) (all, part []byte, windows bool) {
	n := len(b)
	if !isWindows(s) {
		b = append(b, s...)
		return b, b[n:len(b):len(b)], false
	}
	b = upperTo(b, s)
	for i := n; i < len(b); i++ {
		if b[i] == '/' {
			b[i] = '\\'
		}
	}
	return b, b[n:len(b):len(b)], true
}

// noGroup are the reasons of AU10, by the number of the group.
var noGroup = [...]string{
	"No right found in authorization group '0'.", "No right found in authorization group '1'.",
	"No right found in authorization group '2'.", "No right found in authorization group '3'.",
	"No right found in authorization group '4'.", "No right found in authorization group '5'.",
	"No right found in authorization group '6'.", "No right found in authorization group '7'.",
	"No right found in authorization group '8'.", "No right found in authorization group '9'.",
}

const notBit = 1 << 0 // of the NOT rows among the groups' bits

// counted returns the groups that have to grant (AU8), without NOT.
func (p *Policy) counted(u *user, k kind) uint16 {
	var groups uint16
	for _, from := range u.from {
		if p.byType {
			groups |= from.byKind[k]
		} else {
			groups |= from.groups
		}
	}
	return groups &^ notBit
}

// may decides one right on one object by the rows (AU3 to AU9).
func (p *Policy) may(u *user, q *query) verdict {
	if q.kind.rights()&q.right == 0 {
		return verdict{"AU6", "the type does not have the right"}
	}
	need := p.counted(u, q.kind)
	if need == 0 {
		return verdict{"AU3", noGroup[0]}
	}
	for _, from := range u.from {
		s := search{rows: from.rows, q: q, need: notBit}
		if from.nots.find(&s) {
			return verdict{"AU7", from.denials[s.last]}
		}
	}
	var got uint16
	for _, from := range u.from {
		s := search{rows: from.rows, q: q, need: need, got: got}
		if from.grants.find(&s) {
			return verdict{}
		}
		got = s.got
	}
	for g := 1; g < len(noGroup); g++ {
		if (need&^got)&(1<<g) != 0 {
			return verdict{"AU8", noGroup[g]}
		}
	}
	return verdict{}
}

// listed decides by the object's own access list, where it has one (AU28). It
// binds single rights and the job of a launch.
func (p *Policy) listed(u *user, name string, q *query, action string, step int) verdict {
	if len(action) != 1 && (action != "launch" || step > 0) {
		return verdict{}
	}
	list, ok := p.objects[q.kind][string(q.name)]
	if ok && list.leaves(name, u)&q.right == 0 {
		return verdict{"AU28", "the object's own access list does not have the right for the user"}
	}
	return verdict{}
}

// A search goes over candidate rows until all needed groups were found.
type search struct {
	rows      []row
	q         *query
	need, got uint16
	last      uint32 // the row found last
}

// try goes over a bucket, whose rows are in the order of their groups, and
// reports whether nothing is needed any more. Behind a group that was found it
// goes on with the next, without looking at the rest.
func (s *search) try(places []uint32) bool {
	for i := 0; i < len(places); {
		r := &s.rows[places[i]]
		if s.got&(1<<r.group) != 0 {
			rest := places[i:]
			i += sort.Search(len(rest), func(j int) bool { return s.rows[rest[j]].group > r.group })
			continue
		}
		if s.one(places[i], r) {
			return true
		}
		i++
	}
	return false
}

// scan is try for rows in any order.
func (s *search) scan(places []uint32) bool {
	for _, i := range places {
		if r := &s.rows[i]; s.got&(1<<r.group) == 0 && s.one(i, r) {
			return true
		}
	}
	return false
}

func (s *search) one(place uint32, r *row) bool {
	if r.rights&s.q.right == 0 || !r.matches(s.q) {
		return false
	}
	s.got |= 1 << r.group
	s.last = place
	return s.got&s.need == s.need
}
