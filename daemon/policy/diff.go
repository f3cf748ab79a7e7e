package policy

import (
	"encoding/json"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
)

// An Asker is a Model that makes requests out of documents.
type Asker interface {
	// Ask returns requests about what two engines of this model grant and
	// deny, so that a difference between them shows in an answer: a cross
	// product, for every user, of what his rows and grants name in
	// either, wildcards instantiated. Same engines, same requests in the same
	// order, at most limit.
	Ask(before, after Engine, limit int) Questions
}

// Questions are requests that were made out of documents.
type Questions struct {
	Requests []Request
	Subjects int      // how many the requests are about
	Cut      []string // what was left out because there would be too many, in words
}

// A Change is a request that two engines answer differently.
type Change struct {
	Request Request
	Old     Decision
	New     Decision
}

// The kinds of changes.
const (
	Lost     = "lost"     // was allowed
	Gained   = "gained"   // is allowed now
	Code     = "code"     // refused in another way
	Withheld = "withheld" // allowed, with other variables kept back
	Wording  = "wording"  // the same answer for another reason
)

// Kind says how the answers differ; "" when they are the same.
func (c *Change) Kind() string {
	switch {
	case c.Old.Allowed && !c.New.Allowed:
		return Lost
	case !c.Old.Allowed && c.New.Allowed:
		return Gained
	case c.Old.Code != c.New.Code:
		return Code
	case !slices.Equal(c.Old.Withheld, c.New.Withheld):
		return Withheld
	case c.Old.Rule != c.New.Rule || c.Old.Reason != c.New.Reason:
		return Wording
	}
	return ""
}

// Compare asks both engines. The answers may be the same.
func Compare(before, after Engine, r *Request) Change {
	return Change{*r, before.Decide(r), after.Decide(r)}
}

// An Asking collects Questions: each once, and of each subject its share.
type Asking struct {
	seen  map[string]bool
	list  []Request
	limit int
	quota int  // how many requests there may be when the present subject is done
	full  bool // there was one more
	asked int
	cut   []string // subjects
	lost  int      // subjects that were not asked about
}

// leastShare is how many requests a subject gets at least; with too many
// subjects the last ones get none.
const leastShare = 50

// Either returns the names that are in one of two documents, in order.
func Either[V any](before, after map[string]V) []string {
	names := slices.AppendSeq(slices.Collect(maps.Keys(before)), maps.Keys(after))
	slices.Sort(names)
	return slices.Compact(names)
}

// Differing parts the names of a document into those that the other one has
// something else about, and the rest.
func Differing(names []string, same func(name string) bool) (differ, rest []string) {
	for _, name := range names {
		if same(name) {
			rest = append(rest, name)
		} else {
			differ = append(differ, name)
		}
	}
	return differ, rest
}

// NewAsking makes an Asking for at most limit requests.
func NewAsking(limit int) *Asking {
	return &Asking{seen: map[string]bool{}, limit: max(limit, 0)}
}

// Subjects yields the subjects in their order, by place and name; what is added
// while it is at one counts against that one's share. What a subject does not
// need is the others', and those of a second call get what is left.
func (a *Asking) Subjects(names []string) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		if most := (a.limit - len(a.list)) / leastShare; len(names) > most {
			if most == 0 && len(a.list) < a.limit {
				most = 1
			}
			a.lost += len(names) - most
			names = names[:most]
		}
		for i, name := range names {
			a.quota, a.full = len(a.list)+(a.limit-len(a.list))/(len(names)-i), false
			if !yield(i, name) {
				return
			}
			a.asked++
			if a.full {
				a.cut = append(a.cut, name)
			}
		}
	}
}

// Add adds a request and reports whether there is room for more.
func (a *Asking) Add(r Request) bool {
	key, err := json.Marshal(&r)
	if err != nil || a.seen[string(key)] {
		return !a.full
	}
	if len(a.list) >= a.quota {
		a.full = true
		return false
	}
	a.seen[string(key)] = true
	a.list = append(a.list, r)
	return true
}

// Questions returns what was added.
func (a *Asking) Questions() Questions {
	q := Questions{Requests: a.list, Subjects: a.asked}
	if a.lost > 0 {
		q.Cut = append(q.Cut, fmt.Sprintf("%d subjects have no requests at all", a.lost))
	}
	if n := len(a.cut); n > 0 {
		some := a.cut[:min(n, 5)]
		more := ""
		if n > len(some) {
			more = ", …"
		}
		q.Cut = append(q.Cut, fmt.Sprintf("not all combinations were made for %d of %d subjects (%s%s)", n, a.asked, strings.Join(some, ", "), more))
	}
	return q
}

// Words is a list of texts, each once and none empty, in the order in which
// they came.
type Words struct {
	list []string
	has  map[string]bool
}

// Add adds texts.
func (w *Words) Add(texts ...string) {
	if w.has == nil {
		w.has = map[string]bool{}
	}
	for _, t := range texts {
		if t != "" && !w.has[t] {
			w.has[t] = true
			w.list = append(w.list, t)
		}
	}
}

// Has reports whether the text is there.
func (w *Words) Has(text string) bool { return w.has[text] }

// List returns the texts.
func (w *Words) List() []string { return w.list }

// Other is a name that no document gives anything: what "*" is made to stand for.
const Other = "Z9"

// Instances returns texts that the pattern matches: with nothing and with
// Other for each '*'. None is empty.
func Instances(pattern string) []string {
	one := strings.ReplaceAll(pattern, "?", "Z")
	var w Words
	w.Add(strings.ReplaceAll(one, "*", ""), strings.ReplaceAll(one, "*", Other))
	return w.list
}

// Both returns texts that two patterns match, if it finds any.
func Both(p, q string) []string {
	var w Words
	for _, pair := range [...][2]string{{p, q}, {q, p}} {
		for _, inner := range Instances(pair[1]) {
			for _, i := range []int{strings.IndexByte(pair[0], '*'), strings.LastIndexByte(pair[0], '*')} {
				if i < 0 {
					continue
				}
				for _, text := range Instances(pair[0][:i] + inner + pair[0][i+1:]) {
					if Match(p, text) && Match(q, text) {
						w.Add(text)
					}
				}
			}
		}
	}
	return w.list
}
