package stonebranch

import "batchwarden/daemon/policy"

var _ policy.Reviewer = Model{}

// Meaning says what Use asks.
func (Model) Meaning() string {
	return "Execute on the credential, and on the agent where it is named (ST16); which tasks a user may launch is not looked at"
}

// Subjects returns the users of the document.
func (Model) Subjects(e policy.Engine) []policy.Subject {
	return policy.Users(e.(*Policy).users)
}

// Use asks for Execute on the credential, and on the agent where h has one.
func (Model) Use(h policy.Host, b policy.BatchUser) policy.Use {
	ask := func(k kind, name string, services []string) policy.Request {
		r := policy.Request{Action: "Execute"}
		r.Object.Type, r.Object.Name, r.Object.Services = k.String(), name, services
		r.Object.Given = policy.MemberType | policy.MemberName | policy.MemberServices
		return r
	}
	u := policy.Use{Requests: []policy.Request{ask(credential, b.Name, b.Services)}}
	if h.Agent != "" {
		u.Requests = append(u.Requests, ask(agent, h.Agent, h.AgentServices))
	}
	return u
}
