package strict

import (
	"strconv"
	"strings"
)

type kind uint8

const (
	null kind = iota
	boolean
	number    // text is a JSON number
	oddNumber // a YAML number that JSON would not write so: 0x1F, 1_000, .inf
	str
	list
	object
	name // of a member; the next node is its value
)

func (k kind) String() string {
	return [...]string{"nothing", "true or false", "a number", "a number", "a text", "a list", "an object", "a name"}[k]
}

// A node is one value of the document or the name of a member. All nodes lie
// in one slice in the order of the text, so that ten megabytes of rows are
// one allocation and not a million.
type node struct {
	text      string // of a scalar or a name
	line, col uint32
	next      uint32 // index of the first node behind this value and all in it
	kind      kind
}

// push appends a node and reports whether the document may grow further.
func (d *Document) push(n node) bool {
	if len(d.nodes) >= d.limit {
		d.add(n.line, n.col, "", "has more than "+strconv.Itoa(d.limit)+" values")
		return false
	}
	n.next = uint32(len(d.nodes) + 1)
	d.nodes = append(d.nodes, n)
	return true
}

// close ends the list or object at index i: everything behind it is in it.
func (d *Document) close(i uint32) { d.nodes[i].next = uint32(len(d.nodes)) }

// duplicates adds a fault for each name that the object at i has twice.
func (d *Document) duplicates(i uint32) {
	end := d.nodes[i].next
	seen := map[string]bool(nil)
	count := 0
	for k := i + 1; k < end; k = d.nodes[k+1].next {
		count++
	}
	if count > 16 {
		seen = make(map[string]bool, count)
	}
	for k := i + 1; k < end; k = d.nodes[k+1].next {
		n := &d.nodes[k]
		twice := seen[n.text]
		if seen != nil {
			seen[n.text] = true
		} else {
			for j := i + 1; j < k && !twice; j = d.nodes[j+1].next {
				twice = d.nodes[j].text == n.text
			}
		}
		if twice {
			d.add(n.line, n.col, d.placeOf(k), "is there twice")
		}
	}
}

// placeOf writes the place of the node at index k by going down to it from the root.
func (d *Document) placeOf(k uint32) string {
	var place strings.Builder
	for i := uint32(0); i < k; {
		j := i + 1
		if d.nodes[i].kind == list {
			index := 0
			for ; d.nodes[j].next <= k; index++ {
				j = d.nodes[j].next
			}
			place.WriteString("[" + strconv.Itoa(index) + "]")
			i = j
			continue
		}
		for d.nodes[j+1].next <= k {
			j = d.nodes[j+1].next
		}
		element(&place, d.nodes[j].text)
		if i = j + 1; j == k {
			break // the name itself
		}
	}
	return place.String()
}

// element appends a member's name to a place. Names that would make the
// place unreadable are quoted.
func element(place *strings.Builder, text string) {
	if place.Len() > 0 {
		place.WriteByte('.')
	}
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return !strconv.IsPrint(r) }) {
		text = strconv.Quote(text)
	}
	if len(text) > 200 {
		text = text[:200] + "…"
	}
	place.WriteString(text)
}

// find returns the index of the value at place, or, with false, of the
// nearest value above it that exists. Names may contain dots and brackets:
// every name of an object that the rest of the place begins with is tried,
// the longest first.
func (d *Document) find(place string) (uint32, bool) {
	if len(d.nodes) == 0 {
		return 0, false
	}
	best, rest := uint32(0), len(place)
	if i, ok := d.descend(0, place, &best, &rest); ok {
		return i, true
	}
	return best, false
}

func (d *Document) descend(i uint32, place string, best *uint32, rest *int) (uint32, bool) {
	if place == "" {
		return i, true
	}
	if len(place) < *rest {
		*best, *rest = i, len(place)
	}
	n := d.nodes[i]
	switch n.kind {
	case list:
		digits, after, ok := strings.Cut(strings.TrimPrefix(place, "["), "]")
		index, err := strconv.Atoi(digits)
		if place[0] != '[' || !ok || err != nil || index < 0 {
			return 0, false
		}
		for k := i + 1; k < n.next; k = d.nodes[k].next {
			if index == 0 {
				return d.descend(k, strings.TrimPrefix(after, "."), best, rest)
			}
			index--
		}
	case object:
		for limit := len(place) + 1; limit > 0; {
			length, value := -1, uint32(0)
			for k := i + 1; k < n.next; k = d.nodes[k+1].next {
				text := d.nodes[k].text
				if len(text) < limit && len(text) > length && begins(place, text) {
					length, value = len(text), k+1
				}
			}
			if length < 0 {
				return 0, false
			}
			if j, ok := d.descend(value, strings.TrimPrefix(place[length:], "."), best, rest); ok {
				return j, true
			}
			limit = length
		}
	}
	return 0, false
}

// begins reports whether place begins with the whole name.
func begins(place, name string) bool {
	if !strings.HasPrefix(place, name) {
		return false
	}
	return len(place) == len(name) || place[len(name)] == '.' || place[len(name)] == '['
}
