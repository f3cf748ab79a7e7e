package admin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Group is a group and the machines that may read it.
type Group struct {
	Name     string   `json:"name"`
	Machines []string `json:"machines"`
}

// putGroup makes the policy of a group. Vault knows no case in names of
// policies, but does in paths: two groups that differ in nothing else would
// share one policy, and the later one would take the machines of the earlier.
func (w *work) putGroup(ctx context.Context, group string) error {
	if err := CheckName(group); err != nil {
		return err
	}
	name, err := w.groupName(ctx, groupPolicy(group), group)
	if err != nil {
		return err
	}
	if name != group {
		return fmt.Errorf("admin: %w: to Vault %q is the same as group %q, which exists", ErrTaken, group, name)
	}
	return w.putPolicy(ctx, groupPolicy(group), scopeRules(groupScope+"/"+group))
}

// groupOf finds in a group's policy how its name is written.
func groupOf(text string) string {
	_, rest, _ := strings.Cut(text, "/data/"+groupScope+"/")
	name, _, _ := strings.Cut(rest, "/")
	return name
}

// groupName is how the group is written whose policy this is. Where there is no
// such policy it is usual, and stays so.
func (a *Admin) groupName(ctx context.Context, policy, usual string) (string, error) {
	a.mu.Lock()
	name := a.groups[policy]
	a.mu.Unlock()
	if name != "" {
		return name, nil
	}
	text, err := a.policyText(ctx, policy)
	if err != nil {
		return "", err
	}
	if name = groupOf(text); CheckName(name) != nil {
		name = usual
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if first := a.groups[policy]; first != "" {
		return first, nil
	}
	a.groups[policy] = name
	return name, nil
}

// AddGroup makes the group and puts the machines into it. Each of them must also
// have it in the groups of its configuration to look there.
func (a *Admin) AddGroup(ctx context.Context, group string, machines ...string) ([]Step, error) {
	w := a.begin()
	err := w.addGroup(ctx, group, machines)
	return w.steps, err
}

func (w *work) addGroup(ctx context.Context, group string, machines []string) error {
	if err := w.putGroup(ctx, group); err != nil {
		return err
	}
	return w.members(ctx, machines, func(name string, m Machine, e *entity) error {
		if slices.Contains(m.Groups, group) {
			return nil
		}
		if err := w.ambiguousGroups(ctx, append(m.Groups, group)); err != nil {
			return err
		}
		e.Policies = append(slices.Clone(e.Policies), groupPolicy(group))
		if err := w.writeEntity(ctx, Update, name, e); err != nil {
			return err
		}
		w.notef("%s may read group %s at once, and does where its configuration has it in groups", name, group)
		return nil
	})
}

// members calls f for each machine. One that fails does not stop the others.
func (w *work) members(ctx context.Context, machines []string, f func(string, Machine, *entity) error) error {
	var failed []error
	for _, name := range machines {
		m, e, err := w.machine(ctx, name)
		if err == nil {
			err = f(name, m, e)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("machine %q: %w", name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failed...)
}

// RemoveGroup takes the machines out of the group: they drop what came from it
// when they next look. Without machines it removes the group itself, which must
// have none and hold no document.
func (a *Admin) RemoveGroup(ctx context.Context, group string, machines ...string) ([]Step, error) {
	w := a.begin()
	err := w.removeGroup(ctx, group, machines)
	return w.steps, err
}

func (w *work) removeGroup(ctx context.Context, group string, machines []string) error {
	if err := CheckName(group); err != nil {
		return err
	}
	if len(machines) == 0 {
		return w.dropGroup(ctx, group)
	}
	return w.members(ctx, machines, func(name string, m Machine, e *entity) error {
		if !slices.Contains(m.Groups, group) {
			return nil
		}
		e.Policies = slices.DeleteFunc(slices.Clone(e.Policies), func(p string) bool { return p == groupPolicy(group) })
		if err := w.writeEntity(ctx, Update, name, e); err != nil {
			return err
		}
		w.notef("%s may not read group %s any more; take the group out of its configuration too, else its status says vault.forbidden", name, group)
		return nil
	})
}

func (w *work) dropGroup(ctx context.Context, group string) error {
	machines, err := w.Machines(ctx)
	if err != nil {
		return err
	}
	var in []string
	for _, m := range machines {
		if slices.Contains(m.Groups, group) {
			in = append(in, m.Name)
		}
	}
	if len(in) > 0 {
		return fmt.Errorf("admin: group %q: %w by %s", group, ErrInUse, shortList(in))
	}
	scope := groupScope + "/" + group
	for _, folder := range folders {
		names, err := w.live(ctx, scope, folder)
		if err != nil {
			return err
		}
		if len(names) > 0 {
			return fmt.Errorf("admin: group %q: %w: it holds %s/%s", group, ErrInUse, folder, shortList(names))
		}
	}
	text, err := w.policyText(ctx, groupPolicy(group))
	if err != nil || groupOf(text) != group {
		return err // none, or that of a group which is written otherwise
	}
	if d, err := w.document(ctx, scope+"/index"); err != nil {
		return err
	} else if d.version > 0 {
		if err := w.purge(ctx, scope+"/index", "hints at nothing"); err != nil {
			return err
		}
	}
	err = w.do(Delete, policyPath(groupPolicy(group)), "policy", func() error {
		return w.delete(ctx, policyPath(groupPolicy(group)))
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.policies, groupPolicy(group))
	delete(w.groups, groupPolicy(group))
	return err
}

// live lists the documents of a folder that are not deleted.
func (a *Admin) live(ctx context.Context, scope, folder string) ([]string, error) {
	names, err := a.documents(ctx, scope, folder)
	if err != nil {
		return nil, err
	}
	is := make(map[string]*info, len(names))
	for _, n := range names {
		if is[n], err = a.info(ctx, scope+"/"+folder+"/"+n); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(names, func(n string) bool { return is[n] == nil || !is[n].live() }), nil
}

func shortList(names []string) string {
	if len(names) > 5 {
		return strings.Join(names[:5], ", ") + fmt.Sprintf(" and %d more", len(names)-5)
	}
	return strings.Join(names, ", ")
}

// Groups returns every group, in order of name, with its machines.
func (a *Admin) Groups(ctx context.Context) ([]Group, error) {
	policies, err := a.list(ctx, "sys/policies/acl")
	if err != nil {
		return nil, err
	}
	members := map[string][]string{}
	machines, err := a.Machines(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range machines {
		for _, g := range m.Groups {
			members[g] = append(members[g], m.Name)
		}
	}
	groups := []Group{}
	for _, p := range policies {
		if !strings.HasPrefix(p, groupPrefix) {
			continue
		}
		text, err := a.policyText(ctx, p)
		if err != nil {
			return nil, err
		}
		if name := groupOf(text); CheckName(name) == nil {
			groups = append(groups, Group{Name: name, Machines: append([]string{}, members[name]...)})
		}
	}
	slices.SortFunc(groups, func(x, y Group) int { return strings.Compare(x.Name, y.Name) })
	return groups, nil
}

// ambiguousGroups refuses groups of one machine that hold a batch user of the
// same name: the machine could use neither.
func (w *work) ambiguousGroups(ctx context.Context, groups []string) error {
	if len(groups) < 2 {
		return nil
	}
	in := map[string]string{}
	for _, g := range groups {
		scope := groupScope + "/" + g
		names, err := w.namesIn(ctx, scope)
		if errors.Is(err, ErrForbidden) {
			w.warn(w.metadataPath(scope), fmt.Errorf("whether two groups hold the same batch user was not looked at: %w", err))
			return nil
		}
		if err != nil {
			return err
		}
		for name := range names {
			if other, twice := in[name]; twice && other != g {
				both, err := w.bothLive(ctx, name, other, g)
				if err != nil {
					return err
				}
				if both {
					return fmt.Errorf("%w: the groups %s and %s both hold a batch user %q, and a machine in both could use neither", ErrInUse, other, g, name)
				}
			}
			in[name] = g
		}
	}
	return nil
}

// namesIn are the batch users of a group, listed once.
func (a *Admin) namesIn(ctx context.Context, scope string) (map[string]bool, error) {
	a.mu.Lock()
	known := a.names[scope]
	a.mu.Unlock()
	if known != nil {
		return known, nil
	}
	list, err := a.documents(ctx, scope, userFolder)
	if err != nil {
		return nil, err
	}
	known = make(map[string]bool, len(list))
	for _, n := range list {
		known[n] = true
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.names[scope] = known
	return known, nil
}

func (a *Admin) bothLive(ctx context.Context, name string, groups ...string) (bool, error) {
	for _, g := range groups {
		i, err := a.info(ctx, groupScope+"/"+g+"/"+userFolder+"/"+name)
		if err != nil || i == nil || !i.live() {
			return false, err
		}
	}
	return true, nil
}

// ambiguousUser refuses a batch user in a group when another group of one of its
// machines holds the name.
func (w *work) ambiguousUser(ctx context.Context, scope, name string) error {
	group, ok := strings.CutPrefix(scope, groupScope+"/")
	if !ok {
		return nil
	}
	look := func() error {
		groups, err := w.list(ctx, w.metadataPath(groupScope))
		if err != nil {
			return err
		}
		var others []string
		for _, g := range groups {
			g = strings.TrimSuffix(g, "/")
			if g == group || CheckName(g) != nil {
				continue
			}
			i, err := w.info(ctx, groupScope+"/"+g+"/"+userFolder+"/"+name)
			if err != nil {
				return err
			}
			if i != nil && i.live() {
				others = append(others, g)
			}
		}
		if len(others) == 0 {
			return nil
		}
		machines, err := w.Machines(ctx)
		if err != nil {
			return err
		}
		for _, m := range machines {
			if !slices.Contains(m.Groups, group) {
				continue
			}
			for _, g := range m.Groups {
				if slices.Contains(others, g) {
					return fmt.Errorf("admin: %w: group %q holds a batch user %q too, and %s is in both: it could use neither", ErrInUse, g, name, m.Name)
				}
			}
		}
		return nil
	}
	err := look()
	if errors.Is(err, ErrForbidden) {
		w.warn(w.metadataPath(groupScope), fmt.Errorf("whether another group holds the same batch user was not looked at: %w", err))
		return nil
	}
	return err
}
