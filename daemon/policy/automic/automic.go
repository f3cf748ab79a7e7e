// Package automic decides by the authorization profiles of an Automation
// Engine: rows of filters in numbered groups. Rules are cited by their
// numbers (AU1 to AU28); AUTOMIC.md says for administrators how each is read.
package automic

import (
	"batchwarden/daemon/policy"
)

// Model is the automic model.
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

// FillLaunch asks whether the job that r names may run on this agent as this
// login (AU26). The login is the one that will really be used, so it is
// never empty (AU16).
func (Model) FillLaunch(r *policy.Request, h policy.Host, b policy.BatchUser) error {
	if r.Action != "" && r.Action != "launch" {
		return &policy.InvalidError{Field: "action", Text: "a launch asks for the action launch"}
	}
	same := func(a, b string) bool { return upper(a) == upper(b) } // AU14
	if err := r.Object.Fill(policy.MemberHost, h.Agent, same); err != nil {
		return err
	}
	if err := r.Object.Fill(policy.MemberLogin, b.Name, same); err != nil {
		return err
	}
	r.Action = "launch"
	return nil
}

// FillControl asks for the right C (to end a job) or P (to read its report) on
// the JOBS object that the launch named, with the host and the login that it
// runs with (AU1, AU9).
func (Model) FillControl(r *policy.Request, c policy.Control, j policy.Job) error {
	action := "C"
	if c == policy.Output {
		action = "P"
	}
	if r.Action != "" && r.Action != action {
		return &policy.InvalidError{Field: "action", Text: "this asks for the right " + action}
	}
	same := func(a, b string) bool { return upper(a) == upper(b) } // AU14
	for _, known := range []struct {
		member policy.Members
		value  string
	}{{policy.MemberType, "JOBS"}, {policy.MemberName, j.Name}, {policy.MemberHost, j.Host.Agent}, {policy.MemberLogin, j.BatchUser.Name}} {
		if err := r.Object.Fill(known.member, known.value, same); err != nil {
			return err
		}
	}
	r.Action = action
	return nil
}

// A Policy is one document that was found sound, ready to decide.
type Policy struct {
	byType  bool // group_scope: type (AU8)
	users   map[string]*user
	objects [len(typeNames)]map[string]*access // by name as it is compared (AU28)
}

// access are the rights that an object's own list leaves to users and groups.
type access struct {
	place  string // "objects.JOBS/PAY.RUN"
	rights map[string]rights
}

// leaves returns the rights that the list leaves to a user.
func (a *access) leaves(name string, u *user) rights {
	r := a.rights[name]
	for _, g := range u.groups {
		r |= a.rights[g]
	}
	return r
}

// A user has his own rows and those of his groups, pooled (AU2).
type user struct {
	groups []string
	from   []*profile // his own first
}

// Privileged returns nothing: the model has no name that is everything.
func (p *Policy) Privileged(policy.Subject) []string { return nil }
