package sealed

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"hash"
	"hash/crc32"
	"slices"
)

// FORMAT.md describes what is encoded here.

const (
	frameHead  = 1 + 4 + 4
	maxPayload = 16 << 20
	maxFile    = 1 << 30
	maxLive    = maxFile - 64<<20 // of it in force; the rest is room for commits and keys

	tagSize     = 16
	batchSize   = 8 + boxed + 8 + 32
	itemSize    = tagSize + 8
	commitFixed = sumSize + 8 + 8 + 4 + 4
	macSize     = 16
	markSize    = frameHead + 8 + macSize
	sector      = 512 // a disk writes no less at once
	maxItems    = 200_000
	maxState    = 8 << 20
)

type frameType uint8

const (
	batchFrame  frameType = 1
	putFrame    frameType = 2
	removeFrame frameType = 3
	tokenFrame  frameType = 4
	stateFrame  frameType = 5
	commitFrame frameType = 6
	markFrame   frameType = 7
)

// tag stands for an ID in the file, which shows no names.
type tag [tagSize]byte

// cursor reads fields; good is false for ever once one was missing.
type cursor struct {
	rest []byte
	good bool
}

func (c *cursor) take(n int) []byte {
	if !c.good || n < 0 || n > len(c.rest) {
		c.good = false
		return make([]byte, max(0, min(n, 64)))
	}
	out := c.rest[:n:n]
	c.rest = c.rest[n:]
	return out
}

func (c *cursor) text() string   { return string(c.take(int(c.uint8()))) }
func (c *cursor) uint8() byte    { return c.take(1)[0] }
func (c *cursor) uint16() uint16 { return binary.BigEndian.Uint16(c.take(2)) }
func (c *cursor) uint32() uint32 { return binary.BigEndian.Uint32(c.take(4)) }
func (c *cursor) uint64() uint64 { return binary.BigEndian.Uint64(c.take(8)) }
func (c *cursor) done() bool     { return c.good && len(c.rest) == 0 }

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// appendFrame appends a frame whose payload is parts, joined.
func appendFrame(out []byte, t frameType, parts ...[]byte) []byte {
	n := 0
	for _, p := range parts {
		n += len(p)
	}
	start := len(out)
	out = binary.BigEndian.AppendUint32(append(out, byte(t)), uint32(n))
	out = binary.BigEndian.AppendUint32(out, crc32.Checksum(out[start:], castagnoli))
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

// frame is one frame of a file, its octets part of the file's.
type frame struct {
	kind    frameType
	whole   []byte
	payload []byte
}

// The ways in which there is no frame at a place.
var (
	errShort   = errors.New("the frame is incomplete")
	errNoFrame = errors.New("this is no frame")
)

func frameAt(data []byte, at int) (frame, error) {
	rest := data[at:]
	if len(rest) < frameHead {
		return frame{}, errShort
	}
	n := binary.BigEndian.Uint32(rest[1:])
	if n > maxPayload || crc32.Checksum(rest[:5], castagnoli) != binary.BigEndian.Uint32(rest[5:]) {
		return frame{}, errNoFrame
	}
	size := frameHead + int(n)
	if len(rest) < size {
		return frame{}, errShort
	}
	return frame{frameType(rest[0]), rest[:size:size], rest[frameHead:size:size]}, nil
}

// put is the payload of a put frame.
type put struct {
	tag        tag
	generation uint64
	head       []byte
	secret     []byte // nil when there is none
}

func (p *put) append(out []byte) []byte {
	var g [8]byte
	var n [4]byte
	binary.BigEndian.PutUint64(g[:], p.generation)
	binary.BigEndian.PutUint32(n[:], uint32(len(p.head)))
	return appendFrame(out, putFrame, p.tag[:], g[:], n[:], p.head, p.secret)
}

func (p *put) size() int64 {
	return int64(frameHead + tagSize + 8 + 4 + len(p.head) + len(p.secret))
}

// parse makes p the put of a payload, whose octets it shares.
func (p *put) parse(payload []byte) bool {
	c := cursor{payload, true}
	copy(p.tag[:], c.take(tagSize))
	p.generation = c.uint64()
	n := c.uint32()
	if !c.good || int64(n) > int64(maxHead) || int64(n) > int64(len(c.rest)) || n < boxed {
		return false
	}
	p.head = c.take(int(n))
	switch secret := c.rest; {
	case len(secret) == 0:
		p.secret = nil
	case len(secret) <= boxed+sumSize || len(secret) > boxed+sumSize+MaxSecret:
		return false
	default:
		p.secret = slices.Clip(secret)
	}
	return p.generation != 0
}

// item says what a commit did to one entry: its new generation, 0 when it was removed.
type item struct {
	tag        tag
	generation uint64
}

// commit is the text of a commit frame's box.
type commit struct {
	chain      [sumSize]byte // over everything before this frame
	seq        uint64
	generation uint64 // the highest that was ever used
	frames     uint32 // in this group, the commit itself not counted
	items      []item
}

func (c *commit) encode() []byte {
	out := make([]byte, 0, commitFixed+itemSize*len(c.items))
	out = append(out, c.chain[:]...)
	out = binary.BigEndian.AppendUint64(out, c.seq)
	out = binary.BigEndian.AppendUint64(out, c.generation)
	out = binary.BigEndian.AppendUint32(out, c.frames)
	out = binary.BigEndian.AppendUint32(out, uint32(len(c.items)))
	for _, it := range c.items {
		out = binary.BigEndian.AppendUint64(append(out, it.tag[:]...), it.generation)
	}
	return out
}

func parseCommit(text []byte) (*commit, bool) {
	r := cursor{text, true}
	c := &commit{}
	copy(c.chain[:], r.take(sumSize))
	c.seq, c.generation, c.frames = r.uint64(), r.uint64(), r.uint32()
	n := r.uint32()
	if !r.good || int64(n)*itemSize != int64(len(r.rest)) {
		return nil, false
	}
	c.items = make([]item, n)
	for i := range c.items {
		copy(c.items[i].tag[:], r.take(tagSize))
		c.items[i].generation = r.uint64()
	}
	return c, r.done()
}

// chainer continues a hash chain.
type chainer struct {
	h   hash.Hash
	sum [sumSize]byte
}

func newChainer(begin [sumSize]byte) *chainer { return &chainer{sha256.New(), begin} }

// link continues it by one frame.
func (c *chainer) link(frame []byte) {
	c.h.Reset()
	c.h.Write(c.sum[:])
	c.h.Write(frame)
	c.h.Sum(c.sum[:0])
}
