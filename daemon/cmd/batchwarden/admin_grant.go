package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"batchwarden/daemon/policy"
	"batchwarden/vault/admin"
)

// grantFlags say who gets or loses what.
type grantFlags struct {
	realm       string
	policyScope string
	batchUser   string
	called      string
	platform    string
	to          policy.Grantee
	make        bool
}

func (g *grantFlags) flags(cmd *cobra.Command) {
	p := cmd.Flags()
	p.StringVar(&g.realm, "realm", "", "the realm (required)")
	p.StringVar(&g.batchUser, "batch-user", "", "the batch user, by its own name (required)")
	p.StringVar(&g.to.Role, "role", "", "the role (OpCon)")
	p.StringVar(&g.to.User, "user", "", "the controller's user (Automic, Stonebranch)")
	p.StringVar(&g.to.Group, "group", "", "the controller's group of users (Automic, Stonebranch)")
	p.StringVar(&g.policyScope, "policy-scope", "", "where the policy lies, as machines/db01, groups/G or platforms/unix (default: the only one)")
	p.StringVar(&g.called, "called", "", "what the realm calls the batch user (default: what its document says)")
	p.StringVar(&g.platform, "os-platform", "", "the batch user's platform (default: what its document says)")
}

func (g *grantFlags) check() error {
	given := 0
	for _, name := range []string{g.to.Role, g.to.User, g.to.Group} {
		if name != "" {
			given++
		}
	}
	switch {
	case g.realm == "":
		return usage("no realm is given; name one with --realm")
	case g.batchUser == "":
		return usage("no batch user is given; name one with --batch-user")
	case given != 1:
		return usage("give one of --role, --user, --group")
	}
	for _, name := range []string{g.realm, g.batchUser} {
		if err := admin.CheckName(name); err != nil {
			return &failure{exitUsage, err}
		}
	}
	if g.policyScope != "" {
		return checkedScope(g.policyScope)
	}
	return nil
}

func (a *app) grantCommand(f *adminFlags) *cobra.Command {
	g := &grantFlags{}
	cmd := &cobra.Command{
		Use:   "grant --realm R --batch-user B {--role ROLE|--user U|--group G}",
		Short: "Let a role, user or group use a batch user, by a change of the policy",
		Long: `Change the policy of a realm so that a role (OpCon), a user or a group (Automic, Stonebranch) can use a batch user,
and nothing else: the role's batch users; X on the LOGIN object, in each authorization group that needs it; Execute on the
credential. Which jobs they may run stays as it is. What changes is shown, the document is checked, and it is written
only if nobody else changed it since it was read. A role, user or group that the policy does not have is refused,
unless --new makes it.`,
		Args: cobra.NoArgs,
		RunE: a.administer(f, func(ctx context.Context, v *admin.Admin, _ *cobra.Command, _ []string) error {
			return a.amend(ctx, v, g, func(m policy.Granter, doc []byte, b policy.BatchUser) (policy.Edit, error) {
				return m.Grant(doc, g.to, b, g.make)
			})
		}),
	}
	g.flags(cmd)
	cmd.Flags().BoolVar(&g.make, "new", false, "make the role, user or group where the policy does not have it")
	return cmd
}

func (a *app) revokeCommand(f *adminFlags) *cobra.Command {
	g := &grantFlags{}
	cmd := &cobra.Command{
		Use:   "revoke --realm R --batch-user B {--role ROLE|--user U|--group G}",
		Short: "Take away what a role, user or group was granted for a batch user",
		Long: `Take from the policy of a realm what gives a role, user or group this batch user by name. What gives it in another way,
as a pattern, a group or a role, is left and named, with exit code 1.`,
		Args: cobra.NoArgs,
		RunE: a.administer(f, func(ctx context.Context, v *admin.Admin, _ *cobra.Command, _ []string) error {
			return a.amend(ctx, v, g, func(m policy.Granter, doc []byte, b policy.BatchUser) (policy.Edit, error) {
				return m.Revoke(doc, g.to, b)
			})
		}),
	}
	g.flags(cmd)
	return cmd
}

// amended is what grant and revoke print as JSON.
type amended struct {
	done
	Policy    string         `json:"policy"`
	Grantee   policy.Grantee `json:"grantee"`
	BatchUser string         `json:"batch_user"` // as the realm calls it
	Edits     []string       `json:"edits"`
	Already   []string       `json:"already,omitempty"`
	Still     []string       `json:"still,omitempty"`
	*effects  `json:"effects,omitempty"`
}

func (a *app) amend(ctx context.Context, v *admin.Admin, g *grantFlags, edit func(policy.Granter, []byte, policy.BatchUser) (policy.Edit, error)) error {
	if err := g.check(); err != nil {
		return err
	}
	old, err := g.held(ctx, v)
	if err != nil {
		return err
	}
	granter, is := old.model.(policy.Granter)
	if !is {
		return usage("nothing can be granted in a policy of the model %s", old.name)
	}
	b, err := g.find(ctx, v, old)
	if err != nil {
		return err
	}
	e, err := edit(granter, old.text, b)
	if err != nil {
		return g.refused(old, err)
	}
	out := amended{Policy: old.at(), Grantee: g.to, BatchUser: b.Name, Edits: e.Changes, Already: e.Already, Still: e.Still}
	if out.Edits == nil {
		out.Edits = []string{}
	}
	var steps []admin.Step
	var text strings.Builder
	if len(e.Changes) > 0 {
		now, err := old.with(old.at(), e.Text)
		if err != nil {
			return err
		}
		if out.effects, err = effectsOf(old, now); err != nil {
			return err
		}
		if steps, err = v.PutPolicy(ctx, old.scope, old.realm, old.name, e.Text, old.version); err != nil {
			return a.finish(v, steps, err)
		}
		for _, c := range e.Changes {
			text.WriteString(cell(c) + "\n")
		}
		text.WriteString(out.effects.text(shown))
	}
	out.done = a.doneOf(v, steps)
	switch {
	case len(e.Already) > 0:
		fmt.Fprintf(&text, "Nothing to do: %v can use %q already, by %s.\n", g.to, b.Name, strings.Join(e.Already, ", "))
	case len(e.Changes) == 0 && len(e.Still) == 0:
		fmt.Fprintf(&text, "Nothing to do: %v has nothing for %q.\n", g.to, b.Name)
	case len(e.Changes) > 0:
		text.WriteString(out.done.text())
	}
	if err := a.show(out, text.String()); err != nil {
		return err
	}
	if len(e.Still) > 0 {
		return &failure{exitNo, fmt.Errorf("%v can still use %q, by %s: that is no grant for this batch user by name; change it with admin policy put", g.to, b.Name, strings.Join(e.Still, ", "))}
	}
	return nil
}

// refused gives an error of a Granter its exit code and says what to do.
func (g *grantFlags) refused(h *held, err error) error {
	barred := &policy.BarError{}
	switch {
	case errors.Is(err, policy.ErrGrantee):
		return &failure{exitUsage, err}
	case errors.Is(err, policy.ErrUnknownGrantee):
		return &failure{exitNo, fmt.Errorf("%s: %w; is it spelt right? grant --new makes it", h.at(), err)}
	case errors.As(err, &barred):
		return &failure{exitNo, fmt.Errorf("%s: %w\nNothing was written; change that first, with admin policy put", h.at(), err)}
	}
	return &failure{exitConfig, fmt.Errorf("%s: %w\nNothing was written", h.at(), err)}
}

// held is the policy that is to be changed.
func (g *grantFlags) held(ctx context.Context, v *admin.Admin) (*held, error) {
	scope := g.policyScope
	if scope == "" {
		scopes, err := v.Scopes(ctx)
		if err != nil {
			return nil, err
		}
		var with []string
		for _, s := range scopes {
			realms, err := v.Policies(ctx, s)
			if err != nil {
				return nil, err
			}
			if slices.Contains(realms, g.realm) {
				with = append(with, s)
			}
		}
		switch len(with) {
		case 0:
			return nil, &failure{exitNo, fmt.Errorf("no scope has a policy of the realm %q; batchwarden admin policy put %s FILE makes one", g.realm, g.realm)}
		case 1:
			scope = with[0]
		default:
			return nil, usage("several scopes have a policy of the realm %q: %s; say which with --policy-scope", g.realm, strings.Join(with, ", "))
		}
	}
	h, err := hold(ctx, v, scope, g.realm)
	if err != nil {
		return nil, err
	}
	return h, h.must()
}

// find is what the realm calls the batch user: by the flags, or by its documents, which must agree.
func (g *grantFlags) find(ctx context.Context, v *admin.Admin, h *held) (policy.BatchUser, error) {
	b := policy.BatchUser{Name: g.called, Platform: cmp.Or(g.platform, "unix")}
	if g.called != "" {
		return b, nil
	}
	scopes, err := v.Scopes(ctx)
	if err != nil {
		return b, err
	}
	type name struct{ called, platform string }
	found := map[name]policy.BatchUser{}
	where := map[name][]string{}
	for _, scope := range scopes {
		u, err := v.BatchUser(ctx, scope, g.batchUser)
		if errors.Is(err, admin.ErrNotFound) {
			continue
		}
		if err != nil {
			return b, err
		}
		in, err := inRealm(u, g.realm, h.name)
		if err != nil {
			return b, err
		}
		in.Platform = cmp.Or(g.platform, in.Platform)
		key := name{in.Name, in.Platform}
		if h.name != "opcon" {
			key.platform = "" // which has no part in what is granted
		}
		found[key] = in
		where[key] = append(where[key], scope)
	}
	switch len(found) {
	case 0:
		return b, &failure{exitNo, fmt.Errorf("there is no batch user %q in any scope; make it with admin batch-user put, or say with --called what the realm calls it", g.batchUser)}
	case 1:
		for _, b = range found {
		}
		return b, nil
	}
	var different []string
	for key, scopes := range where {
		different = append(different, fmt.Sprintf("%q in %s", key.called, strings.Join(scopes, ", ")))
	}
	slices.Sort(different)
	return b, usage("the batch user %q is called differently: %s; say with --called which is meant", g.batchUser, strings.Join(different, "; "))
}
