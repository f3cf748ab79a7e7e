package opcon

import (
	"fmt"
	"unicode"

	"batchwarden/daemon/policy"
	"batchwarden/daemon/strict"
)

const format = 1

type document struct {
	Format     *int               `json:"format"`
	Model      string             `json:"model"`
	Roles      map[string]docRole `json:"roles"`
	Users      map[string]docUser `json:"users"`
	BatchUsers []docBatchUser     `json:"batch_users"`
	Host       docHost            `json:"host"`
}

type docRole struct {
	BatchUsers map[string][]string `json:"batch_users"`
	Machines   *[]string           `json:"machines"`
	Functions  []string            `json:"functions"`
}

type docUser struct {
	Roles []string `json:"roles"`
}

type docBatchUser struct {
	Platform    string `json:"platform"`
	Login       string `json:"login"`
	PasswordSet bool   `json:"password_set"`
}

type docHost struct {
	BlackList []string `json:"black_list"`
	WhiteList []string `json:"white_list"`
}

// Parse compiles a JSON or YAML document. The error is strict.Faults with
// every fault and its place, or wraps policy.ErrNewer.
func Parse(file string, data []byte) (*Policy, error) {
	return parse(file, data, new(document))
}

// parse is Parse, and leaves what it read in doc.
func parse(file string, data []byte, doc *document) (*Policy, error) {
	in, err := strict.Parse(file, data)
	if err != nil {
		return nil, err
	}
	in.IgnoreX = true
	in.Decode(doc)
	if doc.Format != nil && *doc.Format > format {
		return nil, fmt.Errorf("%s: format %d, where %d is understood: %w", file, *doc.Format, format, policy.ErrNewer)
	}
	b := builder{in: in, p: &Policy{roles: map[string]*role{}, users: map[string]*user{}}}
	b.head(doc)
	b.roles(doc.Roles)
	b.users(doc.Users)
	b.batchUsers(doc.BatchUsers)
	b.p.black = b.hostList("host.black_list", doc.Host.BlackList)
	b.p.white = b.hostList("host.white_list", doc.Host.WhiteList)
	if err := in.Err(); err != nil {
		return nil, err
	}
	return b.p, nil
}

type builder struct {
	in *strict.Document
	p  *Policy
}

func (b *builder) head(doc *document) {
	if doc.Format != nil && *doc.Format < 1 {
		b.in.Fault("format", "is %d; this program knows %d", *doc.Format, format)
	}
	switch {
	case doc.Model == "opcon":
	case b.in.Has("model"):
		b.in.Fault("model", `is %q, not "opcon"`, doc.Model)
	default:
		b.in.Fault("model", `is required: "opcon"`)
	}
}

func (b *builder) roles(docs map[string]docRole) {
	for name, doc := range docs {
		place := "roles." + name
		b.name(place, name)
		r := &role{name: name, ocadm: name == Ocadm}
		for platform, logins := range doc.BatchUsers {
			b.grants(r, place+".batch_users."+platform, platform, logins)
		}
		if doc.Machines != nil {
			r.restricts = true
			r.machines = make(map[string]struct{}, len(*doc.Machines))
			for i, m := range *doc.Machines {
				b.name(at(place+".machines", i), m)
				r.machines[m] = struct{}{}
			}
		}
		for i, f := range doc.Functions {
			b.name(at(place+".functions", i), f)
			r.keeper = r.keeper || f == AllAdministrativeFunctions || f == AllFunctionPrivileges
		}
		b.p.roles[name] = r
	}
	if b.p.roles[Ocadm] == nil {
		b.p.roles[Ocadm] = &role{name: Ocadm, ocadm: true} // OC16
	}
}

func (b *builder) grants(r *role, place, platform string, logins []string) {
	p, ok := platformOf(platform)
	if !ok {
		b.in.Fault(place, "%q is not one of windows, sql, unix, ibmi, mcp, openvms, zos", platform)
		return
	}
	set := make(map[string]struct{}, len(logins))
	for i, login := range logins {
		if text := p.fault(login); text != "" {
			b.in.Fault(at(place, i), "%s", text)
		}
		set[string(key(nil, p, login))] = struct{}{}
	}
	r.grants[p] = set
	r.count += len(set)
}

func (b *builder) users(docs map[string]docUser) {
	for name, doc := range docs {
		place := "users." + name
		b.name(place, name)
		u := &user{}
		for i, roleName := range doc.Roles {
			r := b.p.roles[roleName]
			if r == nil {
				b.in.Fault(at(place+".roles", i), "the document defines no role %q", roleName) // OC16
				continue
			}
			r.holders++
			u.roles = append(u.roles, r)
		}
		b.p.users[name] = u
	}
}

// batchUsers checks the list of batch users (OC2). It decides nothing: what
// a batch user is on this machine says the vault, what is granted say roles.
func (b *builder) batchUsers(docs []docBatchUser) {
	type id struct {
		p   platform
		key string
	}
	seen := map[id]int{}
	for i, doc := range docs {
		place := at("batch_users", i)
		p, ok := platformOf(doc.Platform)
		if !ok {
			if b.in.Has(place + ".platform") {
				b.in.Fault(place+".platform", "%q is not one of windows, sql, unix, ibmi, mcp, openvms, zos", doc.Platform)
			} else {
				b.in.Fault(place+".platform", "is required")
			}
			continue
		}
		if text := p.fault(doc.Login); text != "" {
			b.in.Fault(place+".login", "%s", text)
		}
		switch {
		case p.reserved(doc.Login): // OC3: exists by itself, has no password
		case p == windows && !doc.PasswordSet:
			b.in.Fault(place, "%q: a windows batch user needs a password (password_set)", doc.Login)
		case doc.PasswordSet && (p == ibmi || p == mcp || p == openvms):
			b.in.Fault(place+".password_set", "%q: batch users of %v have no password", doc.Login, p)
		}
		this := id{p, string(key(nil, p, doc.Login))}
		if first, twice := seen[this]; twice {
			b.in.Fault(place, "%q on %v is there already: batch_users[%d]", doc.Login, p, first)
			continue
		}
		seen[this] = i
	}
}

func (b *builder) hostList(place string, entries []string) logins {
	l := logins{exact: map[string]struct{}{}, folded: map[string]struct{}{}}
	for i, entry := range entries {
		if text := plain(entry); text != "" {
			b.in.Fault(at(place, i), "%s", text)
		}
		l.exact[entry] = struct{}{}
		l.folded[string(key(nil, windows, entry))] = struct{}{}
	}
	return l
}

// name checks a name that is compared and shown: a user, a role, a machine.
// The empty one is what a request has that names none.
func (b *builder) name(place, name string) {
	switch {
	case name == "":
		b.in.Fault(place, "a name is empty")
	case len(name) > policy.MaxText:
		b.in.Fault(place, "a name has %d bytes, at most %d", len(name), policy.MaxText)
	default:
		for _, r := range name {
			if unicode.IsControl(r) {
				b.in.Fault(place, "a name contains a control character")
				return
			}
		}
	}
}

func at(place string, i int) string { return fmt.Sprintf("%s[%d]", place, i) }
