package automic

import (
	"slices"

	"batchwarden/daemon/policy"
)

var _ policy.Asker = Model{}

// Ask asks for every user what the rows name that he has in either document:
// first about users whose rows differ, and of these first about the rows that do.
func (Model) Ask(before, after policy.Engine, limit int) policy.Questions {
	a := policy.NewAsking(limit)
	docs := [2]*Policy{before.(*Policy), after.(*Policy)}
	objects := listedObjects(docs)
	known := map[string]bool{}
	differ, rest := policy.Differing(policy.Either(docs[0].users, docs[1].users), func(name string) bool {
		return docs[0].users[name].same(docs[1].users[name], known)
	})
	for i, names := range [][]string{differ, rest} {
		for _, name := range a.Subjects(names) {
			s := &asker{a: a, user: name}
			if i == 0 {
				s.rows = different(docs[0].users[name].rows(), docs[1].users[name].rows())
			} else {
				s.rows = docs[0].users[name].rows()
			}
			s.collect(objects)
			s.ask(objects)
		}
	}
	return a.Questions()
}

// same reports whether a user has the same in both documents. Known remembers
// that of groups.
func (u *user) same(o *user, known map[string]bool) bool {
	if u == nil || o == nil || !slices.Equal(u.groups, o.groups) {
		return false
	}
	for i, from := range u.from {
		same, is := known[from.place]
		if !is {
			same = slices.EqualFunc(from.rows, o.from[i].rows, func(a, b row) bool { return a.id() == b.id() })
			known[from.place] = same
		}
		if !same {
			return false
		}
	}
	return true
}

// rows are those that may match, of all profiles.
func (u *user) rows() (rows []*row) {
	if u == nil {
		return nil
	}
	for _, from := range u.from {
		for i := range from.rows {
			if r := &from.rows[i]; r.rights != 0 && r.kinds != 0 {
				rows = append(rows, r)
			}
		}
	}
	return rows
}

// different returns the rows of both, each once, those first that are only in one.
func different(a, b []*row) []*row {
	in := map[id]int{}
	for _, r := range a {
		in[r.id()] |= 1
	}
	for _, r := range b {
		in[r.id()] |= 2
	}
	var first, rest []*row
	for _, r := range slices.Concat(a, b) {
		switch in[r.id()] {
		case 1, 2:
			first = append(first, r)
		case 3:
			rest = append(rest, r)
		}
		in[r.id()] = 0
	}
	return append(first, rest...)
}

// An id is what two equal rows have in common.
type id struct {
	row
	rest more
}

func (r *row) id() id {
	i := id{*r, *r.rest()}
	i.more, i.index = nil, 0
	return i
}

// An object is one with a list of its own in either document.
type object struct {
	kind kind
	name string
}

func listedObjects(docs [2]*Policy) []object {
	var all []object
	for k := range typeNames {
		for _, name := range policy.Either(docs[0].objects[k], docs[1].objects[k]) {
			all = append(all, object{kind(k), name})
		}
	}
	return all
}

// ask makes the questions, those that matter most first.
func (s *asker) ask(objects []object) {
	_ = s.askRows() && s.askPairs() && s.askObjects(objects) && s.askLaunches() && s.askFolders() && s.askRights() && s.askTransfers()
}

func (s *asker) add(action string, set func(*policy.Object)) bool {
	r := policy.Request{Subject: policy.Subject{User: s.user}, Action: action}
	set(&r.Object)
	return s.a.Add(r)
}

// right asks for one right. What is empty is not mentioned.
func (s *asker) right(right string, o policy.Object) bool {
	for m, text := range map[policy.Members]string{policy.MemberHost: o.Host, policy.MemberLogin: o.Login, policy.MemberHostDst: o.HostDst,
		policy.MemberLoginDst: o.LoginDst, policy.MemberFileSrc: o.FileSrc, policy.MemberFileDst: o.FileDst} {
		if text != "" {
			o.Given |= m
		}
	}
	o.Given |= policy.MemberType | policy.MemberName
	return s.add(right, func(into *policy.Object) { *into = o })
}

// askRows asks for what each row says by itself.
func (s *asker) askRows() bool {
	one := func(list []string) string {
		if len(list) == 0 {
			return ""
		}
		return list[len(list)-1]
	}
	for _, r := range s.rows {
		for k := range s.each(r.kinds) {
			for _, name := range r.samples(k) {
				o := policy.Object{Type: k.String(), Name: name, Host: one(r.host.samples()), Login: one(r.login.samples())}
				if m := r.more; m != nil {
					o.HostDst, o.LoginDst = one(m.hostDst.samples()), one(m.loginDst.samples())
					o.FileSrc, o.FileDst = one(m.fileSrc.files()), one(m.fileDst.files())
				}
				for right := range (r.rights & k.rights()).each() {
					if !s.right(right, o) {
						return false
					}
				}
			}
		}
	}
	return true
}

// askPairs asks for what two rows of different groups match together, each
// right by itself: groups are AND-ed and NOT rows deny, so it is there that
// one of them shows. An attribute that the two cannot share is left out.
func (s *asker) askPairs() bool {
	rows := s.rows[:min(len(s.rows), maxCompared)]
	first := func(list []string) string {
		if len(list) == 0 {
			return ""
		}
		return list[0]
	}
	for i, r := range rows {
		for _, o := range rows[:i] {
			if r.group == o.group || r.rights&o.rights == 0 {
				continue
			}
			a, b := r.rest(), o.rest()
			into := policy.Object{Host: first(meet(r.host, o.host)), Login: first(meet(r.login, o.login)),
				HostDst: first(meet(a.hostDst, b.hostDst)), LoginDst: first(meet(a.loginDst, b.loginDst)),
				FileSrc: first(goodFiles(meet(a.fileSrc, b.fileSrc))), FileDst: first(goodFiles(meet(a.fileDst, b.fileDst)))}
			if r.more == nil && o.more == nil {
				into.HostDst, into.LoginDst, into.FileSrc, into.FileDst = "", "", "", ""
			}
			for k := range s.each(r.kinds & o.kinds) {
				into.Type = k.String()
				for _, into.Name = range r.shared(o, k) {
					for right := range (r.rights & o.rights & k.rights()).each() {
						if !s.right(right, into) {
							return false
						}
					}
				}
			}
		}
	}
	return true
}

func (r *row) rest() *more {
	if r.more == nil {
		return &more{}
	}
	return r.more
}

func (r rights) each() func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for _, c := range r.String() {
			if !yield(string(c)) {
				return
			}
		}
	}
}

func (s *asker) askObjects(objects []object) bool {
	for _, o := range objects {
		for right := range o.kind.rights().each() {
			if s.rights[o.kind].String() != "" && !s.right(right, policy.Object{Type: o.kind.String(), Name: o.name}) {
				return false
			}
		}
	}
	return true
}

func (s *asker) askLaunches() bool {
	for _, name := range s.names[jobs].List() {
		for _, account := range s.logins.List() {
			for _, host := range s.hosts.List() {
				if !s.add("launch", func(o *policy.Object) {
					o.Name, o.Login, o.Host = name, account, host
					o.Given = policy.MemberName | policy.MemberLogin | policy.MemberHost
				}) {
					return false
				}
			}
		}
	}
	return true
}

func (s *asker) askFolders() bool {
	for _, path := range s.names[folder].List() {
		for _, action := range []string{"delete_link", "add_favorite"} {
			if !s.add(action, func(o *policy.Object) { o.Folder, o.Given = path, policy.MemberFolder }) {
				return false
			}
		}
		for k := range s.each(allKinds) {
			for _, name := range s.names[k].List() {
				if s.rights[k]&write != 0 && !s.add("create", func(o *policy.Object) {
					o.Type, o.Template, o.Folder = k.String(), name, path
					o.Given = policy.MemberType | policy.MemberTemplate | policy.MemberFolder
				}) {
					return false
				}
			}
		}
	}
	return true
}

// orNone adds that the attribute is not there.
func orNone(w *policy.Words) []string { return append([]string{""}, w.List()...) }

func (s *asker) askRights() bool {
	for k := range s.each(allKinds) {
		for right := range s.rights[k].each() {
			for _, name := range s.names[k].List() {
				for _, host := range orNone(&s.hosts) {
					for _, account := range orNone(&s.logins) {
						if !s.right(right, policy.Object{Type: k.String(), Name: name, Host: host, Login: account}) {
							return false
						}
					}
				}
			}
		}
	}
	return true
}

// askTransfers asks for the columns that few rows have.
func (s *asker) askTransfers() bool {
	for k := range s.each(allKinds) {
		if !slices.ContainsFunc(s.rows, func(r *row) bool { return r.more != nil && r.kinds&k.bit() != 0 }) {
			continue
		}
		for right := range s.rights[k].each() {
			for _, name := range s.names[k].List() {
				for _, src := range orNone(&s.fileSrc) {
					for _, dst := range orNone(&s.fileDst) {
						for _, host := range orNone(&s.hostDst) {
							for _, account := range orNone(&s.logDst) {
								if !s.right(right, policy.Object{Type: k.String(), Name: name, FileSrc: src, FileDst: dst, HostDst: host, LoginDst: account}) {
									return false
								}
							}
						}
					}
				}
			}
		}
	}
	return true
}
