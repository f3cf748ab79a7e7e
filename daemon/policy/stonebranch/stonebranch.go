// Package stonebranch decides by the roles and permissions of Universal
// Controller. Rules are cited by their numbers (ST1 to ST26); STONEBRANCH.md
// says for administrators how each is read.
package stonebranch

import (
	"slices"

	"batchwarden/daemon/policy"
)

// Model is the stonebranch model.
type Model struct{}

var (
	_ policy.Model  = Model{}
	_ policy.Engine = (*Policy)(nil)
)

// Parse compiles a document.
func (Model) Parse(file string, doc []byte) (policy.Engine, error) {
	p, err := Parse(file, doc)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// FillLaunch asks whether the task or trigger that r names may be launched
// on this agent with this credential (ST16). Which credential that is was
// settled before (ST18): it is the one that the launch will really use. The
// agent's and the credential's names and services are the daemon's to say;
// all else is the request's.
func (Model) FillLaunch(r *policy.Request, h policy.Host, b policy.BatchUser) error {
	if r.Action != "" && r.Action != "launch" {
		return &policy.InvalidError{Field: "action", Text: "a launch asks for the action launch"}
	}
	o := &r.Object
	if err := fill(o, policy.MemberAgent, &o.Agent, h.Agent, h.AgentServices); err != nil {
		return err
	}
	if err := fill(o, policy.MemberCredential, &o.Credential, b.Name, b.Services); err != nil {
		return err
	}
	r.Action = "launch"
	return nil
}

// FillControl asks for the command Cancel or Retrieve Output on the task
// instance that r describes: its name, services and parents are the
// controller's to know (ST12, ST13).
func (Model) FillControl(r *policy.Request, c policy.Control, _ policy.Job) error {
	action := "command:Cancel"
	if c == policy.Output {
		action = "command:Retrieve Output"
	}
	if r.Action != "" && r.Action != action {
		return &policy.InvalidError{Field: "action", Text: "this asks for " + action}
	}
	if err := r.Object.Fill(policy.MemberType, "Task Instance", nil); err != nil {
		return err
	}
	r.Action = action
	return nil
}

func fill(o *policy.Object, m policy.Members, at *policy.Record, name string, services []string) *policy.InvalidError {
	field := "object." + m.Names()[0]
	if o.Given&m != 0 {
		if at.Name != name {
			return &policy.InvalidError{Field: field + ".name", Text: "is not what this machine knows it as"}
		}
		if at.Services != nil && !sameSet(at.Services, services) {
			return &policy.InvalidError{Field: field + ".services", Text: "are not those that this machine knows"}
		}
	}
	*at = policy.Record{Name: name, Services: slices.Clone(services)}
	o.Given |= m
	return nil
}

func sameSet(a, b []string) bool {
	in := func(list []string) func(string) bool {
		return func(s string) bool { return !slices.Contains(list, s) }
	}
	return !slices.ContainsFunc(a, in(b)) && !slices.ContainsFunc(b, in(a))
}

// A Policy is one document that was found sound, ready to decide.
type Policy struct {
	properties properties
	users      map[string]*user
}

// A user has his own permissions and those of his groups (ST6).
type user struct {
	own   roles     // his and his groups' as they are written
	roles roles     // with all that they contain (ST1, ST2)
	from  []*source // himself first, then his groups
}

// A source is where permissions come from: a user or a group.
type source struct {
	place       string // "users.alice", "groups.OPS"
	roles       roles
	permissions [kinds][]permission
}

// A permission grants; nothing denies (ST6).
type permission struct {
	name      string // pattern (ST10)
	criterion criterion
	services  []string
	ops       ops // with all that they imply (ST8)
	commands  uint32
	index     int // in the document
}

func (p *permission) matches(record *policy.Record) bool {
	return p.criterion.holds(record.Services, p.services) && policy.Match(p.name, record.Name)
}

// A criterion says which business services a record has to have (ST11).
type criterion uint8

const (
	anyOrUnassigned criterion = iota
	specificOrUnassigned
	specific
	unassigned
	notSpecificOrUnassigned
	notSpecific
	criteria // how many there are
)

var criterionNames = [criteria]string{"any_or_unassigned", "specific_or_unassigned", "specific", "unassigned",
	"not_specific_or_unassigned", "not_specific"}

// lists reports whether the criterion needs services to be listed.
func (c criterion) lists() bool { return c != anyOrUnassigned && c != unassigned }

func (c criterion) holds(record, listed []string) bool {
	common := false
	for _, s := range record {
		common = common || slices.Contains(listed, s)
	}
	switch c {
	case anyOrUnassigned:
		return true
	case specificOrUnassigned:
		return common || len(record) == 0
	case specific:
		return common
	case unassigned:
		return len(record) == 0
	case notSpecificOrUnassigned:
		return !common
	case notSpecific:
		return len(record) > 0 && !common
	}
	return false
}

// user returns nil for a user that the document does not know (ST25).
func (p *Policy) user(name string) *user {
	if name == "" {
		return nil
	}
	return p.users[name]
}

// Privileged returns ops_admin and the user's name when the document makes
// s.User an ops_admin (ST1), and the name of s.By when it makes him one: the
// rights are not his, but only he may act for everybody (ST5).
func (p *Policy) Privileged(s policy.Subject) []string {
	isAdmin := func(name string) bool {
		u := p.user(name)
		return u != nil && u.roles&opsAdmin != 0
	}
	var names []string
	if isAdmin(s.User) {
		names = append(names, s.User, opsAdmin.name())
	}
	if isAdmin(s.By) {
		names = append(names, s.By)
	}
	slices.Sort(names)
	return slices.Compact(names)
}
