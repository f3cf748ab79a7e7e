package opcon

import (
	"maps"
	"slices"
	"strings"

	"batchwarden/daemon/policy"
)

var _ policy.Linter = Model{}

// Lint finds what is legal and surely not meant. The codes are explained in
// OPCON.md.
func (Model) Lint(file string, data []byte) ([]policy.Finding, error) {
	l := &linter{}
	var err error
	if l.p, err = parse(file, data, &l.doc); err != nil {
		return nil, err
	}
	l.known()
	for _, name := range slices.Sorted(maps.Keys(l.doc.Roles)) {
		l.role(name, l.doc.Roles[name])
	}
	for name, u := range l.doc.Users {
		if len(u.Roles) == 0 {
			l.found.Add("users."+name, "user.empty", "the user has no role: everything is denied (OC5)")
		}
	}
	l.batchUsers()
	l.host()
	return l.found.Sorted(), nil
}

type linter struct {
	p      *Policy
	doc    document
	used   []platform                 // that the document speaks of
	listed [platforms]map[string]bool // batch_users, by their keys
	found  policy.Findings
}

// known gathers the platforms and batch users that the document names.
func (l *linter) known() {
	for p := range platforms {
		l.listed[p] = map[string]bool{}
		for _, b := range l.doc.BatchUsers {
			if b.Platform == p.String() {
				l.listed[p][string(key(nil, p, b.Login))] = true
			}
		}
		granted := false
		for _, r := range l.p.roles {
			granted = granted || len(r.grants[p]) > 0
		}
		if granted || len(l.listed[p]) > 0 {
			l.used = append(l.used, p)
		}
	}
}

func (l *linter) role(name string, doc docRole) {
	place := "roles." + name
	r := l.p.roles[name]
	if r.ocadm {
		if doc.BatchUsers != nil || doc.Machines != nil || doc.Functions != nil {
			l.found.Add(place, "ocadm.restricted", "Role_ocadm has every batch user on every machine whatever stands here (OC6)")
		}
		return
	}
	if r.holders == 0 && len(l.doc.Users) > 0 {
		l.found.Add(place, "role.unused", "no user of the document has the role; it counts only for requests that name it")
	}
	if r.restricts && len(r.machines) == 0 {
		l.found.Add(place+".machines", "machines.empty", "an empty list is a list: the role gives no machine, and who has no other one launches nowhere (OC8); leave machines out to not restrict")
	}
	if r.count == 0 && !r.restricts && len(doc.Functions) == 0 {
		l.found.Add(place, "role.empty", "the role gives nothing")
	}
	for i, f := range doc.Functions {
		for _, right := range []string{AllAdministrativeFunctions, AllFunctionPrivileges} {
			if f != right && loose(f) == loose(right) {
				l.found.Add(at(place+".functions", i), "function.unknown", "\"%s\" means nothing; is \"%s\" meant? (OC4)", f, right)
			}
		}
	}
	for platformName, logins := range doc.BatchUsers {
		p, _ := platformOf(platformName)
		for i, login := range logins {
			l.grant(at(place+".batch_users."+platformName, i), p, login)
		}
	}
}

// loose is how a name looks to somebody who types it from memory.
func loose(s string) string {
	return strings.TrimSuffix(strings.ToLower(strings.Map(func(r rune) rune {
		if strings.ContainsRune(" -_", r) {
			return -1
		}
		return r
	}, s)), "s")
}

func (l *linter) grant(place string, p platform, login string) {
	k := key(nil, p, login)
	if p.reserved(login) {
		l.found.Add(place, "grant.reserved", "\"%s\" lets jobs run as the agent's own account (OC3)", login)
	} else if len(l.listed[p]) > 0 && !l.listed[p][string(k)] {
		l.found.Add(place, "grant.unlisted", "batch_users lists others of %v and not \"%s\": is it spelt right?%s", p, login, l.near(p, login))
	}
	switch {
	case l.p.black.has(p, k):
		l.found.Add(place, "grant.black", "\"%s\" is on host.black_list, so no launch is ever allowed (OC14)", login)
	case !l.p.white.empty() && !l.p.white.has(p, k):
		l.found.Add(place, "grant.not_white", "\"%s\" is not on host.white_list, so no launch is ever allowed (OC14)", login)
	}
}

// near names the batch user that differs by case alone.
func (l *linter) near(p platform, login string) string {
	for _, b := range l.doc.BatchUsers {
		if b.Platform == p.String() && strings.EqualFold(b.Login, login) {
			return " There is \"" + b.Login + "\", and case matters (OC13)"
		}
	}
	return ""
}

// batchUsers finds those that nobody can use.
func (l *linter) batchUsers() {
	if ocadm := l.p.roles[Ocadm]; ocadm.holders > 0 || len(l.doc.Roles) == 0 {
		return // Role_ocadm has them all
	}
	for i, b := range l.doc.BatchUsers {
		p, _ := platformOf(b.Platform)
		granted := false
		for _, r := range l.p.roles {
			_, has := r.grants[p][string(key(nil, p, b.Login))]
			granted = granted || has
		}
		if !granted {
			l.found.Add(at("batch_users", i), "batch_user.ungranted", "no role grants \"%s\" on %v, and nobody has Role_ocadm: nobody can use it (OC5)", b.Login, p)
		}
	}
}

func (l *linter) host() {
	for _, list := range []struct {
		name    string
		entries []string
	}{{"host.black_list", l.doc.Host.BlackList}, {"host.white_list", l.doc.Host.WhiteList}} {
		for i, entry := range list.entries {
			l.hostEntry(at(list.name, i), entry)
			if list.name == "host.white_list" && slices.Contains(l.doc.Host.BlackList, entry) {
				l.found.Add(at(list.name, i), "white.black", "\"%s\" is on host.black_list too, and black wins (OC14)", entry)
			}
		}
	}
}

// hostEntry finds entries that are no login of any platform of the document.
// What platforms somebody with Role_ocadm uses is not known where it names none.
func (l *linter) hostEntry(place, entry string) {
	var names []string
	for _, p := range l.used {
		if p.fault(entry) == "" {
			return
		}
		names = append(names, p.String())
	}
	if names != nil {
		l.found.Add(place, "host.never", "\"%s\" is no login of %s, so it never matches (OC2, OC14)%s", entry, strings.Join(names, " or "), l.meant(entry))
	}
}

// meant guesses the login of which an entry is the last part.
func (l *linter) meant(entry string) string {
	for _, p := range []platform{unix, windows} {
		if !slices.Contains(l.used, p) || strings.ContainsAny(entry, `/\`) {
			continue
		}
		if p == unix {
			return "; write group/user"
		}
		return `; write DOMAIN\user`
	}
	return ""
}
