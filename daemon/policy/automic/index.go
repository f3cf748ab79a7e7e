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
// the fewest rows share, name, host or login, where that is exact or has a
// literal beginning or end; else in rest. Rows that cover folders lie in
// folders as well, whose paths compare differently.
type index struct {
	order             []uint32 // places in rows; a bucket is a part of it
	name, host, login column
	rest, folders     []uint32
	few               []uint32 // all but folders, where they are so few that to go over them is faster than to look one up
}

// A column has a table for exact texts, one for beginnings and one for ends.
type column struct {
	exact, prefixes, suffixes    table
	prefixLengths, suffixLengths []int // ascending
	all                          span  // all buckets, for objects without the attribute (AU16)
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
	switch q := s.q; {
	case q.kind == folder:
		return s.try(x.folders)
	case x.few != nil:
		return s.scan(x.few)
	default:
		return s.column(x, &x.name, q.name) || s.attribute(x, &x.host, q.host) || s.attribute(x, &x.login, q.login) || s.try(x.rest)
	}
}

// attribute looks in all buckets for an object without the attribute (AU16).
func (s *search) attribute(x *index, c *column, text []byte) bool {
	if len(text) == 0 {
		return s.scan(x.order[c.all.start:c.all.end])
	}
	return s.column(x, c, text)
}

// column looks in the buckets that text can lie in.
func (s *search) column(x *index, c *column, text []byte) bool {
	if c.exact.slots != nil && s.look(x, &c.exact, forward(text)) {
		return true
	}
	hash, at := seed, 0
	for _, n := range c.prefixLengths {
		if n > len(text) {
			break
		}
		for ; at < n; at++ {
			hash = grow(hash, text[at])
		}
		if s.look(x, &c.prefixes, hash) {
			return true
		}
	}
	hash, at = seed, 0
	for _, n := range c.suffixLengths {
		if n > len(text) {
			break
		}
		for ; at < n; at++ {
			hash = grow(hash, text[len(text)-1-at])
		}
		if s.look(x, &c.suffixes, hash) {
			return true
		}
	}
	return false
}

func (s *search) look(x *index, t *table, hash uint64) bool {
	at, ok := t.find(hash)
	return ok && s.try(x.order[at.start:at.end])
}

// atMostFew is how many rows are gone over rather than looked up.
const atMostFew = 8

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

// The columns of an index, and the tables of a column.
const (
	inName = iota
	inHost
	inLogin
	columns

	exactly   = 0
	beginning = 1
	ending    = 2
	tables    = 3 * columns // table of column c: 3*c + exactly, beginning or ending
)

// A key is a row's bucket in one table.
type key struct {
	table int
	hash  uint64
	text  string
}

// keysOf returns the buckets of a row's filter in a column; ok is false when
// some element has none. A filter without elements has no bucket: it matches
// no text, but an object without the attribute.
func keysOf(keys []key, c int, f filter) (_ []key, ok bool) {
	if f == "" || f == never && c != inName {
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
			keys = append(keys, key{3*c + exactly, finish(forward([]byte(element))), element})
		case prefix == "" && suffix == "":
			return keys, false
		case len(prefix) >= len(suffix):
			keys = append(keys, key{3*c + beginning, finish(forward([]byte(prefix))), prefix})
		default:
			keys = append(keys, key{3*c + ending, finish(backward([]byte(suffix))), suffix})
		}
	}
	return keys, true
}

// build indexes the rows that take says.
func build(rows []row, take func(*row) bool) index {
	b := indexBuilder{rows: rows}
	for i := range tables {
		b.counts[i], b.lengths[i] = map[uint64]uint32{}, map[int]bool{}
	}
	var x index
	var all []uint32
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
		if r.kinds == folder.bit() {
			continue
		}
		all = append(all, uint32(i))
		if !b.place(uint32(i)) {
			x.rest = append(x.rest, uint32(i))
		}
	}
	if len(all) <= atMostFew {
		x.few = all
	}
	byGroup := func(i, j uint32) int { return cmp.Compare(rows[i].group, rows[j].group) }
	slices.SortStableFunc(x.rest, byGroup)
	slices.SortStableFunc(x.folders, byGroup)
	x.order = make([]uint32, 0, b.total())
	x.name = b.lay(inName, &x.order)
	x.host = b.lay(inHost, &x.order)
	x.login = b.lay(inLogin, &x.order)
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
	for c, column := range [columns]filter{inName: r.name, inHost: r.host, inLogin: r.login} {
		if keys, ok := keysOf(b.keys[:0], c, column); ok {
			f(keys)
		}
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
		if name := len(keys) == 0 || keys[0].table/3 == inName; name && n <= enough {
			n = 0
		}
		if n < fewest {
			chosen, fewest = append(chosen[:0], keys...), n
		}
	})
	for _, k := range chosen {
		b.entries[k.table] = append(b.entries[k.table], entry{k.hash, i})
		b.lengths[k.table][len(k.text)] = true
	}
	return fewest != math.MaxUint32
}

func (b *indexBuilder) total() (n int) {
	for _, list := range b.entries {
		n += len(list)
	}
	return n
}

// lay appends the buckets of one column to order, one behind the other.
func (b *indexBuilder) lay(which int, order *[]uint32) (c column) {
	c.all.start = uint32(len(*order))
	c.exact = b.layTable(3*which+exactly, order)
	c.prefixes = b.layTable(3*which+beginning, order)
	c.suffixes = b.layTable(3*which+ending, order)
	c.all.end = uint32(len(*order))
	c.prefixLengths = slices.Sorted(maps.Keys(b.lengths[3*which+beginning]))
	c.suffixLengths = slices.Sorted(maps.Keys(b.lengths[3*which+ending]))
	return c
}

func (b *indexBuilder) layTable(which int, order *[]uint32) (t table) {
	list := b.entries[which]
	if len(list) == 0 {
		return table{}
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
	for i := 0; i < len(list); {
		start := uint32(len(*order))
		j := i
		for ; j < len(list) && list[j].hash == list[i].hash; j++ {
			*order = append(*order, list[j].row)
		}
		t.put(list[i].hash, span{start, uint32(len(*order))})
		i = j
	}
	return t
}

func (t *table) put(hash uint64, s span) {
	mask := uint64(len(t.slots) - 1)
	i := hash & mask
	for t.slots[i].hash != 0 {
		i = (i + 1) & mask
	}
	t.slots[i] = slot{hash, s}
}
