package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"batchwarden/daemon/policy"
	"batchwarden/vault/admin"
	"batchwarden/vault/snapshot"
)

// reviewFlags narrow a review and say what Vault does not know.
type reviewFlags struct {
	machines   []string
	batchUsers []string
	realms     []string
	agents     []string
	services   []string
	objects    []string
	format     string
	why        bool
}

func (a *app) reviewCommand(f *adminFlags) *cobra.Command {
	r := &reviewFlags{}
	cmd := &cobra.Command{
		Use:   "review [--machine M]... [--batch-user B]... [--realm R]... [--format text|json|csv]",
		Short: "Show who can use which batch user on which machine",
		Long: `Show for every machine, by its scopes as the machine itself takes them (nearest wins), every batch user and every realm
with a policy, who can use it: each user and role that the policy knows is put to the engine that decides on the machine.

"Can use" asks in OpCon for a launch; in Automic for X on the LOGIN object, as a launch needs it; in Stonebranch for
Execute on the credential. Which jobs somebody may run is not looked at, unless --object says what the launch is
about: then the whole launch is asked. What the machine's own files add (clients, limits.yaml) only takes away.

What a controller calls a machine is in the machine's configuration and not in Vault. --agent says it, {machine} stands for
the machine's name. Without it OpCon is asked with the machine's name; elsewhere the machine is not asked about.`,
		Args: cobra.NoArgs,
		RunE: a.administer(f, func(ctx context.Context, v *admin.Admin, _ *cobra.Command, _ []string) error {
			if a.json {
				r.format = "json"
			}
			return a.review(ctx, v, r)
		}),
	}
	p := cmd.Flags()
	p.StringArrayVar(&r.machines, "machine", nil, "this machine only; may be given again")
	p.StringArrayVar(&r.batchUsers, "batch-user", nil, "this batch user only, by its own name; may be given again")
	p.StringArrayVar(&r.realms, "realm", nil, "this realm only; may be given again")
	p.StringArrayVar(&r.agents, "agent", nil, "what a realm calls the machine's agent, as `REALM=NAME`, as opcon={machine}_LSAM; may be given again")
	p.StringArrayVar(&r.services, "agent-services", nil, "the agents' business services in a realm, as `REALM=A,B`; may be given again")
	p.StringArrayVar(&r.objects, "object", nil, "a member `K=V` of the object of a launch, as for explain; may be given again")
	p.StringVar(&r.format, "format", "text", "text, json or csv")
	p.BoolVar(&r.why, "why", false, "add where in the policy the right comes from")
	return cmd
}

// A usable is one line of a review.
type usable struct {
	Machine   string   `json:"machine"`
	BatchUser string   `json:"batch_user"`
	Account   string   `json:"account"`
	Scope     string   `json:"scope"`
	Realm     string   `json:"realm"`
	Called    string   `json:"called"`
	User      string   `json:"user,omitempty"`
	Role      string   `json:"role,omitempty"`
	For       []string `json:"for"` // launch, retrieve
	By        []string `json:"by,omitempty"`
}

// A reviewer goes through machines.
type reviewer struct {
	flags    *reviewFlags
	agents   map[string]string
	services map[string][]string
	object   policy.Object
	asked    bool // the object is given: whole launches are asked
	app      *app

	scopes  map[string]*scopeHeld
	answers map[askedFor][]allowed // by what they are about: machines ask the same again and again
	notes   policy.Words
}

// askedFor is all that an answer depends on.
type askedFor struct {
	engine                   policy.Engine
	agent, agentServices     string
	name, platform, services string
}

// allowed is somebody who can.
type allowed struct {
	subject policy.Subject
	by      []string
}

func (a *app) review(ctx context.Context, v *admin.Admin, f *reviewFlags) error {
	r := &reviewer{flags: f, app: a, scopes: map[string]*scopeHeld{}, answers: map[askedFor][]allowed{}}
	if err := r.flagged(); err != nil {
		return err
	}
	out, err := newReviewWriter(a, f)
	if err != nil {
		return err
	}
	machines, err := r.machines(ctx, v)
	if err != nil {
		return err
	}
	if err := r.read(ctx, v, machines); err != nil {
		return err
	}
	for _, m := range machines {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := r.machine(m, out); err != nil {
			return err
		}
	}
	return out.end(r)
}

// flagged takes the flags apart.
func (r *reviewer) flagged() error {
	r.agents, r.services = map[string]string{}, map[string][]string{}
	for _, g := range r.flags.agents {
		realm, name, ok := strings.Cut(g, "=")
		if !ok || realm == "" || name == "" {
			return usage("--agent %q: write it as REALM=NAME", g)
		}
		r.agents[realm] = name
	}
	for _, g := range r.flags.services {
		realm, list, ok := strings.Cut(g, "=")
		if !ok || realm == "" {
			return usage("--agent-services %q: write it as REALM=A,B", g)
		}
		r.services[realm] = strings.Split(list, ",")
	}
	if len(r.flags.objects) > 0 {
		text, err := (&question{objects: r.flags.objects}).object()
		if err != nil {
			return err
		}
		if r.object, err = policy.ParseObject(text); err != nil {
			return &failure{exitUsage, err}
		}
		r.asked = true
	}
	return nil
}

// machines are those that are reviewed.
func (r *reviewer) machines(ctx context.Context, v *admin.Admin) ([]admin.Machine, error) {
	all, err := v.Machines(ctx)
	if err != nil {
		return nil, err
	}
	for _, name := range r.flags.machines {
		if !slices.ContainsFunc(all, func(m admin.Machine) bool { return m.Name == name }) {
			return nil, &failure{exitNo, fmt.Errorf("there is no machine %q; batchwarden admin machine list shows them", name)}
		}
	}
	return slices.DeleteFunc(all, func(m admin.Machine) bool {
		wanted := len(r.flags.machines) == 0 || slices.Contains(r.flags.machines, m.Name)
		if wanted && m.Removed {
			r.notes.Add(fmt.Sprintf("machine %s is being removed: until it has read the mark it may hold what it held", m.Name))
		}
		return !wanted || m.Removed
	}), nil
}

// machine reviews one.
func (r *reviewer) machine(m admin.Machine, out *reviewWriter) error {
	var entries []*snapshot.Held
	for _, scope := range scopesOf(m) {
		entries = append(entries, r.scopes[scope].entries(m.Platforms)...)
	}
	known := snapshot.New(m.Name, entries)
	for _, fault := range known.Faults() {
		r.notes.Add(fmt.Sprintf("machine %s: %s: refused", m.Name, fault))
	}
	for _, p := range known.Policies() {
		realm := p.ID.Name
		if len(r.flags.realms) > 0 && !slices.Contains(r.flags.realms, realm) {
			continue
		}
		h := r.scopes[p.ID.Scope].policies[realm]
		if h.refused != nil {
			r.notes.Add(fmt.Sprintf("%s is refused by machines, which go on with an older one if they have one: %v", h.at(), errorOf(h.refused)))
			continue
		}
		for _, clash := range known.Clashes(realm, h.name) {
			r.notes.Add(fmt.Sprintf("machine %s: %s: refused", m.Name, clash))
		}
		for _, u := range known.Users() {
			if len(r.flags.batchUsers) > 0 && !slices.Contains(r.flags.batchUsers, u.Name) {
				continue
			}
			if err := r.user(m, known, h, u.Name, out); err != nil {
				return err
			}
		}
	}
	return out.flush()
}

// user reviews one batch user on one machine in one realm.
func (r *reviewer) user(m admin.Machine, known *snapshot.Snapshot, h *held, name string, out *reviewWriter) error {
	u, err := known.BatchUser(h.realm, h.name, name)
	if err != nil {
		return nil // ambiguous, and noted as that
	}
	purposes := r.purposes(m, u)
	if purposes == nil {
		return nil
	}
	host := policy.Host{Agent: strings.ReplaceAll(r.agents[h.realm], "{machine}", m.Name), AgentServices: r.services[h.realm], Platform: m.Platforms[0]}
	if host.Agent == "" && (h.name == "opcon" || r.asked) {
		host.Agent = m.Name
		r.notes.Add(fmt.Sprintf("realm %s: machines were asked about by their own names; --agent %s=NAME says what the controller calls them", h.realm, h.realm))
	}
	b := policy.BatchUser{Name: u.RealmName, Platform: u.BatchUser.Platform, Services: u.ServicesIn(h.realm, h.name),
		Username: u.BatchUser.Username, Group: u.BatchUser.Group}
	can, err := r.can(h, host, b)
	if err != nil {
		r.notes.Add(fmt.Sprintf("machine %s, realm %s: %s cannot be asked about: %v", m.Name, h.realm, name, err))
		return nil
	}
	account := u.BatchUser.Username
	if d := u.BatchUser.Domain; d != "" {
		account = d + `\` + account
	}
	for _, c := range can {
		if err := out.add(usable{Machine: m.Name, BatchUser: u.Name, Account: account, Scope: u.ID.Scope, Realm: h.realm, Called: u.RealmName,
			User: c.subject.User, Role: strings.Join(c.subject.Roles, ","), For: purposes, By: c.by}); err != nil {
			return err
		}
	}
	return nil
}

// purposes are what the batch user's own document lets it be used for; nil: nothing, and a note says so.
func (r *reviewer) purposes(m admin.Machine, u *snapshot.User) (list []string) {
	b := u.BatchUser
	if !b.Expires.IsZero() && b.Expires.Before(r.app.now()) {
		r.notes.Add(fmt.Sprintf("%s has expired: nobody can use it", u.ID))
		return nil
	}
	if b.Launch && slices.Contains(m.Platforms, b.Platform) {
		list = append(list, "launch")
	}
	if b.Retrieve && b.Kind != "none" {
		list = append(list, "retrieve")
	}
	if list == nil {
		r.notes.Add(fmt.Sprintf("%s on %s is for neither launching nor retrieving there: nobody can use it", u.ID, m.Name))
	}
	return list
}

// can returns who can use b on a host, in the order of the subjects.
func (r *reviewer) can(h *held, host policy.Host, b policy.BatchUser) ([]allowed, error) {
	q := askedFor{engine: h.engine, agent: host.Agent, agentServices: strings.Join(host.AgentServices, "\x00"),
		name: b.Name, platform: b.Platform, services: strings.Join(b.Services, "\x00")}
	if can, known := r.answers[q]; known {
		return can, nil
	}
	model, is := h.model.(policy.Reviewer)
	if !is {
		return nil, errors.New("nothing is known about reviews of its model")
	}
	use := model.Use(host, b)
	if r.asked {
		launch := policy.Request{Object: r.object}
		if err := h.model.FillLaunch(&launch, host, b); err != nil {
			return nil, err
		}
		use = policy.Use{Requests: []policy.Request{launch}}
	}
	can := []allowed{}
	for _, s := range h.subjects {
		d := use.Decide(h.engine, s)
		if d.Code == policy.Invalid {
			return nil, errors.New(d.Reason)
		}
		if !d.Allowed {
			continue
		}
		c := allowed{subject: s}
		if r.flags.why {
			c.by = use.By(h.engine, s)
		}
		can = append(can, c)
	}
	r.answers[q] = can
	return can, nil
}
