package opcon

import (
	"maps"
	"slices"

	"batchwarden/daemon/policy"
)

var _ policy.Asker = Model{}

// Ask asks for every user, and for every role that a request may name, about
// the batch users and machines of his roles in either document and the
// entries of the host lists: first about those whose roles differ, and of these
// first about what does.
func (Model) Ask(before, after policy.Engine, limit int) policy.Questions {
	a := policy.NewAsking(limit)
	docs := []*Policy{before.(*Policy), after.(*Policy)}
	var names []string
	var subjects []policy.Subject
	for _, name := range policy.Either(docs[0].users, docs[1].users) {
		names, subjects = append(names, name), append(subjects, policy.Subject{User: name})
	}
	for _, name := range policy.Either(docs[0].roles, docs[1].roles) {
		names, subjects = append(names, "the role "+name), append(subjects, policy.Subject{Roles: []string{name}})
	}
	every := &asker{a: a} // what Role_ocadm has
	for _, p := range docs {
		for _, name := range slices.Sorted(maps.Keys(p.roles)) {
			every.take(p.roles[name])
		}
	}
	for _, p := range docs {
		every.host(p)
	}
	every.machines.Add(policy.Other) // its copies only read
	for _, differ := range []bool{true, false} {
		var labels []string
		var some []policy.Subject
		for i, s := range subjects {
			if same(docs[0], docs[1], &s) != differ {
				labels, some = append(labels, names[i]), append(some, s)
			}
		}
		for i := range a.Subjects(labels) {
			s := &asker{a: a, subject: some[i]}
			if differ {
				s.different(docs[0], docs[1])
			}
			for _, p := range docs {
				p.each(&s.subject, s.take)
			}
			if s.ocadm {
				s.logins, s.machines = every.logins, every.machines
			}
			s.ask()
		}
	}
	return a.Questions()
}

// same reports whether a subject has the same roles in both documents.
func same(a, b *Policy, s *policy.Subject) bool {
	list := func(p *Policy) (roles []*role) {
		p.each(s, func(r *role) { roles = append(roles, r) })
		return roles
	}
	return slices.EqualFunc(list(a), list(b), func(r, o *role) bool {
		if r.name != o.name || r.keeper != o.keeper || r.restricts != o.restricts || !maps.Equal(r.machines, o.machines) {
			return false
		}
		for p := range platforms {
			if !maps.Equal(r.grants[p], o.grants[p]) {
				return false
			}
		}
		return true
	})
}

// different takes first what the subject has in one of the documents only.
func (s *asker) different(a, b *Policy) {
	var has [2]asker
	for i, p := range []*Policy{a, b} {
		p.each(&s.subject, has[i].take)
	}
	only := func(into, x, y *policy.Words) {
		for _, pair := range [][2]*policy.Words{{x, y}, {y, x}} {
			for _, text := range pair[0].List() {
				if !pair[1].Has(text) {
					into.Add(text)
				}
			}
		}
	}
	for p := range platforms {
		only(&s.logins[p], &has[0].logins[p], &has[1].logins[p])
	}
	only(&s.machines, &has[0].machines, &has[1].machines)
}

// An asker makes the questions about one subject.
type asker struct {
	a        *policy.Asking
	subject  policy.Subject
	ocadm    bool
	logins   [platforms]policy.Words
	machines policy.Words
}

func (s *asker) take(r *role) {
	s.ocadm = s.ocadm || r.ocadm
	for p := range platforms {
		s.logins[p].Add(slices.Sorted(maps.Keys(r.grants[p]))...)
	}
	s.machines.Add(slices.Sorted(maps.Keys(r.machines))...)
}

// host adds the entries of the host lists, on the platforms that there are.
func (s *asker) host(doc *Policy) {
	for p := range platforms {
		if len(s.logins[p].List()) == 0 {
			continue
		}
		for _, list := range []logins{doc.black, doc.white} {
			for _, entry := range slices.Sorted(maps.Keys(list.exact)) {
				if p.fault(entry) == "" {
					s.logins[p].Add(entry)
				}
			}
		}
	}
}

// ask makes the questions: launches, then definitions, then what is done to
// batch users, for which one of each platform is enough.
func (s *asker) ask() {
	s.machines.Add(policy.Other)
	for p := range platforms {
		for _, login := range s.logins[p].List() {
			for _, machine := range s.machines.List() {
				if !s.add("launch", p, login, machine) {
					return
				}
			}
		}
	}
	for p := range platforms {
		for _, login := range s.logins[p].List() {
			if !s.add("use", p, login, "") {
				return
			}
		}
	}
	for _, action := range []string{"create", "edit", "delete"} {
		if !s.add(action, unix, "users/"+policy.Other, "") {
			return
		}
	}
}

func (s *asker) add(action string, p platform, login, machine string) bool {
	r := policy.Request{Subject: s.subject, Action: action}
	o := &r.Object
	o.Platform, o.BatchUser, o.Machine = p.String(), login, machine
	o.Given = policy.MemberPlatform | policy.MemberBatchUser
	if machine != "" {
		o.Given |= policy.MemberMachine
	}
	return s.a.Add(r)
}
