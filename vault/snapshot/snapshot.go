// Package snapshot holds everything this machine knows from Vault at one moment: which batch users and
// policies are in force here, and under which names. A Snapshot is immutable and is swapped whole.
package snapshot

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Kind says which sort of document an entry is.
type Kind string

// The two kinds of document. Their values are part of sealed heads and never change.
const (
	BatchUserKind Kind = "batch_user"
	PolicyKind    Kind = "policy"
)

// ErrUnknown reports that no batch user of this machine has the name.
var ErrUnknown = errors.New("unknown batch user")

// ErrAmbiguous reports that the name, or another name of the same batch user, means two of them.
// Both are refused: a second meaning of a name would slip past a denial of the first.
var ErrAmbiguous = errors.New("ambiguous batch user")

// ID names a document of Vault. It is comparable.
type ID struct {
	Scope string `json:"scope"` // "machines/db01", "groups/x" or "platforms/unix"
	Kind  Kind   `json:"kind"`
	Name  string `json:"name"` // of a policy: the realm
}

// String is the document's path below the mount.
func (id ID) String() string {
	switch id.Kind {
	case BatchUserKind:
		return id.Scope + "/batch_users/" + id.Name
	case PolicyKind:
		return id.Scope + "/policies/" + id.Name
	}
	return id.Scope + "/?" + string(id.Kind) + "/" + id.Name
}

// Compare orders documents by name, kind and scope: those that contest a name lie beside each other.
func (id ID) Compare(other ID) int {
	if c := strings.Compare(id.Name, other.Name); c != 0 {
		return c
	}
	return cmp.Or(strings.Compare(string(id.Kind), string(other.Kind)), strings.Compare(id.Scope, other.Scope))
}

// Entry is one document of Vault as this machine knows it, without its password. Exactly one of
// BatchUser and Policy is set, the one that ID.Kind names.
type Entry struct {
	ID         ID        `json:"id"`
	Version    int64     `json:"version"` // of Vault's key-value store
	Created    time.Time `json:"created"` // of that version, by Vault's clock
	Generation uint64    `json:"generation"`

	// Of a batch user whose password lies in another place of Vault: Turn counts the passwords that
	// this machine has seen there, from 1, and Mark is the same as long as the password is. The sync
	// worker alone can make a mark, so it tells nobody else anything.
	Turn    int64     `json:"turn,omitempty"`
	Mark    []byte    `json:"mark,omitempty"`
	Rotates time.Time `json:"rotates,omitzero"` // when that place announced the next password

	BatchUser *BatchUser `json:"batch_user,omitempty"`
	Policy    *Policy    `json:"policy,omitempty"`
}

// SecretVersion is what callers know the password by: the turn where it lies elsewhere, else the
// document's version.
func (e *Entry) SecretVersion() int64 {
	if e.Turn > 0 {
		return e.Turn
	}
	return e.Version
}

// Compare orders versions of one document by (Created, Version, Turn): one that was removed for good and
// written anew begins with version 1 again.
func (e *Entry) Compare(other *Entry) int {
	return cmp.Or(e.Created.Compare(other.Created), cmp.Compare(e.Version, other.Version), cmp.Compare(e.Turn, other.Turn))
}

// BatchUser is a batch user with the defaults applied. Its password is elsewhere, sealed.
type BatchUser struct {
	Username string              `json:"username"`
	Domain   string              `json:"domain,omitempty"`
	Group    string              `json:"group,omitempty"`
	Platform string              `json:"platform"`
	Kind     string              `json:"kind"` // "password" or "none"
	PAM      string              `json:"pam,omitempty"`
	Names    Names               `json:"names,omitempty"`
	Services map[string][]string `json:"services,omitempty"` // by realm, or by model
	Launch   bool                `json:"launch"`
	Retrieve bool                `json:"retrieve"`
	MaxStale time.Duration       `json:"max_stale,omitempty"` // 0: the machine's own
	Expires  time.Time           `json:"expires,omitzero"`    // zero: never
	Source   string              `json:"source,omitempty"`
}

// Policy is one realm's policy document, as it was written.
type Policy struct {
	Model    string `json:"model"`
	Document []byte `json:"-"` // sealed heads carry it beside their JSON
}

// Held is an entry as a Snapshot keeps it. It is shared by all that hold it, and nobody changes it.
type Held struct {
	Entry
	Confirmed time.Time // when Vault last said that this is the version in force
	HeadSum   [32]byte  // of the sealed head's text; the sealed secret repeats it
	Box       []byte    // the sealed secret, nil when there is none
	Fault     string    // a newer document that was refused, in words; this one stays in force
	Rejected  time.Time // since when this password is known to be no good where it is used; zero: it is not
}

// User is a batch user in force on this machine.
type User struct {
	*Held
	Name      string // its own name, the last element of its path
	RealmName string // what the realm of the look-up calls it; empty in Users
	Ambiguous bool   // the same name comes from two scopes of one rank: never found by BatchUser
}

// Snapshot is everything in force on one machine at one moment. Its methods may be called from
// anywhere; nobody changes what they return.
type Snapshot struct {
	users    []*User            // in order of Name
	aliases  map[string][]alias // by realm or model, in order of name
	policies []*Held            // in order of realm
	faults   []string
}

// alias is what a realm or a model calls a batch user. Sorted lists of them are a third of the memory
// that maps would take.
type alias struct {
	name string
	user int // of users
}

// New returns what of entries is in force on machine: the nearest scope wins. It keeps the entries.
func New(machine string, entries []*Held) *Snapshot {
	s := &Snapshot{aliases: map[string][]alias{}}
	all := make([]*Held, 0, len(entries))
	for _, h := range entries {
		if rank(machine, h) > 0 {
			all = append(all, h)
		} else {
			s.faults = append(s.faults, fmt.Sprintf("%s: not a document of machine %q", h.ID, machine))
		}
	}
	// Those that contest a name lie beside each other, the nearest first. This is quick where they come in
	// the order of their IDs.
	slices.SortFunc(all, func(a, b *Held) int {
		if a.ID.Name != b.ID.Name || a.ID.Kind != b.ID.Kind {
			return a.ID.Compare(b.ID)
		}
		return cmp.Or(rank(machine, b)-rank(machine, a), strings.Compare(a.ID.Scope, b.ID.Scope))
	})
	s.makeAliases(all)
	s.users = make([]*User, 0, len(all))
	users := make([]User, len(all)) // all live as long as s does
	for len(all) > 0 {
		n, nearest := 0, 0 // how many contest the first one's name, and how many of them are as near as it
		for n < len(all) && all[n].ID.Name == all[0].ID.Name && all[n].ID.Kind == all[0].ID.Kind {
			if n++; rank(machine, all[n-1]) == rank(machine, all[0]) {
				nearest = n
			}
		}
		switch all[0].ID.Kind {
		case BatchUserKind:
			s.addUser(&users[0], all[:nearest])
			users = users[1:]
		case PolicyKind:
			s.addPolicy(all[:nearest])
		}
		all = all[n:]
	}
	for _, list := range s.aliases {
		slices.SortStableFunc(list, func(a, b alias) int { return strings.Compare(a.name, b.name) })
	}
	return s
}

// Replaced returns s with these in the place of the batch users in force that have their IDs, as New would; nil
// where that changes more, and New has to say what. It keeps them. A changed password takes a small part of the
// memory and time of New so.
func (s *Snapshot) Replaced(newer []*Held) *Snapshot {
	next := *s
	next.users = slices.Clone(s.users)
	for _, h := range newer {
		i, found := s.find(h.ID.Name)
		if !found || h.BatchUser == nil || s.users[i].ID != h.ID || s.users[i].Ambiguous || !slices.Equal(h.BatchUser.Names, s.users[i].BatchUser.Names) {
			return nil
		}
		next.users[i] = &User{Held: h, Name: h.ID.Name}
	}
	return &next
}

// makeAliases makes room for what all are called: to find that out later would cost more.
func (s *Snapshot) makeAliases(all []*Held) {
	n := map[string]int{}
	for _, h := range all {
		if h.BatchUser != nil {
			for _, name := range h.BatchUser.Names {
				n[name.Where]++
			}
		}
	}
	for where, n := range n {
		s.aliases[where] = make([]alias, 0, n)
	}
}

// clash says that more than one is the nearest; "" when one is.
func clash(best []*Held) string {
	if len(best) == 1 {
		return ""
	}
	paths := make([]string, len(best))
	for i, h := range best {
		paths[i] = h.ID.String()
	}
	return "the same name in two scopes: " + strings.Join(paths, ", ")
}

// rank is higher for a nearer scope and zero for what does not belong to machine at all or does not
// hold what its kind says.
func rank(machine string, h *Held) int {
	switch h.ID.Kind {
	case BatchUserKind:
		if h.BatchUser == nil {
			return 0
		}
	case PolicyKind:
		if h.Policy == nil {
			return 0
		}
	default:
		return 0
	}
	if h.ID.Name == "" {
		return 0
	}
	switch where, name, _ := strings.Cut(h.ID.Scope, "/"); {
	case name == "":
		return 0
	case where == "machines" && name == machine:
		return 3
	case where == "groups":
		return 2
	case where == "platforms":
		return 1
	}
	return 0
}

func (s *Snapshot) addUser(u *User, best []*Held) {
	at := len(s.users)
	u.Held, u.Name = best[0], best[0].ID.Name
	if clash := clash(best); clash != "" {
		h := *best[0]
		h.Fault, h.Box = clash, nil
		u.Held, u.Ambiguous = &h, true
		s.faults = append(s.faults, clash)
	}
	s.users = append(s.users, u)
	// Every claimant's names count: a name that an ambiguous one may mean stays ambiguous.
	for _, h := range best {
		for _, n := range h.BatchUser.Names {
			if n.Name != "" {
				s.aliases[n.Where] = append(s.aliases[n.Where], alias{n.Name, at})
			}
		}
	}
}

func (s *Snapshot) addPolicy(best []*Held) {
	if clash := clash(best); clash != "" {
		s.faults = append(s.faults, clash)
		return
	}
	s.policies = append(s.policies, best[0])
}

// Clashes says in words which names mean two batch users in the realm, which has the given model. It
// looks at all of them: it is for status, not for requests.
func (s *Snapshot) Clashes(realm, model string) []string {
	names := make([]string, 0, len(s.aliases[realm])+len(s.aliases[model]))
	for _, where := range []string{realm, model} {
		for _, a := range s.aliases[where] {
			names = append(names, a.name)
		}
	}
	slices.Sort(names)
	var out []string
	for i, name := range names {
		if i > 0 && name == names[i-1] {
			continue // seen
		}
		if alone := i+1 == len(names) || name != names[i+1]; alone && s.own(name) == nil {
			continue // nearly all are
		}
		meant := s.meant(realm, model, name)
		if len(meant) < 2 {
			continue
		}
		own := make([]string, len(meant))
		for i, u := range meant {
			own[i] = u.Name
		}
		slices.Sort(own)
		out = append(out, fmt.Sprintf("in realm %q the name %q means two batch users: %s", realm, name, strings.Join(own, ", ")))
	}
	return out
}

// BatchUser returns the batch user that name means in the realm, which has the given model. name may
// be its own name or the realm's. The error is ErrUnknown or ErrAmbiguous, wrapped.
func (s *Snapshot) BatchUser(realm, model, name string) (*User, error) {
	meant := s.meant(realm, model, name)
	switch {
	case name == "" || len(meant) == 0:
		return nil, fmt.Errorf("snapshot: %w %q", ErrUnknown, name)
	case len(meant) > 1:
		return nil, fmt.Errorf("snapshot: %w: %q means %q and %q", ErrAmbiguous, name, meant[0].Name, meant[1].Name)
	}
	u := meant[0]
	if u.Ambiguous {
		return nil, fmt.Errorf("snapshot: %w: %q: %s", ErrAmbiguous, name, u.Fault)
	}
	in := u.nameIn(realm, model)
	for _, other := range [2]string{u.Name, in} {
		if meant := s.meant(realm, model, other); len(meant) > 1 {
			return nil, fmt.Errorf("snapshot: %w: %q is also called %q, which means %q and %q",
				ErrAmbiguous, name, other, meant[0].Name, meant[1].Name)
		}
	}
	found := *u
	found.RealmName = in
	return &found, nil
}

// meant returns every batch user that name can mean in the realm.
func (s *Snapshot) meant(realm, model, name string) []*User {
	var all []*User
	if u := s.own(name); u != nil {
		all = append(all, u)
	}
	for _, a := range s.called(realm, name) {
		if u := s.users[a.user]; !slices.Contains(all, u) {
			all = append(all, u)
		}
	}
	for _, a := range s.called(model, name) {
		// A name by model counts only for those that the realm has no name for. Of an ambiguous
		// one only the first document is looked at, so there it always counts.
		if u := s.users[a.user]; (u.Ambiguous || u.BatchUser.Names.In(realm) == "") && !slices.Contains(all, u) {
			all = append(all, u)
		}
	}
	return all
}

// own returns the batch user whose own name it is; nil when there is none.
func (s *Snapshot) own(name string) *User {
	i, found := s.find(name)
	if !found {
		return nil
	}
	return s.users[i]
}

func (s *Snapshot) find(name string) (at int, found bool) {
	return slices.BinarySearchFunc(s.users, name, func(u *User, name string) int { return strings.Compare(u.Name, name) })
}

// called returns those that have the name in a realm or by a model.
func (s *Snapshot) called(where, name string) []alias {
	list := s.aliases[where]
	from, _ := slices.BinarySearchFunc(list, name, func(a alias, name string) int { return strings.Compare(a.name, name) })
	to := from
	for to < len(list) && list[to].name == name {
		to++
	}
	return list[from:to]
}

// nameIn is what the realm calls u: the realm's name, else the model's, else its own.
func (u *User) nameIn(realm, model string) string {
	return cmp.Or(u.BatchUser.Names.In(realm), u.BatchUser.Names.In(model), u.Name)
}

// ServicesIn returns the business services of u in the realm: the realm's, else the model's.
func (u *User) ServicesIn(realm, model string) []string {
	if list, ok := u.BatchUser.Services[realm]; ok {
		return list
	}
	return u.BatchUser.Services[model]
}

// Users returns every batch user of this machine in order of name, the ambiguous ones too.
func (s *Snapshot) Users() []*User { return s.users }

// Policies returns the policies in force in order of realm.
func (s *Snapshot) Policies() []*Held { return s.policies }

// Policy returns the policy in force for the realm; false when there is none, or two of one rank.
func (s *Snapshot) Policy(realm string) (*Held, bool) {
	i, found := slices.BinarySearchFunc(s.policies, realm, func(h *Held, realm string) int { return strings.Compare(h.ID.Name, realm) })
	if !found {
		return nil, false
	}
	return s.policies[i], true
}

// Faults says in words, in a stable order, what of the entries is refused whatever the realm, and why.
// Clashes has the rest.
func (s *Snapshot) Faults() []string { return s.faults }
