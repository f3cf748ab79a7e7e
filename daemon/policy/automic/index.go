package automic

import (
	"cmp"
	"maps"
	"math"
	"math/bits"
	"slices"
	"strings"
)

// An index finds the rows that may match. Each row lies under the column that
// the fewest rows share: its name when that is exact or has a literal
// beginning or end, else its host or login when that is exact, else in rest.
// Rows that cover folders lie in folders as well, whose paths compare
// differently.
type index struct {
	order               []uint32 // places in rows; a bucket is a part of it
	names               table    // exact
	prefixes, suffixes  table
	prefixLengths       []int // ascending
	suffixLengths       []int
	hosts, logins       table
	allHosts, allLogins span // all buckets of hosts and of logins, for objects without one (AU16)
	rest, folders       []uint32
}

type span struct{ start, end uint32 }

// A table finds buckets by the hashes of their texts. Two texts of one hash
// share a bucket, and so a bucket holds candidates: each row is matched anyway.
type table struct {
	slots []slot // a power of two, at most two thirds in use; nil: empty
}

type slot struct {
	hash uint64 // 0: not in use
	span span
}

func (t *table) find(hash uint64) (span, bool) {
	if t.slots == nil {
		return span{}, false
	}
	mask := uint64(len(t.slots) - 1)
	hash = finish(hash)
	for i := hash & mask; ; i = (i + 1) & mask {
		switch t.slots[i].hash {
		case hash:
			return t.slots[i].span, true
		case 0:
			return span{}, false
		}
	}
}

// Texts hash byte by byte, so that one pass over a name has the hashes of all
// its beginnings, and one backwards those of all its ends.
const seed uint64 = 0xcbf29ce484222325

func grow(hash uint64, c byte) uint64 { return (hash ^ uint64(c)) * 0x100000001b3 }

// finish spreads a hash over all its bits; it is never 0.
func finish(hash uint64) uint64 {
	hash ^= hash >> 32
	hash *= 0x9e3779b97f4a7c15
	return hash ^ hash>>29 | 1<<63
}

func forward(text []byte) uint64 {
	hash := seed
	for _, c := range text {
		hash = grow(hash, c)
	}
	return hash
}

func backward(text []byte) uint64 {
	hash := seed
	for i := len(text) - 1; i >= 0; i-- {
		hash = grow(hash, text[i])
	}
	return hash
}

// find reports whether the rows of the index have all that is needed.
func (x *index) find(s *search) bool {
	q := s.q
	if q.kind == folder {
		return s.try(x.folders)
	}
	if x.names.slots != nil && s.look(x, &x.names, forward(q.name)) {
		return true
	}
	hash, at := seed, 0
	for _, n := range x.prefixLengths {
		if n > len(q.name) {
			break
		}
		for ; at < n; at++ {
			hash = grow(hash, q.name[at])
		}
		if s.look(x, &x.prefixes, hash) {
			return true
		}
	}
	hash, at = seed, 0
	for _, n := range x.suffixLengths {
		if n > len(q.name) {
			break
		}
		for ; at < n; at++ {
			hash = grow(hash, q.name[len(q.name)-1-at])
		}
		if s.look(x, &x.suffixes, hash) {
			return true
		}
	}
	return s.attribute(x, &x.hosts, q.host, x.allHosts) || s.attribute(x, &x.logins, q.login, x.allLogins) || s.try(x.rest)
}

func (s *search) look(x *index, t *table, hash uint64) bool {
	at, ok := t.find(hash)
	return ok && s.try(x.order[at.start:at.end])
}

// attribute looks in all buckets for an object without the attribute (AU16).
func (s *search) attribute(x *index, t *table, text []byte, all span) bool {
	if t.slots == nil {
		return false
	}
	if len(text) == 0 {
		return s.scan(x.order[all.start:all.end])
	}
	return s.look(x, t, forward(text))
}

// enough is how many rows may share a name before a host or login is preferred.
const enough = 16

// literal takes an element apart: its literal beginning and end.
func literal(element string) (prefix, suffix string, exact bool) {
	first := strings.IndexAny(element, "*?")
	if first < 0 {
		return element, element, true
	}
	return element[:first], element[strings.LastIndexAny(element, "*?")+1:], false
}

// The tables of an index.
const (
	inNames = iota
	inPrefixes
	inSuffixes
	inHosts
	inLogins
	tables
)

// A key is a row's bucket in one table.
type key struct {
	table int
	hash  uint64
	text  string
}

// nameKeys returns the buckets of a row's name; ok is false when some element has none.
func nameKeys(keys []key, f filter) (_ []key, ok bool) {
	if f == "" {
		return keys, false
	}
	for f != "" {
		var element string
		if element, f = f.next(); element == "" {
			continue
		}
		prefix, suffix, exact := literal(element)
		switch {
		case exact:
			keys = append(keys, key{inNames, finish(forward([]byte(element))), element})
		case prefix == "" && suffix == "":
			return keys, false
		case len(prefix) >= len(suffix):
			keys = append(keys, key{inPrefixes, finish(forward([]byte(prefix))), prefix})
		default:
			keys = append(keys, key{inSuffixes, finish(backward([]byte(suffix))), suffix})
		}
	}
	return keys, true
}

// exactKeys returns the buckets of a host or login; ok is false unless all
// elements are exact and there is one: a filter without elements still
// matches an object without the attribute.
func exactKeys(keys []key, table int, f filter) (_ []key, ok bool) {
	for f != "" {
		var element string
		if element, f = f.next(); element == "" {
			continue
		}
		if _, _, exact := literal(element); !exact {
			return keys, false
		}
		keys = append(keys, key{table, finish(forward([]byte(element))), element})
	}
	return keys, len(keys) > 0
}

// build indexes the rows that take says.
func build(rows []row, take func(*row) bool) index {
	b := indexBuilder{rows: rows, lengths: [tables]map[int]bool{inPrefixes: {}, inSuffixes: {}}}
	for i := range b.counts {
		b.counts[i] = map[uint64]uint32{}
	}
	var x index
	for i := range rows {
		if take(&rows[i]) && rows[i].kinds != folder.bit() {
			b.columns(&rows[i], func(keys []key) {
				for _, k := range keys {
					b.counts[k.table][k.hash]++
				}
			})
		}
	}
	for i := range rows {
		r := &rows[i]
		if !take(r) {
			continue
		}
		if r.kinds&folder.bit() != 0 && (r.name == "" || strings.Contains(string(r.name), `\`)) {
			x.folders = append(x.folders, uint32(i))
		}
		if r.kinds != folder.bit() && !b.place(uint32(i)) {
			x.rest = append(x.rest, uint32(i))
		}
	}
	byGroup := func(i, j uint32) int { return cmp.Compare(rows[i].group, rows[j].group) }
	slices.SortStableFunc(x.rest, byGroup)
	slices.SortStableFunc(x.folders, byGroup)
	x.order = make([]uint32, 0, b.total())
	x.names, _ = b.lay(inNames, &x.order)
	x.prefixes, _ = b.lay(inPrefixes, &x.order)
	x.suffixes, _ = b.lay(inSuffixes, &x.order)
	x.hosts, x.allHosts = b.lay(inHosts, &x.order)
	x.logins, x.allLogins = b.lay(inLogins, &x.order)
	x.prefixLengths = slices.Sorted(maps.Keys(b.lengths[inPrefixes]))
	x.suffixLengths = slices.Sorted(maps.Keys(b.lengths[inSuffixes]))
	return x
}

// An indexBuilder is an index being built.
type indexBuilder struct {
	rows    []row
	counts  [tables]map[uint64]uint32 // rows that could lie in a bucket
	entries [tables][]entry
	lengths [tables]map[int]bool
	keys    [8]key
}

type entry struct {
	hash uint64
	row  uint32
}

// columns calls f with the buckets of each column that r could lie under.
func (b *indexBuilder) columns(r *row, f func(keys []key)) {
	if keys, ok := nameKeys(b.keys[:0], r.name); ok {
		f(keys)
	}
	if keys, ok := exactKeys(b.keys[:0], inHosts, r.host); ok {
		f(keys)
	}
	if keys, ok := exactKeys(b.keys[:0], inLogins, r.login); ok {
		f(keys)
	}
}

// place puts a row under its most selective column and reports whether it has one.
func (b *indexBuilder) place(i uint32) bool {
	var best [8]key
	chosen := best[:0]
	fewest := uint32(math.MaxUint32)
	b.columns(&b.rows[i], func(keys []key) {
		n := uint32(0)
		for _, k := range keys {
			n = max(n, b.counts[k.table][k.hash])
		}
		if name := len(keys) == 0 || keys[0].table <= inSuffixes; name && n <= enough {
			n = 0
		}
		if n < fewest {
			chosen, fewest = append(chosen[:0], keys...), n
		}
	})
	for _, k := range chosen {
		b.entries[k.table] = append(b.entries[k.table], entry{k.hash, i})
		if b.lengths[k.table] != nil {
			b.lengths[k.table][len(k.text)] = true
		}
	}
	return fewest != math.MaxUint32
}

func (b *indexBuilder) total() (n int) {
	for _, list := range b.entries {
		n += len(list)
	}
	return n
}

// lay appends the buckets of one table to order, one behind the other.
func (b *indexBuilder) lay(which int, order *[]uint32) (t table, all span) {
	list := b.entries[which]
	if len(list) == 0 {
		return table{}, span{}
	}
	slices.SortFunc(list, func(x, y entry) int {
		return cmp.Or(cmp.Compare(x.hash, y.hash), cmp.Compare(b.rows[x.row].group, b.rows[y.row].group), cmp.Compare(x.row, y.row))
	})
	buckets := 1
	for i := 1; i < len(list); i++ {
		if list[i].hash != list[i-1].hash {
			buckets++
		}
	}
	t.slots = make([]slot, 1<<bits.Len(uint(buckets+buckets/2)))
	all.start = uint32(len(*order))
	for i := 0; i < len(list); {
		start := uint32(len(*order))
		j := i
		for ; j < len(list) && list[j].hash == list[i].hash; j++ {
			*order = append(*order, list[j].row)
		}
		t.put(list[i].hash, span{start, uint32(len(*order))})
		i = j
	}
	all.end = uint32(len(*order))
	return t, all
}

func (t *table) put(hash uint64, s span) {
	mask := uint64(len(t.slots) - 1)
	i := hash & mask
	for t.slots[i].hash != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = slot{hash, s}
}
