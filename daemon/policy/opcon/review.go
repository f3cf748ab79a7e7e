package opcon

import (
	"maps"
	"slices"

	"batchwarden/daemon/policy"
)

var _ policy.Reviewer = Model{}

// Meaning says what Use asks.
func (Model) Meaning() string {
	return "launch with the batch user, on the machine where its agent is named (OC5, OC8, OC14)"
}

// Subjects returns the users and the roles of the document.
func (Model) Subjects(e policy.Engine) []policy.Subject {
	p := e.(*Policy)
	all := policy.Users(p.users)
	for _, name := range slices.Sorted(maps.Keys(p.roles)) {
		all = append(all, policy.Subject{Roles: []string{name}})
	}
	return all
}

// Use asks for a launch with b, on h where it has an agent.
func (Model) Use(h policy.Host, b policy.BatchUser) policy.Use {
	r := policy.Request{Action: "launch"}
	o := &r.Object
	o.Platform, o.BatchUser = b.Platform, b.Name
	if o.Platform == "" {
		o.Platform = h.Platform
	}
	o.Given = policy.MemberPlatform | policy.MemberBatchUser
	if h.Agent != "" {
		o.Machine = h.Agent
		o.Given |= policy.MemberMachine
	}
	return policy.Use{Requests: []policy.Request{r}}
}
