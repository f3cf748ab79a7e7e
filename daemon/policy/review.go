package policy

import (
	"maps"
	"slices"
)

// A Reviewer is a Model that can say who can use a batch user.
type Reviewer interface {
	// Subjects returns everybody whom the document knows: its users, and
	// where requests may name roles also its roles, in a stable order.
	Subjects(Engine) []Subject
	// Use returns the questions that decide whether somebody can use b on h.
	// Where h has no agent, the machine is not asked about.
	Use(h Host, b BatchUser) Use
	// Meaning says in a few words what the questions of Use are.
	Meaning() string
}

// Users returns those of a document, by name, as Subjects has them.
func Users[V any](users map[string]V) []Subject {
	var all []Subject
	for _, name := range slices.Sorted(maps.Keys(users)) {
		all = append(all, Subject{User: name})
	}
	return all
}

// A Use is what has to be allowed for a subject to use a batch user. It is not
// for several goroutines at once.
type Use struct {
	Requests []Request
	// Ask decides one of them when the engine's Decide is about more; nil: Decide does.
	Ask func(Engine, *Request) Decision
}

// Decide asks for s. The decision is the first denial, or the first of
// those that allow.
func (u *Use) Decide(e Engine, s Subject) Decision {
	var first Decision
	for i := range u.Requests {
		r := &u.Requests[i]
		r.Subject = s
		d := u.ask(e, r)
		if !d.Allowed {
			return d
		}
		if i == 0 {
			first = d
		}
	}
	return first
}

func (u *Use) ask(e Engine, r *Request) Decision {
	if u.Ask != nil {
		return u.Ask(e, r)
	}
	return e.Decide(r)
}

// By returns the places in the document that give s the right, and the rule
// for what no place gives.
func (u *Use) By(e Engine, s Subject) []string {
	var by []string
	for i := range u.Requests {
		r := &u.Requests[i]
		r.Subject = s
		d := u.ask(e, r)
		if !d.Allowed {
			return nil
		}
		_, trace := e.Explain(r)
		places := 0
		for _, l := range trace.Lines {
			if l.Kind == OfGrant && l.Matched && l.From != "" {
				by, places = append(by, l.From), places+1
			}
		}
		if places == 0 {
			by = append(by, d.Rule)
		}
	}
	slices.Sort(by)
	return slices.Compact(by)
}
