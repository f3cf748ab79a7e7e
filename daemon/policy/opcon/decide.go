package opcon

import "batchwarden/daemon/policy"

// A question is what a request asks, apart from who asks.
type question struct {
	action     string
	platform   platform
	known      bool // the platform is one
	reserved   bool // OC3
	wellFormed bool // OC2; looked at for create alone
	references bool // OC9
	machine    bool // the request names the machine
	black      bool // OC14: on the black list
	white      bool // OC14: on the white list, or there is none
}

// rights are what all roles of a subject give together (OC5).
type rights struct {
	any        bool // a role that the document knows
	ocadm      bool // OC6
	keeper     bool // OC4
	granted    bool // OC5
	restricted bool // OC8: some role has a list of machines
	here       bool // OC8: and one of them has the machine
}

func (h *rights) add(r *role, q *question, k []byte, machine string) {
	h.any = true
	h.ocadm = h.ocadm || r.ocadm
	h.keeper = h.keeper || r.keeper
	if q.known && !h.granted {
		_, h.granted = r.grants[q.platform][string(k)]
	}
	if r.restricts {
		h.restricted = true
		if !h.here {
			_, h.here = r.machines[machine]
		}
	}
}

// Decide answers r without allocating, unless r is not valid.
func (p *Policy) Decide(r *policy.Request) policy.Decision {
	if err := check(r); err != nil {
		return policy.Refuse(err)
	}
	var b [maxKey]byte
	q, k := p.ask(b[:0], r)
	return judge(r, q, p.rights(r, &q, k))
}

// check finds what makes r no request of this model.
func check(r *policy.Request) *policy.InvalidError {
	if r.Subject.By != "" {
		return &policy.InvalidError{Field: "subject.by", Text: "is not a member for opcon"}
	}
	switch r.Action {
	case "use", "launch", "create", "edit", "delete":
		const required = policy.MemberPlatform | policy.MemberBatchUser
		return r.Object.Only(r.Action, required|policy.MemberMachine|policy.MemberReferences, required)
	}
	return &policy.InvalidError{Field: "action", Text: "is not one of use, launch, create, edit, delete"}
}

// ask takes r apart. It appends the key of the login to b.
func (p *Policy) ask(b []byte, r *policy.Request) (question, []byte) {
	o := &r.Object
	q := question{action: r.Action, references: o.References > 0, machine: o.Given&policy.MemberMachine != 0}
	q.platform, q.known = platformOf(o.Platform)
	if !q.known {
		return q, b
	}
	k := key(b, q.platform, o.BatchUser)
	q.reserved = q.platform.reserved(o.BatchUser)
	if q.action == "create" {
		q.wellFormed = q.platform.fault(o.BatchUser) == ""
	}
	q.black = p.black.has(q.platform, k)
	q.white = p.white.empty() || p.white.has(q.platform, k)
	return q, k
}

func (p *Policy) rights(r *policy.Request, q *question, k []byte) rights {
	var h rights
	p.each(&r.Subject, func(role *role) { h.add(role, q, k, r.Object.Machine) })
	return h
}

// judge is the rules, in the order in which they count.
func judge(r *policy.Request, q question, h rights) policy.Decision {
	if !q.known {
		return policy.Deny("OC2", "there is no such platform")
	}
	switch q.action {
	case "create", "edit", "delete":
		return judgeChange(r, q, h)
	}
	if q.action == "launch" && q.black {
		return policy.Deny("OC14", "the batch user is on the host's black list")
	}
	if q.action == "launch" && !q.white {
		return policy.Deny("OC14", "the batch user is not on the host's white list")
	}
	if h.ocadm {
		return policy.Allow(r, "OC6", "Role_ocadm has every batch user")
	}
	if !h.any {
		return policy.Deny("OC16", "the subject has no role that the document knows")
	}
	if !h.granted {
		return policy.Deny("OC5", "no role of the subject grants the batch user on this platform")
	}
	if q.action == "launch" && q.machine && h.restricted && !h.here {
		return policy.Deny("OC8", "no role of the subject lists the machine")
	}
	return policy.Allow(r, "OC5", "a role of the subject grants the batch user")
}

func judgeChange(r *policy.Request, q question, h rights) policy.Decision {
	switch {
	case !h.ocadm && !h.keeper && !h.any:
		return policy.Deny("OC16", "the subject has no role that the document knows")
	case !h.ocadm && !h.keeper:
		return policy.Deny("OC4", "the subject may not keep batch users")
	case q.reserved:
		return policy.Deny("OC3", "the batch user is reserved")
	case q.action == "create" && !q.wellFormed:
		return policy.Deny("OC2", "the login is not one of its platform")
	case q.action == "delete" && q.references:
		return policy.Deny("OC9", "jobs refer to the batch user")
	}
	return policy.Allow(r, "OC4", "the subject may keep batch users")
}
