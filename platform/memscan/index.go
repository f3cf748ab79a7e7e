package memscan

import (
	"bytes"
	"encoding/binary"
	"slices"
)

// index finds any of many needles in one pass: eight octets at each place are hashed into a set of
// bits, and only where that says "perhaps" the needles themselves are compared.
type index struct {
	bits    []uint64
	begins  map[uint64][]Needle // by their first eight octets, the longest first
	longest int
}

const hashBits = 22

func hash(word uint64) uint64 { return word * 0x9e3779b97f4a7c15 >> (64 - hashBits) }

func newIndex(needles []Needle) *index {
	x := &index{bits: make([]uint64, 1<<hashBits/64), begins: map[uint64][]Needle{}, longest: MinSecret}
	for _, n := range needles {
		word := binary.LittleEndian.Uint64(n.text)
		h := hash(word)
		x.bits[h/64] |= 1 << (h % 64)
		x.begins[word] = append(x.begins[word], n)
		x.longest = max(x.longest, len(n.text))
	}
	for _, list := range x.begins {
		slices.SortStableFunc(list, func(a, b Needle) int { return len(b.text) - len(a.text) })
	}
	return x
}

// find calls hit for the needles in data that begin before end, not more than one for each place, and
// goes on behind a needle that it found. It returns where to go on.
func (x *index) find(data []byte, at, end int, hit func(at int, form string)) int {
	for at < end && at+MinSecret <= len(data) {
		word := binary.LittleEndian.Uint64(data[at:])
		if word == 0 {
			at++
			continue
		}
		h := hash(word)
		if x.bits[h/64]&(1<<(h%64)) == 0 {
			at++
			continue
		}
		next := at + 1
		for _, n := range x.begins[word] {
			if bytes.HasPrefix(data[at:], n.text) {
				hit(at, n.Form)
				next = at + len(n.text)
				break
			}
		}
		at = next
	}
	return at
}

const chunk = 1 << 20

// stream looks through what is read piece by piece.
type stream struct {
	x       *index
	mapping string
	buf     []byte
	have    int   // octets in buf
	at      int   // where in buf to go on
	base    int64 // of buf, from the begin of the mapping
	hits    []Hit
}

func (x *index) stream(mapping string) *stream {
	return &stream{x: x, mapping: mapping, buf: make([]byte, chunk+x.longest)}
}

// room is where to read the next octets to.
func (s *stream) room() []byte { return s.buf[s.have:] }

// advance takes n octets in.
func (s *stream) advance(n int) {
	s.have += n
	s.search(s.have - s.x.longest + 1)
	// Keep what a needle may have begun in.
	keep := max(s.at, s.have-s.x.longest+1)
	keep = min(max(keep, 0), s.have)
	s.at = max(s.at-keep, 0)
	copy(s.buf, s.buf[keep:s.have])
	s.base += int64(keep)
	s.have -= keep
}

// search looks at needles that begin before end.
func (s *stream) search(end int) {
	s.at = max(s.at, s.x.find(s.buf[:s.have], s.at, end, func(at int, form string) {
		if len(s.hits) < maxHits {
			s.hits = append(s.hits, Hit{form, s.mapping, s.base + int64(at)})
		}
	}))
}

// finish looks at what is left; nothing that is read later goes on from it.
func (s *stream) finish() {
	s.search(s.have)
	s.base += int64(s.have)
	s.have, s.at = 0, 0
}
