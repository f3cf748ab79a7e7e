// Package opcon decides by the rules of OpCon's batch users: roles grant batch
// users by platform, and a launch needs the grant. Rules are cited by
// their numbers (OC1 to OC17); OPCON.md says for administrators how each is
// read.
package opcon

import (
	"slices"

	"batchwarden/daemon/policy"
)

// Ocadm is the role that has every batch user and cannot be restricted (OC6).
const Ocadm = "Role_ocadm"

// The function privileges that let a role keep batch users (OC4).
const (
	AllAdministrativeFunctions = "AllAdministrativeFunctions"
	AllFunctionPrivileges      = "AllFunctionPrivileges"
)

// Model is the opcon model.
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

// FillLaunch asks whether b may be used on h: action launch (OC7), the batch
// user's platform, else the machine's (OC1: a batch user of one machine is
// granted by its platform and login like one of the platform; which of the
// two holds here was settled when the snapshot took the nearer scope), the
// realm's name of the batch user, and the agent's name as the machine (OC8).
func (Model) FillLaunch(r *policy.Request, h policy.Host, b policy.BatchUser) error {
	if r.Action != "" && r.Action != "launch" {
		return &policy.InvalidError{Field: "action", Text: "a launch asks for the action launch"}
	}
	name := b.Platform
	if name == "" {
		name = h.Platform
	}
	p, ok := platformOf(name)
	if !ok {
		return &policy.InvalidError{Field: "object.platform", Text: "the batch user's platform is none that OpCon has"}
	}
	same := func(a, b string) bool {
		var x, y [maxKey]byte
		return p.folds() && string(key(x[:0], p, a)) == string(key(y[:0], p, b))
	}
	if err := r.Object.Fill(policy.MemberPlatform, name, nil); err != nil {
		return err
	}
	if err := r.Object.Fill(policy.MemberBatchUser, b.Name, same); err != nil {
		return err
	}
	if err := r.Object.Fill(policy.MemberMachine, h.Agent, nil); err != nil {
		return err
	}
	r.Action = "launch"
	return nil
}

// FillControl asks for the grant of the batch user that the job runs as: the
// model has no right of its own for what is done with a job (OC5, OC8).
func (m Model) FillControl(r *policy.Request, _ policy.Control, j policy.Job) error {
	return m.FillLaunch(r, j.Host, j.BatchUser)
}

// A Policy is one document that was found sound, ready to decide.
type Policy struct {
	roles map[string]*role
	users map[string]*user
	black logins
	white logins
}

// A role is what a document says about a role. Role_ocadm always exists (OC16).
type role struct {
	name      string
	ocadm     bool                           // OC6
	keeper    bool                           // may create, edit and delete (OC4)
	grants    [platforms]map[string]struct{} // keys of logins (OC5)
	count     int                            // of grants
	restricts bool                           // has a list of machines, perhaps an empty one (OC8)
	machines  map[string]struct{}
	holders   int // users of the document that have it
}

type user struct {
	roles []*role
}

// logins is a host list (OC14). Its entries name no platform: each is
// compared as the platform of the request compares (OC13).
type logins struct {
	exact, folded map[string]struct{}
}

func (l logins) empty() bool { return len(l.exact) == 0 }

func (l logins) has(p platform, k []byte) bool {
	set := l.exact
	if p.folds() {
		set = l.folded
	}
	_, ok := set[string(k)]
	return ok
}

// Privileged returns Role_ocadm when s has it, by the document or by naming
// it, and s.User when the document gives it to that user (OC6).
func (p *Policy) Privileged(s policy.Subject) []string {
	var names []string
	if u := p.user(s.User); u != nil && slices.ContainsFunc(u.roles, func(r *role) bool { return r.ocadm }) {
		names = append(names, s.User)
	}
	if (names != nil || slices.Contains(s.Roles, Ocadm)) && s.User != Ocadm {
		names = append(names, Ocadm)
	}
	slices.Sort(names)
	return names
}

// user returns nil for a user that the document does not know (OC16).
func (p *Policy) user(name string) *user {
	if name == "" {
		return nil
	}
	return p.users[name]
}

// each calls f with every role that s has and the document knows: those of
// the user and those that s names directly. A role may come twice.
func (p *Policy) each(s *policy.Subject, f func(*role)) {
	if u := p.user(s.User); u != nil {
		for _, r := range u.roles {
			f(r)
		}
	}
	for _, name := range s.Roles {
		if r := p.roles[name]; r != nil {
			f(r)
		}
	}
}
