package automic

import (
	"slices"
	"strings"

	"batchwarden/daemon/policy"
)

// An asker makes the questions about one user.
type asker struct {
	a       *policy.Asking
	user    string
	rows    []*row
	kinds   kinds // worth asking about
	names   [len(typeNames)]policy.Words
	rights  [len(typeNames)]rights
	hosts   policy.Words
	logins  policy.Words
	hostDst policy.Words
	logDst  policy.Words
	fileSrc policy.Words
	fileDst policy.Words
}

// maxCompared is how many rows are compared with each other.
const maxCompared = 300

// usual are the types of which somebody with a row for all types is asked.
const usual = 1<<jobs | 1<<folder | 1<<login | 1<<2 /* JOBF */ | 1<<3 /* JOBP */ | 1<<22 /* VARA */

// collect gathers what the rows name.
func (s *asker) collect(objects []object) {
	for _, r := range s.rows {
		if r.kinds == allKinds {
			s.kinds |= usual
			continue
		}
		s.kinds |= r.kinds
	}
	for _, o := range objects {
		s.kinds |= o.kind.bit()
	}
	for _, r := range s.rows {
		for k := range s.each(r.kinds) {
			s.names[k].Add(r.samples(k)...)
			s.rights[k] |= r.rights & k.rights()
		}
		s.hosts.Add(r.host.samples()...)
		s.logins.Add(r.login.samples()...)
		if m := r.more; m != nil {
			s.hostDst.Add(m.hostDst.samples()...)
			s.logDst.Add(m.loginDst.samples()...)
			s.fileSrc.Add(m.fileSrc.files()...)
			s.fileDst.Add(m.fileDst.files()...)
		}
	}
	s.both()
	for _, o := range objects {
		s.names[o.kind].Add(o.name)
	}
	s.logins.Add(s.names[login].List()...)
	s.hosts.Add(policy.Other)
	s.logins.Add(policy.Other)
}

// both adds what two rows of different groups match: only such a text shows
// that one of the two is gone, because groups are AND-ed and NOT rows deny.
func (s *asker) both() {
	rows := s.rows[:min(len(s.rows), maxCompared)]
	for i, r := range rows {
		for _, o := range rows[:i] {
			if r.group == o.group || r.kinds&o.kinds == 0 {
				continue
			}
			for k := range s.each(r.kinds & o.kinds) {
				if k != folder {
					s.names[k].Add(meet(r.name, o.name)...)
				}
			}
			s.hosts.Add(meet(r.host, o.host)...)
			s.logins.Add(meet(r.login, o.login)...)
			if a, b := r.more, o.more; a != nil && b != nil {
				s.hostDst.Add(meet(a.hostDst, b.hostDst)...)
				s.logDst.Add(meet(a.loginDst, b.loginDst)...)
				s.fileSrc.Add(goodFiles(meet(a.fileSrc, b.fileSrc))...)
				s.fileDst.Add(goodFiles(meet(a.fileDst, b.fileDst))...)
			}
		}
	}
}

// each yields the types of a set that are asked about.
func (s *asker) each(set kinds) func(yield func(kind) bool) {
	return func(yield func(kind) bool) {
		for k := range kind(len(typeNames)) {
			if set&s.kinds&k.bit() != 0 && !yield(k) {
				return
			}
		}
	}
}

// samples are names that the row matches.
func (r *row) samples(k kind) []string {
	if k != folder {
		return r.name.samples()
	}
	if r.name == "" {
		return []string{`\` + policy.Other}
	}
	var w policy.Words
	for e := range r.name.elements() {
		for _, path := range policy.Instances(e) {
			if strings.HasSuffix(e, `\`) {
				path += policy.Other // AU19
			}
			if badFolder(path) == "" {
				w.Add(trimFolder(path))
			}
		}
	}
	return w.List()
}

// samples are values that the filter matches.
func (f filter) samples() []string {
	if f == "" {
		return []string{policy.Other}
	}
	var w policy.Words
	for e := range f.elements() {
		w.Add(policy.Instances(e)...)
	}
	return w.List()
}

func (f filter) files() []string {
	if f == "" {
		return []string{"/" + policy.Other}
	}
	return goodFiles(f.samples())
}

func goodFiles(names []string) []string {
	return slices.DeleteFunc(slices.Clone(names), func(name string) bool { return badFile(name) != "" })
}

// shared are names that both rows match.
func (r *row) shared(o *row, k kind) []string {
	if k != folder {
		return meet(r.name, o.name)
	}
	return slices.DeleteFunc(append(r.samples(k), o.samples(k)...), func(path string) bool {
		return !r.name.matchesFolder([]byte(path)) || !o.name.matchesFolder([]byte(path))
	})
}

// meet are values that both filters match.
func meet(a, b filter) []string {
	switch {
	case a == "" && b == "":
		return []string{policy.Other}
	case a == "":
		return b.samples()
	case b == "":
		return a.samples()
	}
	var w policy.Words
	for p := range a.elements() {
		for q := range b.elements() {
			if p == q || !strings.Contains(p+q, "*") {
				w.Add(slices.DeleteFunc(append(policy.Instances(p), policy.Instances(q)...), func(text string) bool {
					return !policy.Match(p, text) || !policy.Match(q, text)
				})...)
				continue
			}
			w.Add(policy.Both(p, q)...)
		}
	}
	return w.List()
}
