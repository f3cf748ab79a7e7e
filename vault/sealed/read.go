package sealed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
)

// content is what a log amounts to after its last commit. Its entries share the octets of the log.
type content struct {
	batches    map[uint64][]byte // payload of the batch's frame, by generation
	entries    map[tag]*put
	token      *Token
	stateBox   []byte
	seq        uint64
	generation uint64
	chain      [sumSize]byte
	end        int      // where the last commit ends
	mark       []byte   // of the last commit, when it and nothing else is behind that; else nil
	faults     []string // what did not authenticate; nothing of that is in here
}

func newContent(headerEnd int, h []byte) *content {
	return &content{
		batches: map[uint64][]byte{}, entries: map[tag]*put{},
		chain: sha256.Sum256(h), end: headerEnd,
	}
}

// group is the frames up to a commit.
type group struct {
	at     int
	frames []frame
	chain  [sumSize]byte // over all before it and its frames
	clean  bool          // nothing between the frames that is none
	whole  bool          // it is what its commit says
	shut   []int         // where in it there are commits that do not open
}

func (g *group) count(t frameType) (n int) {
	for _, f := range g.frames {
		if f.kind == t {
			n++
		}
	}
	return n
}

// usualFrame is about how long most frames are, at least.
const usualFrame = 256

// reader walks over a log.
type reader struct {
	ctx   context.Context
	ring  *ring
	data  []byte
	begin int // where the header ends
	c     *content
	any   bool // a commit was seen
	hash  *chainer
	room  []frame // for the frames of a group, one after the other
}

// read returns what the log after its header amounts to. What does not authenticate is left out and
// named in faults; where that may hide a removal or a change, what it may have concerned is left out
// too. What may be no more than an interrupted write behind the last commit is left out without a fault.
func read(ctx context.Context, r *ring, data []byte, headerEnd int) (*content, error) {
	rd := &reader{ctx: ctx, ring: r, data: data, begin: headerEnd, c: newContent(headerEnd, data[:headerEnd])}
	rd.hash = newChainer(rd.c.chain)
	rd.room = make([]frame, 0, len(data)/usualFrame)
	for {
		more, err := rd.group()
		if err != nil || !more {
			return rd.c, err
		}
	}
}

// group reads to the next commit that opens and takes its group in. False: there is no further one.
func (r *reader) group() (bool, error) {
	g := group{at: r.c.end, clean: true, frames: r.room[:0]}
	r.hash.sum = r.c.chain
	for at := g.at; at < len(r.data); {
		f, err := frameAt(r.data, at)
		if err != nil {
			next, ok := r.resync(at+1, err == errShort)
			if !ok {
				return false, r.tail(&g, at)
			}
			g.clean = false
			at = next
			continue
		}
		at += len(f.whole)
		if f.kind != commitFrame {
			g.frames = append(g.frames, f)
			r.hash.link(f.whole)
			continue
		}
		text, ok, err := r.ring.open(r.ctx, f.payload, r.ring.commit)
		if err != nil {
			return false, err
		}
		c, parsed := parseCommit(text)
		if !ok || !parsed {
			g.clean = false
			g.shut = append(g.shut, at-len(f.whole))
			continue
		}
		g.chain = r.hash.sum
		g.whole = g.clean && g.chain == c.chain && int64(c.frames) == int64(len(g.frames))
		if r.any && !g.whole && c.seq == r.c.seq+1 {
			durable, err := r.durable(c.seq, r.c.end)
			if err != nil || !durable {
				return false, err
			}
		}
		return true, r.take(&g, c, f, at)
	}
	return false, r.tail(&g, len(r.data))
}

// durable says whether what lies at or behind at shows that commit seq was on the disk, all of it: a
// mark of it or of a later one, or a later commit. Both are written only then.
func (r *reader) durable(seq uint64, at int) (bool, error) {
	for ; at+frameHead <= len(r.data); at++ {
		if k := frameType(r.data[at]); k != markFrame && k != commitFrame {
			continue
		}
		f, err := frameAt(r.data, at)
		if err != nil {
			continue
		}
		if f.kind == markFrame {
			if n, ok, err := r.ring.marks(r.ctx, f); err != nil || ok && n >= seq {
				return ok, err
			}
			continue
		}
		text, ok, err := r.ring.open(r.ctx, f.payload, r.ring.commit)
		if err != nil {
			return false, err
		}
		if c, parsed := parseCommit(text); ok && parsed && c.seq > seq {
			return true, nil
		}
	}
	return false, nil
}

// resync finds the next frame at or behind at. Where the file only seems to end within a frame,
// nothing but a commit that opens shows that it goes on.
func (r *reader) resync(at int, short bool) (int, bool) {
	for ; at+frameHead <= len(r.data); at++ {
		if k := frameType(r.data[at]); k < batchFrame || k > markFrame {
			continue
		}
		f, err := frameAt(r.data, at)
		if err != nil {
			continue
		}
		if !short {
			return at, true
		}
		if f.kind != commitFrame {
			continue
		}
		if _, ok, err := r.ring.open(r.ctx, f.payload, r.ring.commit); err == nil && ok {
			return at, true
		}
	}
	return 0, false
}

// tail judges what lies behind the last commit: frames and then, at stop, something that is none.
func (r *reader) tail(g *group, stop int) error {
	rest := r.data[r.c.end:]
	durable, err := r.durable(r.c.seq+1, r.c.end)
	if err != nil {
		return err
	}
	mark, err := r.ring.markOf(r.ctx, r.c.seq)
	if err != nil {
		return err
	}
	if bytes.Equal(rest, mark) {
		r.c.mark = mark
	}
	if durable {
		r.giveUp(g)
	}
	if durable || !r.interrupted(g, mark, stop) {
		r.fault("%d octets behind commit %d do not authenticate", len(rest), r.c.seq)
	}
	return nil
}

// giveUp leaves the entries out that a group without a commit that opens would have changed: they are
// not in force any more.
func (r *reader) giveUp(g *group) {
	for _, f := range g.frames {
		if (f.kind == putFrame || f.kind == removeFrame) && len(f.payload) >= tagSize {
			delete(r.c.entries, tag(f.payload[:tagSize]))
		}
	}
}

// interrupted says whether a write that did not end may have left what is behind the last commit: parts
// of sectors may be missing, and are then zeros, as well as the end.
func (r *reader) interrupted(g *group, mark []byte, stop int) bool {
	rest := bytes.TrimRight(r.data[r.c.end:], "\x00")
	if len(rest) <= len(mark) {
		return partOf(rest, mark)
	}
	for i, f := range g.frames {
		if f.kind == markFrame && (i > 0 || !partOf(f.whole, mark)) {
			return false
		}
	}
	if r.replayed(g) || r.strange(g, len(mark)) {
		return false
	}
	_, err := frameAt(r.data, stop)
	if g.clean && err == errShort { // the end of the file is one too
		return true
	}
	if begin := r.data[r.c.end:][:len(mark)]; !partOf(begin, mark) {
		return false // every write begins with it
	} else if !bytes.Equal(begin, mark) {
		return true
	}
	if r.data[r.c.end+len(mark)] == 0 { // the mark was there before
		return true
	}
	return r.torn(r.c.end, len(r.data))
}

// torn says whether a part of a sector may be missing between from and to, where something ends.
func (r *reader) torn(from, to int) bool {
	for at := from; at < to; {
		next := min((at/sector+1)*sector, to)
		if at%sector == 0 && r.data[at] == 0 || r.data[next-1] == 0 {
			return true
		}
		at = next
	}
	return false
}

// strange says whether the group has a commit that no write of this vault left: all of it is there, and
// it does not open; or it follows the mark, as though nothing had been changed.
func (r *reader) strange(g *group, mark int) bool {
	return slices.ContainsFunc(g.shut, func(at int) bool {
		f, _ := frameAt(r.data, at) // as when the group was read
		return at == r.c.end+mark || !r.torn(at+frameHead, at+len(f.whole))
	})
}

// replayed says whether one of the frames was there before. What is sealed anew is never the same.
func (r *reader) replayed(g *group) bool {
	begins := map[string]bool{}
	key := func(f frame) string { return string(f.payload[:min(len(f.payload), 256)]) }
	sealed := func(f frame) bool { return f.kind == putFrame || f.kind == tokenFrame || f.kind == stateFrame }
	for _, f := range g.frames {
		if sealed(f) {
			begins[key(f)] = true
		}
	}
	if len(begins) == 0 {
		return false
	}
	for at := r.begin; at < r.c.end; {
		f, err := frameAt(r.data[:r.c.end], at)
		if err != nil {
			at++
			continue
		}
		if sealed(f) && begins[key(f)] {
			return true
		}
		at += len(f.whole)
	}
	return false
}

// partOf says whether b is the begin of whole, but for zeros.
func partOf(b, whole []byte) bool {
	for i, c := range b {
		if i >= len(whole) || c != whole[i] && c != 0 {
			return false
		}
	}
	return true
}

func (r *reader) fault(format string, args ...any) {
	if len(r.c.faults) < 100 {
		r.c.faults = append(r.c.faults, fmt.Sprintf(format, args...))
	}
}

// take takes in a group whose commit opens, and goes on behind it.
func (r *reader) take(g *group, c *commit, f frame, end int) error {
	first := !r.any
	r.any = true
	switch {
	case !first && c.seq <= r.c.seq:
		// A piece of the log that was there before, repeated. Its commit says nothing new. It may be in
		// the place of another.
		durable, err := r.durable(r.c.seq+1, r.c.end)
		if err != nil {
			return err
		}
		if durable {
			r.giveUp(g)
		}
		r.fault("commit %d follows commit %d", c.seq, r.c.seq)
		r.c.end = end
		return nil
	case !first && c.seq != r.c.seq+1:
		// What the missing commits removed is not known, so nothing from before them is served.
		r.fault("commits %d to %d are missing: %d entries are given up", r.c.seq+1, c.seq-1, len(r.c.entries))
		clear(r.c.entries)
	}
	var err error
	if g.whole {
		err = r.trust(g, c)
	} else {
		err = r.salvage(g, c)
	}
	r.c.seq, r.c.generation = c.seq, max(c.generation, r.c.generation)
	r.hash.sum = c.chain
	r.hash.link(f.whole)
	r.c.chain = r.hash.sum
	r.c.end = end
	return err
}

// trust takes in a group that its commit vouches for.
func (r *reader) trust(g *group, c *commit) error {
	puts := make([]put, g.count(putFrame))
	if len(r.c.entries) == 0 {
		r.c.entries = make(map[tag]*put, len(puts))
	}
	for _, f := range g.frames {
		ok := true
		switch f.kind {
		case batchFrame:
			if ok = len(f.payload) == batchSize; ok {
				r.c.batches[binary.BigEndian.Uint64(f.payload)] = bytes.Clone(f.payload)
			}
		case putFrame:
			p := &puts[0]
			puts = puts[1:]
			if ok = p.parse(f.payload); ok {
				r.c.entries[p.tag] = p
			}
		case removeFrame:
			if ok = len(f.payload) == tagSize; ok {
				delete(r.c.entries, tag(f.payload))
			}
		case tokenFrame:
			ok = r.token(f.payload)
		case stateFrame:
			r.c.stateBox = bytes.Clone(f.payload)
		case markFrame:
		default:
			ok = false
		}
		if !ok {
			return fmt.Errorf("sealed: commit %d vouches for a frame of type %d that is none", c.seq, f.kind)
		}
	}
	return nil
}

func (r *reader) token(payload []byte) bool {
	c := cursor{payload, true}
	generation := c.uint64()
	if !c.good || len(c.rest) <= boxed || len(c.rest) > maxToken {
		return false
	}
	r.c.token = &Token{Generation: generation, Box: bytes.Clone(c.rest)}
	return true
}

// salvage takes in what authenticates by itself of a group that is not whole. The commit's list says
// what became of each entry; one whose new record is not here is given up, as the old one is not in
// force any more.
func (r *reader) salvage(g *group, c *commit) error {
	found := map[item][]*put{}
	for _, f := range g.frames {
		switch f.kind {
		case batchFrame:
			if err := r.salvageBatch(f.payload); err != nil {
				return err
			}
		case putFrame:
			p := &put{}
			if p.parse(f.payload) {
				it := item{p.tag, p.generation}
				found[it] = append(found[it], p)
			}
		case stateFrame:
			if _, ok, err := r.ring.open(r.ctx, f.payload, r.ring.state); err != nil {
				return err
			} else if ok {
				r.c.stateBox = bytes.Clone(f.payload)
			}
		case tokenFrame:
			// Only the worker can tell whether it is whole, and does.
			r.token(f.payload)
		}
	}
	lost := 0
	for _, it := range c.items {
		delete(r.c.entries, it.tag)
		if it.generation == 0 {
			continue
		}
		p, err := r.genuine(it, found[it])
		if err != nil {
			return err
		}
		if p == nil {
			lost++
			continue
		}
		r.c.entries[it.tag] = p
	}
	r.fault("commit %d is not whole: of %d entries %d are given up", c.seq, len(c.items), lost)
	return nil
}

func (r *reader) salvageBatch(payload []byte) error {
	ok, err := r.ring.checkBatch(r.ctx, payload)
	if ok {
		r.c.batches[binary.BigEndian.Uint64(payload)] = bytes.Clone(payload)
	}
	return err
}

// genuine returns the one of puts that authenticates as it.
func (r *reader) genuine(it item, puts []*put) (*put, error) {
	if len(puts) == 0 {
		return nil, nil
	}
	o, err := r.ring.openAll(r.ctx, r.c.batches, puts, true)
	if err != nil {
		return nil, fmt.Errorf("sealed: %w", err)
	}
	for i, p := range puts {
		if o.errs[i] == nil && o.tags[i] == it.tag {
			return p, nil
		}
	}
	return nil, nil
}

// password is the length of the password that p seals, 0 for none.
func (p *put) password() int { return max(0, len(p.secret)-boxed-sumSize) }

// sorted returns the entries in the order in which they are written: of generation, then of tag.
func sorted(entries map[tag]*put) []*put {
	all := make([]*put, 0, len(entries))
	for _, p := range entries {
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b *put) int {
		if a.generation != b.generation {
			if a.generation < b.generation {
				return -1
			}
			return 1
		}
		return bytes.Compare(a.tag[:], b.tag[:])
	})
	return all
}
