package stonebranch

import (
	"slices"
	"strings"

	"batchwarden/daemon/policy"
)

var _ policy.Asker = Model{}

// Ask asks for every user about a record that no permission names of every
// type, about what the permissions name that he has in either document,
// about launches with these, and about his roles: first about users whose
// permissions differ, and of these first about what the differing ones name.
func (Model) Ask(before, after policy.Engine, limit int) policy.Questions {
	a := policy.NewAsking(limit)
	docs := [2]*Policy{before.(*Policy), after.(*Policy)}
	names := policy.Either(docs[0].users, docs[1].users)
	known := map[string]bool{}
	differ, rest := policy.Differing(names, func(name string) bool {
		return docs[0].users[name].same(docs[1].users[name], known)
	})
	for _, list := range [][]string{differ, rest} {
		for _, name := range a.Subjects(list) {
			s := &asker{a: a, user: name, others: names}
			s.take(docs[0].users[name], docs[1].users[name])
			s.collect()
			s.ask()
		}
	}
	return a.Questions()
}

// same reports whether a user has the same in both documents. Known remembers
// that of groups.
func (u *user) same(o *user, known map[string]bool) bool {
	return u != nil && o != nil && slices.EqualFunc(u.from, o.from, func(a, b *source) bool {
		if a.place != b.place {
			return false
		}
		same, is := known[a.place]
		if !is {
			same = a.roles == b.roles
			for k := range kinds {
				same = same && slices.EqualFunc(a.permissions[k], b.permissions[k], func(p, q permission) bool { return p.id() == q.id() })
			}
			known[a.place] = same
		}
		return same
	})
}

// An id is what two equal permissions have in common.
type id struct {
	name, services string
	criterion      criterion
	ops            ops
	commands       uint32
}

func (p *permission) id() id {
	return id{p.name, strings.Join(p.services, "\x00"), p.criterion, p.ops, p.commands}
}

// An asker makes the questions about one user.
type asker struct {
	a           *policy.Asking
	user        string
	others      []string // all users
	own         roles    // in either document
	permissions [kinds][]*permission
	changed     [kinds][]*permission // those of them that are in one document only
	records     [kinds]records
}

// records are samples, each once.
type records struct {
	list []policy.Record
	has  policy.Words
}

func (r *records) add(name string, services ...string) {
	id := name
	for _, s := range services {
		id += "\x00" + s
	}
	before := len(r.has.List())
	if r.has.Add(id); len(r.has.List()) > before {
		r.list = append(r.list, policy.Record{Name: name, Services: services})
	}
}

// take adds the roles and permissions of both documents, each once, those
// first that are only in one.
func (s *asker) take(users ...*user) {
	for k := range kinds {
		in := map[id]int{}
		var all []*permission
		for doc, u := range users {
			if u == nil {
				continue
			}
			s.own |= u.roles
			for _, from := range u.from {
				for i := range from.permissions[k] {
					p := &from.permissions[k][i]
					in[p.id()] |= 1 << doc
					all = append(all, p)
				}
			}
		}
		var rest []*permission
		for _, p := range all {
			switch in[p.id()] {
			case 1, 2:
				s.changed[k] = append(s.changed[k], p)
				s.permissions[k] = append(s.permissions[k], p)
			case 3:
				rest = append(rest, p)
			}
			in[p.id()] = 0
		}
		s.permissions[k] = append(s.permissions[k], rest...)
	}
}

// collect makes the samples of each type: every name with no service, with one
// that nobody lists, and with each one and two of those that are listed.
func (s *asker) collect() {
	for k := range kinds {
		var names, services policy.Words
		for _, p := range s.permissions[k] {
			names.Add(policy.Instances(p.name)...)
			services.Add(p.services...)
		}
		names.Add(policy.Other)
		services.Add(policy.Other)
		list := services.List()
		r := &s.records[k]
		for _, name := range names.List() {
			r.add(name)
			for _, service := range list {
				r.add(name, service)
			}
		}
		for i, one := range list[:min(len(list), maxPaired)] {
			for _, two := range list[:i] {
				for _, name := range names.List() {
					r.add(name, one, two)
				}
			}
		}
	}
}

// maxPaired is of how many services records with two are made.
const maxPaired = 10

// ask makes the questions, those that matter most first.
func (s *asker) ask() {
	_ = s.askRoles() && s.askTypes() && s.askChanged() && s.askLaunches() && s.askPermissions() && s.askOthers()
}

func (s *asker) add(action string, given policy.Members, set func(*policy.Object)) bool {
	r := policy.Request{Subject: policy.Subject{User: s.user}, Action: action}
	r.Object.Given = given
	if set != nil {
		set(&r.Object)
	}
	return s.a.Add(r)
}

// askRoles asks for the roles that the user has in either document, and for
// what roles and properties alone decide.
func (s *asker) askRoles() bool {
	for _, name := range s.own.names() {
		if !s.add(rolePrefix+name, 0, nil) {
			return false
		}
	}
	for _, action := range []string{"create_report", "create_dashboard", "read_audit", "export_group_permissions", "import_group_permissions", "read_forecast"} {
		if !s.add(action, 0, nil) {
			return false
		}
	}
	return s.add("read_audit", policy.MemberOwner, func(o *policy.Object) { o.Owner = s.user })
}

// askTypes asks for every operation and command on a record that is named by
// nobody: what a role, a property or "*" gives.
func (s *asker) askTypes() bool {
	for k := range kinds {
		if !s.record(k, policy.Record{Name: policy.Other}, types[k].ops, k.every()) {
			return false
		}
	}
	return true
}

// record asks for operations and commands on one record.
func (s *asker) record(k kind, r policy.Record, o ops, commands uint32) bool {
	one := func(action string) bool {
		given := policy.MemberType | policy.MemberName
		if r.Services != nil {
			given |= policy.MemberServices
		}
		return s.add(action, given, func(o *policy.Object) { o.Type, o.Name, o.Services = k.String(), r.Name, r.Services })
	}
	for op := opCreate; op <= opExecute; op <<= 1 {
		if o&op != 0 && !one(want{kind: k, op: op}.String()) {
			return false
		}
	}
	for c := commands; c != 0; c &= c - 1 {
		if !one(commandPrefix + (want{kind: k, command: c & -c}).String()) {
			return false
		}
	}
	return true
}

// askChanged asks for what permissions that are in one document only say by
// themselves.
func (s *asker) askChanged() bool {
	for k := range kinds {
		for _, p := range s.changed[k] {
			for _, name := range policy.Instances(p.name) {
				var r records
				r.add(name)
				r.add(name, policy.Other)
				for _, service := range p.services {
					r.add(name, service)
				}
				for _, record := range r.list {
					if !s.record(k, record, p.ops, p.commands) {
						return false
					}
				}
			}
		}
	}
	return true
}

// askPermissions asks for what any permission of the type gives, about the
// records of all of them.
func (s *asker) askPermissions() bool {
	for k := range kinds {
		var o ops
		var commands uint32
		for _, p := range s.permissions[k] {
			o |= p.ops
			commands |= p.commands
		}
		for _, r := range s.records[k].list {
			if !s.record(k, r, o, commands) {
				return false
			}
		}
	}
	return true
}

func (s *asker) askLaunches() bool {
	for _, c := range s.records[credential].list {
		for _, a := range s.records[agent].list {
			for _, t := range s.records[task].list {
				if !s.add("launch", policy.MemberTask|policy.MemberAgent|policy.MemberCredential, func(o *policy.Object) {
					o.Task, o.Agent, o.Credential = t, a, c
				}) {
					return false
				}
			}
		}
	}
	return s.askVariables()
}

// askVariables asks what a launch would withhold (ST20).
func (s *asker) askVariables() bool {
	for _, v := range s.records[variable].list {
		for _, t := range s.records[task].list {
			if !s.add("launch", policy.MemberTask|policy.MemberVariables, func(o *policy.Object) {
				o.Task, o.Variables = t, []policy.Record{v}
			}) {
				return false
			}
		}
	}
	return true
}

// askOthers asks for what needs rights on two records, and for acting for others.
func (s *asker) askOthers() bool {
	for _, b := range s.records[bundle].list {
		for _, t := range s.records[promotionTarget].list {
			if !s.add("promote", policy.MemberBundle|policy.MemberTarget, func(o *policy.Object) { o.Bundle, o.Target = b, t }) {
				return false
			}
		}
	}
	for _, t := range s.records[task].list {
		if !s.add("read_forecast", policy.MemberTask, func(o *policy.Object) { o.Task = t }) {
			return false
		}
		for _, e := range s.records[universalEvent].list {
			if !s.add("monitor_event", policy.MemberEvent|policy.MemberRecord, func(o *policy.Object) {
				o.Event, o.Record = e, policy.Record{Type: task.String(), Name: t.Name, Services: t.Services}
			}) {
				return false
			}
		}
	}
	if s.own&opsUserImpersonate == 0 {
		return true
	}
	for _, other := range s.others {
		if !s.add("impersonate", policy.MemberUser, func(o *policy.Object) { o.User = other }) {
			return false
		}
	}
	return true
}
