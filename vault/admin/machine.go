package admin

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"batchwarden/platform/secret"
	"batchwarden/vault/documents"

	"github.com/hashicorp/vault/api"
)

const (
	entityPrefix = "batchwarden-machine-"

	defaultTokenTTL = time.Hour
	defaultTokenMax = 10 * 24 * time.Hour
	defaultWrapTTL  = 24 * time.Hour

	maxTTL = 100 * 365 * 24 * time.Hour
)

// Machine is a machine as Vault knows it. Zero durations are the usual ones.
type Machine struct {
	Name      string   `json:"name"`
	Platforms []string `json:"platforms"` // the first one's batch users come by metadata, others' by policies
	Groups    []string `json:"groups"`

	TokenTTL    time.Duration `json:"token_ttl,omitempty"`     // one hour
	TokenMax    time.Duration `json:"token_max,omitempty"`     // ten days; then the secret_id is used again
	SecretIDTTL time.Duration `json:"secret_id_ttl,omitempty"` // zero: without end
	WrapTTL     time.Duration `json:"-"`                       // how long the wrapped secret_id can be fetched: a day
	CIDRs       []string      `json:"cidrs,omitempty"`         // where login and token are good; none: everywhere

	NoSecretID bool `json:"-"`                 // issue none
	Removed    bool `json:"removed,omitempty"` // answers only: RemoveMachine was called, and not yet to finish
}

// Credentials are what a machine logs in with.
type Credentials struct {
	secret.Quiet
	Machine         string    `json:"machine"`
	RoleID          string    `json:"role_id"`
	WrappedSecretID string    `json:"wrapped_secret_id,omitempty"` // a token that can be unwrapped once; empty: none was issued
	Expires         time.Time `json:"expires,omitzero"`            // of that token
}

// entity is the part of an identity that is ours to set.
type entity struct {
	ID       string            `json:"id"`
	Metadata map[string]string `json:"metadata"`
	Policies []string          `json:"policies"`
	Aliases  []struct {
		ID       string `json:"id"`
		Name     string `json:"name"`
		Accessor string `json:"mount_accessor"`
	} `json:"aliases"`
}

func entityPath(machine string) string { return "identity/entity/name/" + entityPrefix + machine }

func (a *Admin) rolePath(machine string) string {
	return "auth/" + a.conf.AuthMount + "/role/" + machine
}

// AddMachine entitles the machine to its own scope, its platforms' and its
// groups', which are made if they are not there. A machine that exists is brought
// up to date: its groups are then exactly these. A secret_id is issued only when
// the machine has none; RotateMachine issues another.
func (a *Admin) AddMachine(ctx context.Context, m Machine) (Credentials, []Step, error) {
	w := a.begin()
	c, err := w.addMachine(ctx, m)
	if err != nil {
		err = fmt.Errorf("machine %q: %w", m.Name, err)
	}
	return c, w.steps, err
}

func (w *work) addMachine(ctx context.Context, m Machine) (Credentials, error) {
	none := Credentials{Machine: m.Name}
	if err := m.check(); err != nil {
		return none, err
	}
	accessor, err := w.authAccessor(ctx)
	if err != nil {
		if !w.conf.DryRun || !errors.Is(err, ErrNotFound) {
			return none, err
		}
		accessor = "of the auth method to come"
	}
	old, err := w.entity(ctx, m.Name)
	if err != nil {
		return none, err
	}
	if err := w.ambiguousGroups(ctx, m.Groups); err != nil {
		return none, err
	}
	policies, err := w.policiesFor(ctx, m)
	if err != nil {
		return none, err
	}
	role, err := w.role(ctx, m.Name)
	if err != nil {
		return none, err
	}
	if role != nil && old == nil {
		return none, fmt.Errorf("%w: there is a role %q that is no machine's", ErrTaken, m.Name)
	}
	now, err := w.putEntity(ctx, m, old, policies)
	if err != nil {
		return none, err
	}
	if err := w.putRole(ctx, m, role); err != nil {
		return none, err
	}
	if w.conf.DryRun && role == nil {
		w.say(Create, "identity/entity-alias", "the role's role_id is this entity")
		w.issued(m)
		return none, nil
	}
	roleID, err := w.roleID(ctx, m.Name)
	if err != nil {
		return none, err
	}
	if err := w.putAlias(ctx, now, roleID, accessor); err != nil {
		return none, err
	}
	if err := w.unmark(ctx, m.Name); err != nil {
		return none, err
	}
	c := Credentials{Machine: m.Name, RoleID: roleID}
	if m.NoSecretID {
		return c, nil
	}
	has, err := w.list(ctx, w.rolePath(m.Name)+"/secret-id")
	if err != nil || len(has) > 0 {
		return c, err
	}
	return c, w.issue(ctx, m, &c)
}

func (m *Machine) check() error {
	if err := checkMachine(m.Name); err != nil {
		return err
	}
	if len(m.Platforms) == 0 {
		return fmt.Errorf("%w: a platform is needed: %s", ErrInvalid, strings.Join(documents.Platforms, ", "))
	}
	for _, p := range m.Platforms {
		if err := checkPlatform(p); err != nil {
			return err
		}
	}
	for _, g := range m.Groups {
		if err := CheckName(g); err != nil {
			return err
		}
	}
	for _, d := range []time.Duration{m.TokenTTL, m.TokenMax, m.SecretIDTTL, m.WrapTTL} {
		if d < 0 || d > maxTTL || d%time.Second != 0 {
			return fmt.Errorf("%w: %v is no time to live: whole seconds, up to a hundred years", ErrInvalid, d)
		}
	}
	for i, c := range m.CIDRs {
		p, err := netip.ParsePrefix(c)
		if err != nil {
			ip, err := netip.ParseAddr(c)
			if err != nil {
				return fmt.Errorf("%w: %q is no network like 10.1.0.0/16", ErrInvalid, c)
			}
			p = netip.PrefixFrom(ip, ip.BitLen())
		}
		if i == 0 {
			m.CIDRs = slices.Clone(m.CIDRs)
		}
		m.CIDRs[i] = p.Masked().String()
	}
	m.TokenTTL, m.WrapTTL = cmp.Or(m.TokenTTL, defaultTokenTTL), cmp.Or(m.WrapTTL, defaultWrapTTL)
	m.TokenMax = cmp.Or(m.TokenMax, max(defaultTokenMax, m.TokenTTL))
	if m.TokenMax < m.TokenTTL {
		return fmt.Errorf("%w: a token cannot live for %v and at most %v", ErrInvalid, m.TokenTTL, m.TokenMax)
	}
	return nil
}

// policiesFor makes the policies of the machine's groups and platforms and
// returns the names of all that it has.
func (w *work) policiesFor(ctx context.Context, m Machine) ([]string, error) {
	names := []string{machinePolicy}
	for _, p := range m.Platforms[1:] {
		if p == m.Platforms[0] {
			continue
		}
		if err := w.putPolicy(ctx, platformPolicy(p), scopeRules(platformScope+"/"+p)); err != nil {
			return nil, err
		}
		names = append(names, platformPolicy(p))
	}
	for _, g := range m.Groups {
		if err := w.putGroup(ctx, g); err != nil {
			return nil, err
		}
		names = append(names, groupPolicy(g))
	}
	slices.Sort(names)
	return slices.Compact(names), nil
}

// entity reads the machine's identity; nil when there is none. Vault knows no
// case in the names of entities: another machine's is ErrTaken.
func (a *Admin) entity(ctx context.Context, machine string) (*entity, error) {
	var got struct {
		Data entity `json:"data"`
	}
	found, err := a.read(ctx, entityPath(machine), &got)
	if err != nil || !found {
		return nil, err
	}
	if other := got.Data.Metadata["machine"]; other != machine {
		return nil, fmt.Errorf("%w: to Vault %q is the same as machine %q, which exists", ErrTaken, machine, other)
	}
	return &got.Data, nil
}

// ours reports a policy that this package gives to machines. Others that an
// entity has are left to it.
func ours(policy string) bool {
	return policy == machinePolicy || strings.HasPrefix(policy, groupPrefix) || strings.HasPrefix(policy, platformPrefix)
}

// putEntity gives the machine's identity its metadata and policies. They hold at
// once, also for tokens that exist.
func (w *work) putEntity(ctx context.Context, m Machine, old *entity, policies []string) (*entity, error) {
	want := entity{Metadata: map[string]string{"machine": m.Name, "platform": m.Platforms[0]}}
	verb := Create
	if old != nil {
		verb = Update
		want.ID, want.Aliases = old.ID, old.Aliases
		for _, p := range old.Policies {
			if !ours(p) {
				policies = append(policies, p)
			}
		}
		for k, v := range old.Metadata {
			if _, set := want.Metadata[k]; !set && k != removedMark {
				want.Metadata[k] = v
			}
		}
	}
	want.Policies = slices.Compact(sorted(policies))
	if old != nil && maps.Equal(old.Metadata, want.Metadata) && slices.Equal(sorted(old.Policies), want.Policies) {
		return &want, nil
	}
	return &want, w.writeEntity(ctx, verb, m.Name, &want)
}

func (w *work) writeEntity(ctx context.Context, verb, machine string, e *entity) error {
	path := entityPath(machine)
	return w.do(verb, path, "policies "+strings.Join(e.Policies, ", "), func() error {
		if err := w.write(ctx, path, map[string]any{"metadata": e.Metadata, "policies": e.Policies}, nil); err != nil || e.ID != "" {
			return err
		}
		made, err := w.entity(ctx, machine)
		if err != nil || made == nil {
			return errors.Join(err, fmt.Errorf("admin: the entity of %q is not there after it was made", machine))
		}
		*e = *made
		return nil
	})
}

// putAlias makes a login with the role_id a login of the entity.
func (w *work) putAlias(ctx context.Context, e *entity, roleID, accessor string) error {
	for _, al := range e.Aliases {
		if al.Accessor != accessor {
			continue
		}
		if al.Name == roleID {
			return nil
		}
		if err := w.do(Delete, "identity/entity-alias/id/"+al.ID, "of a role that is no more", func() error {
			return w.delete(ctx, "identity/entity-alias/id/"+al.ID)
		}); err != nil {
			return err
		}
	}
	return w.do(Create, "identity/entity-alias", "the role's role_id is this entity", func() error {
		return w.write(ctx, "identity/entity-alias", map[string]any{"name": roleID, "canonical_id": e.ID, "mount_accessor": accessor}, nil)
	})
}

// role is what is set of a machine's role.
type role struct {
	TokenTTL    json.Number `json:"token_ttl"`
	TokenMax    json.Number `json:"token_max_ttl"`
	SecretIDTTL json.Number `json:"secret_id_ttl"`
	CIDRs       []string    `json:"token_bound_cidrs"`
	SecretCIDRs []string    `json:"secret_id_bound_cidrs"`
}

func (a *Admin) role(ctx context.Context, machine string) (*role, error) {
	var got struct {
		Data role `json:"data"`
	}
	found, err := a.read(ctx, a.rolePath(machine), &got)
	if err != nil || !found {
		return nil, err
	}
	return &got.Data, nil
}

func ttl(n json.Number) time.Duration {
	s, _ := n.Int64() // absent is zero
	return time.Duration(s) * time.Second
}

// networks is CIDRs as they are compared: Vault drops the /32 of some.
func networks(list []string) []string {
	out := make([]string, len(list))
	for i, c := range list {
		out[i] = strings.TrimSuffix(strings.TrimSuffix(c, "/32"), "/128")
	}
	slices.Sort(out)
	return out
}

func (w *work) putRole(ctx context.Context, m Machine, old *role) error {
	verb := Create
	if old != nil {
		verb = Update
		if ttl(old.TokenTTL) == m.TokenTTL && ttl(old.TokenMax) == m.TokenMax && ttl(old.SecretIDTTL) == m.SecretIDTTL &&
			slices.Equal(networks(old.CIDRs), networks(m.CIDRs)) && slices.Equal(networks(old.SecretCIDRs), networks(m.CIDRs)) {
			return nil
		}
	}
	path := w.rolePath(m.Name)
	cidrs := m.CIDRs
	if cidrs == nil {
		cidrs = []string{}
	}
	return w.do(verb, path, "tokens live "+m.TokenTTL.String()+", renewed at most "+m.TokenMax.String(), func() error {
		return w.write(ctx, path, map[string]any{
			"token_ttl": seconds(m.TokenTTL), "token_max_ttl": seconds(m.TokenMax), "token_policies": []string{},
			"secret_id_ttl": seconds(m.SecretIDTTL), "secret_id_num_uses": 0, "bind_secret_id": true,
			"token_bound_cidrs": cidrs, "secret_id_bound_cidrs": cidrs,
		}, nil)
	})
}

func (a *Admin) roleID(ctx context.Context, machine string) (string, error) {
	var got struct {
		Data struct {
			RoleID string `json:"role_id"`
		} `json:"data"`
	}
	path := a.rolePath(machine) + "/role-id"
	if _, err := a.read(ctx, path, &got); err != nil {
		return "", err
	}
	if got.Data.RoleID == "" {
		return "", fmt.Errorf("admin: nothing at %q: %w", path, ErrNotFound)
	}
	return got.Data.RoleID, nil
}

func (w *work) issued(m Machine) {
	if !m.NoSecretID {
		w.say(Issue, w.rolePath(m.Name)+"/secret-id", "wrapped for "+cmp.Or(m.WrapTTL, defaultWrapTTL).String())
	}
}

// issue makes a secret_id that nobody has seen: what is returned can be exchanged for it once.
func (w *work) issue(ctx context.Context, m Machine, c *Credentials) error {
	if w.conf.DryRun {
		w.issued(m)
		return nil
	}
	var got struct {
		Wrap *struct {
			Token   string      `json:"token"`
			TTL     json.Number `json:"ttl"`
			Created time.Time   `json:"creation_time"`
		} `json:"wrap_info"`
	}
	life := cmp.Or(m.WrapTTL, defaultWrapTTL)
	via := w.api.WithRequestCallbacks(func(r *api.Request) { r.WrapTTL = seconds(life) })
	path := w.rolePath(m.Name) + "/secret-id"
	if _, err := w.ask(ctx, via, "PUT", path, nil, map[string]any{}, &got); err != nil {
		return err
	}
	if got.Wrap == nil || got.Wrap.Token == "" {
		return fmt.Errorf("admin: %q answered without a wrapped secret_id", path)
	}
	c.WrappedSecretID, c.Expires = got.Wrap.Token, got.Wrap.Created.Add(ttl(got.Wrap.TTL)).UTC()
	w.issued(m)
	return nil
}

// Machines returns every machine, in order of name, with platforms and groups.
func (a *Admin) Machines(ctx context.Context) ([]Machine, error) {
	names, err := a.list(ctx, "identity/entity/name")
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, entityPrefix) })
	var mu sync.Mutex
	machines := []Machine{}
	err = eachErr(ctx, names, func(ctx context.Context, name string) error {
		var got struct {
			Data entity `json:"data"`
		}
		found, err := a.read(ctx, "identity/entity/name/"+url.PathEscape(name), &got)
		if err != nil || !found || got.Data.Metadata["machine"] == "" {
			return err // gone since, or nobody's
		}
		m, err := a.machineOf(ctx, &got.Data)
		if err != nil {
			return err
		}
		mu.Lock()
		defer mu.Unlock()
		machines = append(machines, m)
		return nil
	})
	slices.SortFunc(machines, func(x, y Machine) int { return strings.Compare(x.Name, y.Name) })
	return machines, err
}

// Machine returns one machine with what its role says.
func (a *Admin) Machine(ctx context.Context, name string) (Machine, error) {
	m, _, err := a.machine(ctx, name)
	if err != nil {
		return m, err
	}
	r, err := a.role(ctx, name)
	if err != nil || r == nil {
		return m, err
	}
	m.TokenTTL, m.TokenMax, m.SecretIDTTL, m.CIDRs = ttl(r.TokenTTL), ttl(r.TokenMax), ttl(r.SecretIDTTL), r.CIDRs
	return m, nil
}

func (a *Admin) machine(ctx context.Context, name string) (Machine, *entity, error) {
	if err := checkMachine(name); err != nil {
		return Machine{}, nil, err
	}
	e, err := a.entity(ctx, name)
	if err != nil {
		return Machine{}, nil, err
	}
	if e == nil {
		return Machine{}, nil, fmt.Errorf("admin: machine %q: %w", name, ErrNotFound)
	}
	m, err := a.machineOf(ctx, e)
	return m, e, err
}

// machineOf reads a machine out of its identity.
func (a *Admin) machineOf(ctx context.Context, e *entity) (Machine, error) {
	m := Machine{Name: e.Metadata["machine"], Platforms: []string{e.Metadata["platform"]}, Groups: []string{}, Removed: e.Metadata[removedMark] == "true"}
	for _, p := range sorted(e.Policies) {
		if strings.HasPrefix(p, groupPrefix) {
			g, err := a.groupName(ctx, p, strings.TrimPrefix(p, groupPrefix))
			if err != nil {
				return m, err
			}
			m.Groups = append(m.Groups, g)
		} else if p, ok := strings.CutPrefix(p, platformPrefix); ok {
			m.Platforms = append(m.Platforms, p)
		}
	}
	slices.Sort(m.Groups)
	return m, nil
}

func sorted(list []string) []string { return slices.Sorted(slices.Values(list)) }
