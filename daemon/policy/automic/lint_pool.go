package automic

import (
	"fmt"
	"maps"
	"slices"
)

// pools looks at what each user has with all his groups (AU2, AU8).
func (l *linter) pools() {
	in := l.numbered()
	whose := map[about]*example{}
	for _, name := range slices.Sorted(maps.Keys(l.p.users)) {
		u := l.p.users[name]
		l.nothing(name, u)
		l.noLogin(name, u)
		l.logicalAnd(name, u, in, whose)
		l.notWhole(name, u, whose)
	}
	for a, e := range whose {
		l.found.Add(a.place, a.code, "for %s %s", e, a.text)
	}
}

// about is a finding that several users may share.
type about struct{ place, code, text string }

type example struct {
	name string
	more int
}

func (e *example) String() string {
	switch e.more {
	case 0:
		return e.name
	case 1:
		return e.name + " and 1 other user"
	}
	return fmt.Sprintf("%s and %d other users", e.name, e.more)
}

func note(whose map[about]*example, a about, user string) {
	if e := whose[a]; e != nil {
		e.more++
		return
	}
	whose[a] = &example{name: user}
}

// numbered counts for each group number the profiles that use it.
func (l *linter) numbered() (in [10]int) {
	l.everyProfile(func(from *profile, _ []docRow) {
		for g := 1; g < len(in); g++ {
			if from.groups&(1<<g) != 0 {
				in[g]++
			}
		}
	})
	return in
}

func (l *linter) nothing(name string, u *user) {
	var groups uint16
	rows := 0
	for _, from := range u.from {
		groups |= from.groups
		rows += len(from.rows)
	}
	switch {
	case rows == 0:
		l.found.Add("users."+name, "user.empty", "the user has no rows, own or of a group: everything is denied (AU3)")
	case groups&^notBit == 0:
		l.found.Add("users."+name, "user.empty", "the user has NOT rows only, and these never grant: everything is denied (AU7)")
	}
}

// noLogin finds who may execute jobs and no LOGIN object: every launch is denied (AU26).
func (l *linter) noLogin(name string, u *user) {
	job, account := false, false
	for _, from := range u.from {
		for i := range from.rows {
			if r := &from.rows[i]; r.group != 0 && r.rights&execute != 0 && r.name != never {
				job = job || r.kinds&jobs.bit() != 0
				account = account || r.kinds&login.bit() != 0
			}
		}
	}
	if job && !account {
		l.found.Add("users."+name, "user.no_login", "the user may execute JOBS and no LOGIN object, so every launch is denied (AU26)")
	}
}

// logicalAnd finds group numbers that deny more than their rows say (AU8).
func (l *linter) logicalAnd(name string, u *user, in [10]int, whose map[about]*example) {
	var covers, grants [10]kinds
	var first [10]string
	for _, from := range u.from {
		for i := range from.rows {
			r := &from.rows[i]
			covers[r.group] |= r.kinds
			if r.rights != 0 && (r.kinds != allKinds || r.name == "" && !r.attributes()) {
				grants[r.group] |= r.kinds // a row for all types that restricts is what one writes to hold besides all else
			}
			if first[r.group] == "" {
				first[r.group] = fmt.Sprintf("%s.rows[%d]", from.place, i)
			}
		}
	}
	for g := 1; g < len(covers); g++ {
		if first[g] == "" {
			continue
		}
		var others kinds
		for h := 1; h < len(grants); h++ {
			if h != g {
				others |= grants[h]
			}
		}
		if others == 0 {
			continue
		}
		if missing := others &^ covers[g]; missing != 0 && !l.p.byType {
			note(whose, about{first[g], "group.uncovered", fmt.Sprintf("everything of %s is denied, whatever other groups grant: group %d has no row for it, and with group_scope all every group has to grant (AU8)", missing.list(), g)}, name)
			continue
		}
		if from := only(u, g); from != nil && from != u.from[0] && in[g] == 1 && others&covers[g] != 0 && !from.unrestricted(g) {
			note(whose, about{first[g], "group.alone", fmt.Sprintf("these rows take rights away instead of giving more: no other profile uses group %d, so it has to grant besides the groups of the other profiles (AU2, AU8)", g)}, name)
		}
	}
}

// only returns the one profile of the user that has the group, if it has no
// other group and others have.
func only(u *user, g int) *profile {
	var found *profile
	for _, from := range u.from {
		if from.groups&(1<<g) == 0 {
			continue
		}
		if found != nil || from.groups&^notBit != 1<<g {
			return nil
		}
		found = from
	}
	return found
}

// unrestricted reports whether the group has a row for all types: that is how
// one writes what is to hold besides all else.
func (p *profile) unrestricted(g int) bool {
	return slices.ContainsFunc(p.rows, func(r row) bool { return int(r.group) == g && r.kinds == allKinds })
}

// notWhole finds NOT rows that deny everything that a group grants, which is
// then missing for everything (AU7, AU8).
func (l *linter) notWhole(name string, u *user, whose map[about]*example) {
	var groups uint16
	for _, from := range u.from {
		groups |= from.groups
	}
	for _, at := range u.from {
		for n := range at.rows {
			not := &at.rows[n]
			if not.group != 0 || not.rights == 0 {
				continue
			}
			for g := uint8(1); g < 10; g++ {
				if groups&(1<<g) != 0 && grantsAny(u, g) && !slices.ContainsFunc(u.from, func(from *profile) bool { return !whole(from.rows, g, not) }) {
					note(whose, about{fmt.Sprintf("%s.rows[%d]", at.place, n), "not.group", fmt.Sprintf("it denies all that group %d has, and as every group has to grant, all of that is denied (AU7, AU8)", g)}, name)
				}
			}
		}
	}
}

func grantsAny(u *user, g uint8) bool {
	return slices.ContainsFunc(u.from, func(from *profile) bool {
		return slices.ContainsFunc(from.rows, func(r row) bool { return r.group == g && r.rights != 0 })
	})
}
