package errand

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"batchwarden/vault/sealed"
	"batchwarden/vault/snapshot"
)

// A record, and each document of what is known, is its fields in order. A number
// is a varint. A text is its length and its octets. A time is its seconds since
// 1970 and its nanoseconds. A frame of what is known begins with how many there
// are in it; each of them begins with an octet that says whether scope and kind
// follow (newPlace) or are those of the one before, as most are.

const (
	samePlace = 0
	newPlace  = 1

	leastKnown = 8  // octets of the shortest one
	usualKnown = 64 // more than most take
)

func appendRecord(b []byte, r *sealed.Record) []byte {
	b = appendText(b, r.ID.Scope)
	b = appendText(b, r.ID.Kind)
	b = appendText(b, r.ID.Name)
	b = binary.AppendUvarint(b, r.Generation)
	b = binary.AppendVarint(b, r.Version)
	b = appendTime(b, r.Created)
	b = appendText(b, r.Head)
	return appendText(b, r.Secret)
}

// readRecord reads a whole frame, and keeps b.
func readRecord(b []byte) (*sealed.Record, error) {
	if err := isKind(b, recordFrame); err != nil {
		return nil, err
	}
	f := fields{rest: b[1:]}
	r := &sealed.Record{
		ID:         snapshot.ID{Scope: string(f.text()), Kind: snapshot.Kind(f.text()), Name: string(f.text())},
		Generation: f.count(),
		Version:    f.number(),
		Created:    f.time(),
		Head:       f.text(),
		Secret:     f.text(),
	}
	return r, f.end()
}

// packer writes what is known in frames of about the size of a buffer.
type packer struct {
	w    io.Writer
	buf  []byte // one frame without its number of documents, which comes before
	n    int
	sent int
	last snapshot.ID
}

// place is what a frame begins with: its length, its kind, and the number of its
// documents, in as many octets as it takes and at the end of the place.
const place = 4 + 1 + binary.MaxVarintLen64

func (p *packer) add(k *Known) error {
	if p.n == 0 {
		p.buf = slices.Grow(p.buf[:0], buffer)[:place]
	}
	if p.n > 0 && k.ID.Scope == p.last.Scope && k.ID.Kind == p.last.Kind {
		p.buf = append(p.buf, samePlace)
	} else {
		p.buf = appendText(append(p.buf, newPlace), k.ID.Scope)
		p.buf = appendText(p.buf, k.ID.Kind)
	}
	p.last = k.ID
	p.buf = appendText(p.buf, k.ID.Name)
	p.buf = binary.AppendVarint(p.buf, k.Version)
	p.buf = appendTime(p.buf, k.Created)
	p.buf = binary.AppendVarint(p.buf, k.Turn)
	p.buf = appendText(p.buf, k.Mark)
	p.buf = appendText(p.buf, k.Source)
	if p.n++; len(p.buf) < buffer-usualKnown {
		return nil
	}
	return p.flush()
}

// flush writes the frame, if anything is in it.
func (p *packer) flush() error {
	if p.n == 0 {
		return nil
	}
	var number [binary.MaxVarintLen64]byte
	n := binary.PutUvarint(number[:], uint64(p.n))
	start := place - n - 1 - 4
	p.buf[start+4] = byte(knownFrame)
	copy(p.buf[start+5:], number[:n])
	b, err := sized(p.buf, start)
	if err != nil {
		return err
	}
	p.n = 0
	if p.sent += len(b) - start; p.sent > MaxKnown {
		return fmt.Errorf("%w: what is known takes over %d octets", ErrTooLong, MaxKnown)
	}
	if _, err := p.w.Write(b[start:]); err != nil {
		return fmt.Errorf("errand: %w", err)
	}
	return nil
}

// readKnown reads a whole frame, of at least one document, behind those of the
// frames before. It keeps nothing of b.
func readKnown(b []byte, known []Known) ([]Known, error) {
	if err := isKind(b, knownFrame); err != nil {
		return nil, err
	}
	f := fields{rest: b[1:]}
	n := f.count()
	if n == 0 || n > uint64(len(f.rest)/leastKnown) {
		return nil, errLayout
	}
	all := string(b)                   // one allocation for all names
	name := func(text []byte) string { // text is what f took last
		end := len(all) - len(f.rest)
		return all[end-len(text) : end]
	}
	var id snapshot.ID
	for range n {
		switch f.count() {
		case samePlace:
		case newPlace:
			id.Scope, id.Kind = string(f.text()), snapshot.Kind(f.text())
		default:
			f.fail()
		}
		id.Name = name(f.text())
		known = append(known, Known{
			ID:      id,
			Version: f.number(),
			Created: f.time(),
			Turn:    f.number(),
			Mark:    bytes.Clone(f.text()),
			Source:  string(f.text()),
		})
	}
	return known, f.end()
}

func appendText[T ~string | ~[]byte](b []byte, text T) []byte {
	return append(binary.AppendUvarint(b, uint64(len(text))), text...)
}

func appendTime(b []byte, t time.Time) []byte {
	return binary.AppendUvarint(binary.AppendVarint(b, t.Unix()), uint64(t.Nanosecond()))
}

var errLayout = errors.New("a frame that is not laid out as it should be")

// fields takes fields from the front. At the first that is not one everything
// else is zero, and end says so.
type fields struct {
	rest []byte
	bad  bool
}

// end is nil when every field was one and nothing is left.
func (f *fields) end() error {
	if f.bad || len(f.rest) > 0 {
		return errLayout
	}
	return nil
}

func (f *fields) fail() { f.bad, f.rest = true, nil }

// took goes on after n octets, as encoding/binary counts them.
func (f *fields) took(n int) {
	if n <= 0 {
		f.fail()
		return
	}
	f.rest = f.rest[n:]
}

func (f *fields) count() uint64 {
	v, n := binary.Uvarint(f.rest)
	f.took(n)
	return v
}

func (f *fields) number() int64 {
	v, n := binary.Varint(f.rest)
	f.took(n)
	return v
}

// text is nil when it is empty. Nobody can append to what follows it.
func (f *fields) text() []byte {
	n := f.count()
	if n > uint64(len(f.rest)) {
		f.fail()
	}
	if f.bad || n == 0 {
		return nil
	}
	text := f.rest[:n:n]
	f.rest = f.rest[n:]
	return text
}

// The years that a time may be of, which are those that JSON can say.
var (
	firstSecond = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC).Unix()
	lastSecond  = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC).Unix()
)

func (f *fields) time() time.Time {
	seconds, nanos := f.number(), f.count()
	if seconds < firstSecond || seconds > lastSecond || nanos >= uint64(time.Second) {
		f.fail()
		return time.Time{}
	}
	return time.Unix(seconds, int64(nanos)).UTC()
}
