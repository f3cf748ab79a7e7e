package automic

import "batchwarden/daemon/policy"

var _ policy.Reviewer = Model{}

// Meaning says what Use asks.
func (Model) Meaning() string {
	return "X on the LOGIN object, as a launch needs it (AU26); which JOBS objects a user may run, and on which hosts, is not looked at"
}

// Subjects returns the users of the document.
func (Model) Subjects(e policy.Engine) []policy.Subject {
	return policy.Users(e.(*Policy).users)
}

// Use asks for that part of a launch which is about the login alone.
func (Model) Use(_ policy.Host, b policy.BatchUser) policy.Use {
	r := policy.Request{Action: "X"}
	r.Object.Type, r.Object.Name = login.String(), b.Name
	r.Object.Given = policy.MemberType | policy.MemberName
	return policy.Use{Requests: []policy.Request{r}, Ask: loginOfLaunch}
}

// loginOfLaunch decides as Decide does in the second step of a launch (AU26).
// What Decide says to X on the LOGIN object by itself may be something else: the
// object's own access list binds that, and no launch (AU28).
func loginOfLaunch(e policy.Engine, r *policy.Request) policy.Decision {
	p := e.(*Policy)
	u := p.users[r.Subject.User]
	if u == nil || r.Subject.User == "" {
		return policy.Deny("AU3", "the document does not know the user")
	}
	var room [roomForText]byte
	q, _, _ := question(r, 0, room[:0])
	if v := p.may(u, &q); !v.ok() {
		return policy.Deny(v.rule, v.reason)
	}
	return policy.Allow(r, "AU26", "every authorization group grants X on the login")
}
