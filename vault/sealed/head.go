package sealed

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"batchwarden/vault/snapshot"
)

// headMark begins the text of every head, tokenMark that of every token. A secret's text begins with
// the sum of a head, so none of the three is ever taken for another.
const (
	headMark    = "bwhead 2"
	headMarkOld = "bwhead 1" // its fields are a JSON text
	tokenMark   = "bwtoken 1"
)

// The first octet of a head's fields, by kind, and the bits of a batch user's flags.
const (
	userHead   = 1
	policyHead = 2

	launchFlag   = 1
	retrieveFlag = 2
	allFlags     = launchFlag | retrieveFlag
)

// headText is what a head holds: its mark, the length of the fields, the fields, and a policy's
// document.
func headText(e *snapshot.Entry) ([]byte, error) {
	f := fields{out: make([]byte, 0, 512)}
	f.entry(e)
	if f.err == nil && len(f.out) > maxMeta {
		f.err = fmt.Errorf("%d octets beside the document are too many", len(f.out))
	}
	if f.err != nil {
		return nil, fmt.Errorf("sealed: %s: %w", e.ID, f.err)
	}
	var document []byte
	if e.Policy != nil {
		document = e.Policy.Document
	}
	text := make([]byte, 0, len(headMark)+4+len(f.out)+len(document))
	text = append(text, headMark...)
	text = binary.BigEndian.AppendUint32(text, uint32(len(f.out)))
	return append(append(text, f.out...), document...), nil
}

// fields writes the fields of a head.
type fields struct {
	out []byte
	err error
}

func (f *fields) entry(e *snapshot.Entry) {
	if u := e.BatchUser; u != nil {
		f.out = append(f.out, userHead)
	} else {
		f.out = append(f.out, policyHead)
	}
	f.text(e.ID.Scope)
	f.text(e.ID.Name)
	f.number(e.Generation)
	f.number(uint64(e.Version))
	f.time(e.Created)
	f.number(uint64(e.Turn))
	f.text(string(e.Mark))
	f.time(e.Rotates)
	if e.BatchUser == nil {
		f.text(e.Policy.Model)
		return
	}
	u := e.BatchUser
	for _, s := range []string{u.Username, u.Domain, u.Group, u.Platform, u.Kind, u.PAM, u.Source} {
		f.text(s)
	}
	var flags byte
	if u.Launch {
		flags |= launchFlag
	}
	if u.Retrieve {
		flags |= retrieveFlag
	}
	f.out = append(f.out, flags)
	f.number(uint64(u.MaxStale))
	f.time(u.Expires)
	f.count(len(u.Names))
	for _, n := range u.Names {
		f.text(n.Where)
		f.text(n.Name)
	}
	f.count(len(u.Services))
	for _, where := range slices.Sorted(maps.Keys(u.Services)) {
		f.text(where)
		f.count(len(u.Services[where]))
		for _, s := range u.Services[where] {
			f.text(s)
		}
	}
}

func (f *fields) number(n uint64) { f.out = binary.BigEndian.AppendUint64(f.out, n) }

func (f *fields) count(n int) {
	if n > math.MaxUint16 {
		f.err = fmt.Errorf("%d of one kind, or octets of one text, are too many", n)
	}
	f.out = binary.BigEndian.AppendUint16(f.out, uint16(n))
}

func (f *fields) text(s string) {
	f.count(len(s))
	f.out = append(f.out, s...)
}

// The times that a head holds, and every form of them that people read: years 1 to 9999.
const (
	firstSecond = -62135596800
	lastSecond  = 253402300799
)

func (f *fields) time(t time.Time) {
	if s := t.Unix(); s < firstSecond || s > lastSecond {
		f.err = fmt.Errorf("the time %d seconds after 1970 is none", s)
	}
	f.number(uint64(t.Unix()))
	f.out = binary.BigEndian.AppendUint32(f.out, uint32(t.Nanosecond()))
}

// parser reads heads. It hands the same string out for texts that many entries share.
type parser struct{ known map[string]string }

// shared bounds what a parser remembers, in texts and in octets of each.
const (
	maxShared     = 1000
	maxSharedText = 64
)

// shared returns b as a string, the one of before where there was one.
func (p *parser) shared(b []byte) string {
	if s, ok := p.known[string(b)]; ok {
		return s
	}
	s := string(b)
	if len(s) <= maxSharedText && len(p.known) < maxShared {
		if p.known == nil {
			p.known = map[string]string{}
		}
		p.known[s] = s
	}
	return s
}

// head is the reverse of headText. The entry's document is part of text, and nothing else of it is.
func (p *parser) head(text []byte) (snapshot.Entry, error) {
	var e snapshot.Entry
	rest, now := bytes.CutPrefix(text, []byte(headMark))
	rest, old := bytes.CutPrefix(rest, []byte(headMarkOld))
	if now == old || len(rest) < 4 {
		return e, errors.New("not a head")
	}
	n := uint64(binary.BigEndian.Uint32(rest))
	rest = rest[4:]
	if n > uint64(len(rest)) || n > maxMeta {
		return e, errors.New("head of a wrong length")
	}
	var err error
	if old {
		err = parseOld(rest[:n], &e)
	} else if !p.entry(rest[:n], &e) {
		err = errors.New("head: its fields are not what they should be")
	}
	if err != nil {
		return e, err
	}
	document := rest[n:]
	switch {
	case e.Policy != nil:
		e.Policy.Document = document
	case len(document) != 0:
		return e, errors.New("head: a document in a batch user")
	}
	return e, check(&e)
}

func parseOld(text []byte, e *snapshot.Entry) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(e); err != nil {
		return fmt.Errorf("head: %w", err)
	}
	if d.InputOffset() != int64(len(text)) {
		return errors.New("head: something follows")
	}
	return nil
}

// entry reads what fields.entry wrote, and nothing else than that: one entry has one form.
func (p *parser) entry(text []byte, e *snapshot.Entry) bool {
	c := cursor{text, true}
	kind := c.uint8()
	e.ID.Scope = p.shared(c.take(int(c.uint16())))
	e.ID.Name = c.string()
	e.Generation, e.Version = c.uint64(), int64(c.uint64())
	e.Created = c.time()
	e.Turn = int64(c.uint64())
	if mark := c.take(int(c.uint16())); len(mark) > 0 {
		e.Mark = bytes.Clone(mark)
	}
	e.Rotates = c.time()
	switch kind {
	case userHead:
		e.ID.Kind = snapshot.BatchUserKind
		e.BatchUser = &snapshot.BatchUser{}
		p.user(&c, e.BatchUser)
	case policyHead:
		e.ID.Kind = snapshot.PolicyKind
		e.Policy = &snapshot.Policy{Model: p.shared(c.take(int(c.uint16())))}
	default:
		return false
	}
	return c.done()
}

func (p *parser) user(c *cursor, u *snapshot.BatchUser) {
	u.Username = c.string()
	for _, s := range []*string{&u.Domain, &u.Group, &u.Platform, &u.Kind, &u.PAM} {
		*s = p.shared(c.take(int(c.uint16())))
	}
	u.Source = c.string()
	flags := c.uint8()
	c.good = c.good && flags&^allFlags == 0
	u.Launch, u.Retrieve = flags&launchFlag != 0, flags&retrieveFlag != 0
	u.MaxStale = time.Duration(c.uint64())
	u.Expires = c.time()
	where := ""
	if n := c.count(2 + 2); n > 0 {
		u.Names = make(snapshot.Names, n)
		for i := range u.Names {
			where = p.ascending(c, i, where)
			u.Names[i] = snapshot.Name{Where: where, Name: c.string()}
		}
	}
	if n := c.count(2 + 2); n > 0 {
		u.Services = make(map[string][]string, n)
		for i := range n {
			where = p.ascending(c, i, where)
			list := make([]string, c.count(2))
			for j := range list {
				list[j] = p.shared(c.take(int(c.uint16())))
			}
			u.Services[where] = list
		}
	}
}

// ascending reads the key of the entry i of a map, which comes behind the one before.
func (p *parser) ascending(c *cursor, i int, before string) string {
	s := p.shared(c.take(int(c.uint16())))
	if i > 0 && strings.Compare(s, before) <= 0 {
		c.good = false
	}
	return s
}

// count reads how many things of at least size octets follow.
func (c *cursor) count(size int) int {
	n := int(c.uint16())
	if n*size > len(c.rest) {
		c.good = false
	}
	if !c.good {
		return 0
	}
	return n
}

func (c *cursor) string() string { return string(c.take(int(c.uint16()))) }

func (c *cursor) time() time.Time {
	s, ns := int64(c.uint64()), c.uint32()
	if ns >= uint32(time.Second) || s < firstSecond || s > lastSecond {
		c.good = false
		return time.Time{}
	}
	return time.Unix(s, int64(ns)).UTC()
}
