package broker

import (
	"fmt"
	"slices"

	"batchwarden/daemon/config"
	"batchwarden/daemon/policy"
	"batchwarden/ipc/wire"
	"batchwarden/platform/launch"
	"batchwarden/platform/peer"
	"batchwarden/vault/snapshot"
)

// caller is who the system says is asking, and what the configuration makes
// of it. The zero value may do nothing.
type caller struct {
	peer     peer.Attested
	attested bool           // the launcher looked at the process; else only the socket was asked
	user     string         // the uid's name, "" when it has none
	client   *config.Client // the first entry that matches, or nil
	operator bool
	refused  *wire.Problem // nothing may be done for this caller at all
	looked   []wire.Match  // the entries in order, up to the one that matches
	allowed  *allowance    // how much the client may ask at once; nil: without limit
	view     *view         // what is in force for this request
}

// callers is the configuration's view of who may connect, with the names of
// accounts and groups turned into the numbers that the kernel reports.
type callers struct {
	entries   []entry
	operators struct{ uids, gids []uint32 }
	names     launch.Numbers // that they were made with
	problems  []wire.Finding
}

// newCallers makes it of a configuration and what its names stand for. A client that was there before, nil at first, and
// has the same bounds goes on with what it has used of them.
func newCallers(c *config.Config, names launch.Numbers, before *callers) *callers {
	cs := &callers{names: names}
	for _, warning := range c.Warnings {
		cs.problems = append(cs.problems, wire.Finding{Code: "config.ignored", Detail: warning})
	}
	for i := range c.Clients {
		m := &c.Clients[i]
		e := entry{client: m, allowed: before.allowance(m)}
		at := "clients." + m.Name + ".match"
		if m.Match.User != "" {
			if e.uid = cs.number(names.Users, names.Lost, "user", m.Match.User, at+".user"); e.uid == nil {
				e.lost = fmt.Sprintf("user %q was not found", m.Match.User)
			}
		}
		if m.Match.Group != "" {
			if e.gid = cs.number(names.Groups, names.Lost, "group", m.Match.Group, at+".group"); e.gid == nil {
				e.lost = fmt.Sprintf("group %q was not found", m.Match.Group)
			}
		}
		cs.entries = append(cs.entries, e)
	}
	for _, name := range c.Operators.Users {
		if uid := cs.number(names.Users, names.Lost, "user", name, "operators.users"); uid != nil {
			cs.operators.uids = append(cs.operators.uids, *uid)
		}
	}
	for _, name := range c.Operators.Groups {
		if gid := cs.number(names.Groups, names.Lost, "group", name, "operators.groups"); gid != nil {
			cs.operators.gids = append(cs.operators.gids, *gid)
		}
	}
	return cs
}

// allowance is the one that a client of the name and the bounds has already, or a new one.
func (cs *callers) allowance(c *config.Client) *allowance {
	if cs != nil {
		for i := range cs.entries {
			if e := &cs.entries[i]; e.client.Name == c.Name && e.client.Rate == c.Rate && e.client.Concurrent == c.Concurrent {
				return e.allowed
			}
		}
	}
	return newAllowance(c)
}

// number is what a name stands for; nil, and a problem, when nobody could say.
func (cs *callers) number(found map[string]uint32, lost map[string]string, what, name, place string) *uint32 {
	if n, ok := found[name]; ok {
		return &n
	}
	cs.problems = append(cs.problems, wire.Finding{Code: "config.name", Path: place,
		Detail: fmt.Sprintf("%s %q: %s; the entry matches nobody", what, name, lost[what+" "+name])})
	return nil
}

// operates tells whether the peer is an operator by its user or group.
func (cs *callers) operates(p *peer.Peer) bool {
	return slices.Contains(cs.operators.uids, p.UID) ||
		slices.ContainsFunc(cs.operators.gids, func(g uint32) bool { return slices.Contains(p.Groups, g) })
}

// name is how the caller stands in audit records and owns jobs.
func (c *caller) name() string {
	if c.client == nil {
		return ""
	}
	return c.client.Name
}

// known refuses strangers.
func (c *caller) known() *wire.Problem {
	switch {
	case c.refused != nil:
		again := *c.refused // whoever refuses with it writes into it
		return &again
	case c.client == nil && !c.operator:
		return wire.NewProblem(wire.CallerUnknown, c.why())
	}
	return nil
}

// mayDo refuses whoever has no client entry that lists the act. An operator
// without an entry is refused too: operators look and steer, they do not launch.
func (c *caller) mayDo(act string) *wire.Problem {
	if p := c.known(); p != nil {
		return p
	}
	if c.client == nil {
		return wire.NewProblem(wire.CallerForbidden, fmt.Sprintf("operators do not %s without a client entry that allows it", act))
	}
	if !c.client.Allows(act) {
		return wire.NewProblem(wire.CallerForbidden, fmt.Sprintf("client entry %q does not have %q in may", c.client.Name, act))
	}
	return nil
}

// isOperator refuses everybody else.
func (c *caller) isOperator() *wire.Problem {
	if p := c.known(); p != nil {
		return p
	}
	if !c.operator {
		return wire.NewProblem(wire.CallerForbidden, "only operators may do that")
	}
	return nil
}

// mayEnter refuses realms that do not exist, and those the entry does not list.
func (c *caller) mayEnter(realm string, all map[string]config.Realm) *wire.Problem {
	if _, exists := all[realm]; !exists {
		p := wire.NewProblem(wire.RealmUnknown, fmt.Sprintf("realm %q is not configured on this machine", realm))
		p.Field = "realm"
		return p
	}
	if !c.client.InRealm(realm) {
		return wire.NewProblem(wire.CallerForbidden, fmt.Sprintf("client entry %q is not for realm %q", c.client.Name, realm))
	}
	return nil
}

// maySpeakFor refuses subjects that the entry does not cover: an agent that
// was taken over must not become everybody. A glob never covers a privileged
// subject, or `users: ["*"]` would hand out the controller's administrator.
func (c *caller) maySpeakFor(s policy.Subject, engine policy.Engine) *wire.Problem {
	subjects := &c.client.Subjects
	refuse := func(format string, args ...any) *wire.Problem {
		return wire.NewProblem(wire.CallerForbidden, fmt.Sprintf("client entry %q: ", c.client.Name)+fmt.Sprintf(format, args...))
	}
	for _, user := range []string{s.User, s.By} {
		switch {
		case user == "" && (s.User != "" || len(s.Roles) > 0):
			// by is optional; a subject may be roles alone, which are checked below
		case slices.Contains(subjects.Privileged, user):
		case subjects.OwnName && (user == "" || user != c.user):
			return refuse("may speak only for its own account %q, not for subject %q", c.user, user)
		case !subjects.OwnName && !config.MatchAny(subjects.Users, user):
			return refuse("may not speak for subject %q", user)
		}
	}
	for _, role := range s.Roles {
		if !slices.Contains(subjects.Roles, role) && !slices.Contains(subjects.Privileged, role) {
			return refuse("may not name role %q", role)
		}
	}
	privileged := engine.Privileged(s)
	// A user whom the document makes an administrator is covered by his own
	// name; the role named directly in the request only by the role's.
	himself := slices.Contains(privileged, s.User) && slices.Contains(subjects.Privileged, s.User)
	for _, name := range privileged {
		if slices.Contains(subjects.Privileged, name) || himself && !slices.Contains(s.Roles, name) {
			continue
		}
		return refuse("subject %q is privileged (%s) and not listed in subjects.privileged", s.User, name)
	}
	return nil
}

// mayUse refuses batch users that the entry does not cover.
func (c *caller) mayUse(name string) *wire.Problem {
	if !config.MatchAny(c.client.BatchUsers, name) {
		return wire.NewProblem(wire.CallerForbidden, fmt.Sprintf("client entry %q does not cover batch user %q", c.client.Name, name))
	}
	return nil
}

// sees tells whether a batch user is listed for this caller.
func (c *caller) sees(u *snapshot.User) bool {
	return c.operator || c.client != nil && config.MatchAny(c.client.BatchUsers, u.Name)
}
