package automic

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"batchwarden/daemon/policy"
)

var _ policy.Linter = Model{}

// Lint finds what is legal and surely not meant. The codes are explained in
// AUTOMIC.md.
func (Model) Lint(file string, data []byte) ([]policy.Finding, error) {
	l := &linter{groups: map[string]*profile{}}
	var err error
	if l.p, err = parse(file, data, &l.doc, l.groups); err != nil {
		return nil, err
	}
	l.everyProfile(func(from *profile, rows []docRow) {
		for i := range from.rows {
			l.row(&from.rows[i], &rows[i], fmt.Sprintf("%s.rows[%d]", from.place, i))
		}
		l.shadowed(from)
	})
	l.pools()
	l.unused()
	l.objects()
	return l.found.Sorted(), nil
}

type linter struct {
	p      *Policy
	doc    document
	groups map[string]*profile // also those that nobody is in
	found  policy.Findings
}

// everyProfile calls f for the profiles of all users and groups, by name.
func (l *linter) everyProfile(f func(from *profile, rows []docRow)) {
	for _, name := range slices.Sorted(maps.Keys(l.doc.Users)) {
		f(l.p.users[name].from[0], l.doc.Users[name].Rows)
	}
	for _, name := range slices.Sorted(maps.Keys(l.doc.Groups)) {
		f(l.groups[name], l.doc.Groups[name].Rows)
	}
}

// row looks at one row by itself.
func (l *linter) row(r *row, d *docRow, place string) {
	for _, c := range []struct{ column, text string }{{"host", d.Host}, {"login", d.Login}, {"file_src", d.FileSrc},
		{"host_dst", d.HostDst}, {"login_dst", d.LoginDst}, {"file_dst", d.FileDst}} {
		if compile(c.text, asIs) == never {
			l.found.Add(place+"."+c.column, "row.never", "\"%s\" has no element, so no value matches it (AU12); leave the column empty to not restrict", c.text)
		}
	}
	l.files(place+".file_src", d.FileSrc)
	l.files(place+".file_dst", d.FileDst)
	switch {
	case r.kinds == 0:
		l.found.Add(place+".type", "row.never", "\"%s\" has no type, so the row never matches (AU12)", d.Type)
		return
	case r.name == never:
		l.found.Add(place+".name", "row.never", "\"%s\" has no element, so the row never matches (AU12); leave the column empty to not restrict", d.Name)
	default:
		l.names(r, place+".name")
	}
	l.rights(r, place+".rights")
	if r.group == 0 && r.rights&execute != 0 && r.kinds&login.bit() != 0 && r.name == "" && r.attributes() {
		l.found.Add(place, "not.launch", "denies every launch: the LOGIN object that a launch needs has no host and no login of its own, so these columns match it (AU16, AU26); name the types that are meant")
	}
}

// attributes reports whether a column other than type and name restricts.
func (r *row) attributes() bool { return r.host != "" || r.login != "" || r.more != nil }

// files finds filters that only a file name could match which no request may have.
func (l *linter) files(place, column string) {
	for e := range compile(column, asIs).elements() {
		if why := badFile(e); why != "" && e[0] != '*' {
			l.found.Add(place, "filter.never", "\"%s\" %s; a request with such a file name is not valid (AU14), so nothing matches", e, why)
		}
	}
}

// odd are the types whose names are not those of ordinary objects: folders
// have paths, users a department behind a slash, hosts and reports what the
// operating system calls them.
const odd = 1<<folder | 1<<29 | allKinds&^(1<<30-1)

// names finds filters that no name can match.
func (l *linter) names(r *row, place string) {
	named := r.kinds != allKinds
	some := false
	for e := range r.name.elements() {
		switch {
		case r.kinds&folder.bit() != 0 && e[0] == '\\':
			some = true
			if r.kinds == folder.bit() && strings.Contains(strings.TrimSuffix(e, `\*`), `\\`) {
				l.found.Add(place, "filter.never", "\"%s\" has a doubled separator, which no path has (AU17)", e)
			}
		case r.kinds == folder.bit():
			l.found.Add(place, "folder.path", `"%s" does not begin with \, so it matches no folder (AU17)`, e)
			some = true
		case r.kinds&odd == 0 && strings.ContainsAny(e, "\\/ \t\"'"):
			l.found.Add(place, "filter.never", "\"%s\" has a character that no object's name has", e)
		}
	}
	if r.name != "" && !some && named && r.kinds&folder.bit() != 0 {
		l.found.Add(place, "folder.path", `the row lists FOLD, and no filter begins with \, so it matches no folder (AU17)`)
	}
}

// elements are the parts of a column.
func (f filter) elements() func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for f != "" {
			var e string
			if e, f = f.next(); e != "" && !yield(e) {
				return
			}
		}
	}
}

// rights finds rights that none of the row's types has (AU6).
func (l *linter) rights(r *row, place string) {
	if r.rights == 0 {
		what := "it only makes group " + r.number() + " count, which some other row then has to grant (AU8)"
		if r.group == 0 {
			what = "it denies nothing"
		}
		l.found.Add(place, "row.no_rights", "the row ticks no right; %s", what)
		return
	}
	var have rights
	for k := range typeNames {
		if r.kinds&kind(k).bit() != 0 {
			have |= kind(k).rights()
		}
	}
	if extra := r.rights &^ have; extra != 0 {
		l.found.Add(place, "row.right", "%s never counts: %s (AU6)", extra, l.haves(r.kinds, have))
	}
}

func (l *linter) haves(set kinds, have rights) string {
	return fmt.Sprintf("%s has only %s", set.list(), have)
}

// list names the types of a set, not too many of them.
func (s kinds) list() string {
	var names []string
	for k, name := range typeNames {
		if s&kind(k).bit() != 0 {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	if n := len(names); n > 6 {
		return fmt.Sprintf("%s and %d more types", strings.Join(names[:5], ", "), n-5)
	}
	return strings.Join(names, ", ")
}

// maxPairs is how many pairs of rows are compared in one profile.
const maxPairs = 4_000_000

// shadowed finds rows of a profile that a NOT row of it denies whole (AU7).
func (l *linter) shadowed(from *profile) {
	pairs := 0
	for n := range from.rows {
		not := &from.rows[n]
		if not.group != 0 {
			continue
		}
		if pairs += len(from.rows); pairs > maxPairs {
			return
		}
		var groups, looked uint16 // denied as a whole, which is said of the NOT row
		for i := range from.rows {
			r := &from.rows[i]
			if r.group == 0 || !not.denies(r) {
				continue
			}
			if bit := uint16(1) << r.group; looked&bit == 0 {
				looked |= bit
				if whole(from.rows, r.group, not) {
					groups |= bit
				}
			}
			if groups&(1<<r.group) != 0 {
				continue
			}
			l.found.Add(fmt.Sprintf("%s.rows[%d]", from.place, i), "row.shadowed", "never grants: the NOT row %s.rows[%d] denies all that it has (AU7)", from.place, n)
		}
	}
}

// whole reports whether not denies all that the rows of a group have.
func whole(rows []row, group uint8, not *row) bool {
	for i := range rows {
		if r := &rows[i]; r.group == group && r.rights != 0 && !not.denies(r) {
			return false
		}
	}
	return true
}

// denies reports whether all that r grants is denied by the NOT row.
func (not *row) denies(r *row) bool {
	if r.rights == 0 || r.rights&^not.rights != 0 || r.kinds&^not.kinds != 0 || r.kinds == 0 {
		return false
	}
	if !not.name.covers(r.name) || r.kinds&folder.bit() != 0 && !not.name.coversFolders(r.name) {
		return false
	}
	if !not.host.covers(r.host) || !not.login.covers(r.login) {
		return false
	}
	a, b := not.more, r.more
	if a == nil {
		return true
	}
	if b == nil {
		b = &more{}
	}
	return a.hostDst.covers(b.hostDst) && a.loginDst.covers(b.loginDst) &&
		a.fileSrc.covers(b.fileSrc) && a.fileSrcWindows.covers(b.fileSrcWindows) &&
		a.fileDst.covers(b.fileDst) && a.fileDstWindows.covers(b.fileDstWindows)
}

// covers reports that f matches every value that narrow matches.
func (f filter) covers(narrow filter) bool {
	return f.all(narrow, policy.Covers)
}

// coversFolders is covers for paths, whose filters read differently (AU17 to AU19).
func (f filter) coversFolders(narrow filter) bool {
	return f.all(narrow, func(wide, narrow string) bool {
		return narrow[0] != '\\' || wide == narrow || wide[0] == '\\' && !strings.HasSuffix(wide, `\`) && policy.Covers(wide, narrow)
	})
}

func (f filter) all(narrow filter, covers func(wide, narrow string) bool) bool {
	if f == "" {
		return true
	}
	if narrow == "" || narrow == never {
		return false
	}
	for n := range narrow.elements() {
		some := false
		for w := range f.elements() {
			some = some || covers(w, n)
		}
		if !some {
			return false
		}
	}
	return true
}

// unused finds users and groups that nothing depends on.
func (l *linter) unused() {
	in, listed := map[string]bool{}, map[string]bool{}
	for _, u := range l.doc.Users {
		for _, g := range u.Groups {
			in[g] = true
		}
	}
	for _, o := range l.doc.Objects {
		for name := range o.Access {
			listed[name] = true
		}
	}
	for name, g := range l.doc.Groups {
		if !in[name] {
			l.found.Add("groups."+name, "group.unused", "nobody is in the group")
		}
		if len(g.Rows) == 0 && !listed[name] {
			l.found.Add("groups."+name, "group.empty", "the group has no rows and no object lists it: it gives nothing")
		}
	}
}

// objects looks at the objects' own lists (AU28).
func (l *linter) objects() {
	var covered kinds
	l.everyProfile(func(from *profile, _ []docRow) {
		for i := range from.rows {
			if from.rows[i].group != 0 {
				covered |= from.rows[i].kinds
			}
		}
	})
	for id, o := range l.doc.Objects {
		place := "objects." + id
		typeName, _, _ := strings.Cut(id, "/")
		k := kindOf(typeName)
		if covered&k.bit() == 0 {
			l.found.Add(place, "object.unused", "no row of the document grants anything of %v, so the list decides nothing (AU28)", k)
		}
		kept := rights(0)
		for _, name := range slices.Sorted(maps.Keys(o.Access)) {
			at := place + ".access." + name
			r, _ := rightsOf(o.Access[name])
			_, isUser := l.doc.Users[name]
			_, isGroup := l.doc.Groups[name]
			if !isUser && !isGroup {
				l.found.Add(at, "object.principal", "the document defines no user and no group of this name: the entry is for nobody (AU28)")
				continue
			}
			if extra := r &^ k.rights(); extra != 0 {
				l.found.Add(at, "object.right", "%s never counts: %s (AU6)", extra, l.haves(k.bit(), k.rights()))
			}
			kept |= r & k.rights()
		}
		if kept == 0 {
			l.found.Add(place, "object.nobody", "the list leaves no right to anybody, so the object is denied to everybody (AU28)")
		}
	}
}
