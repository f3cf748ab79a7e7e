package sealed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	"batchwarden/vault/snapshot"
)

// content is what a log amounts to after its last commit.
type content struct {
	batches    map[uint64][]byte // payload of the batch's frame, by generation
	entries    map[tag]*put
	token      *Token
	stateBox   []byte
	seq        uint64
	generation uint64
	chain      [sumSize]byte
	end        int      // where the last commit ends
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
}

// reader walks over a log.
type reader struct {
	ctx  context.Context
	ring *ring
	data []byte
	c    *content
	any  bool // a commit was seen
}

// read returns what the log after its header amounts to. What does not authenticate is left out and
// named in faults; where that may hide a removal or a change, what it may have concerned is left out
// too. Octets behind the last commit that are no more than an interrupted write are left out without a
// fault.
func read(ctx context.Context, r *ring, data []byte, headerEnd int) (*content, error) {
	rd := &reader{ctx: ctx, ring: r, data: data, c: newContent(headerEnd, data[:headerEnd])}
	for {
		more, err := rd.group()
		if err != nil || !more {
			return rd.c, err
		}
	}
}

// group reads to the next commit that opens and takes its group in. False: there is no further one.
func (r *reader) group() (bool, error) {
	g := group{at: r.c.end, chain: r.c.chain, clean: true}
	for at := g.at; at < len(r.data); {
		f, err := frameAt(r.data, at)
		if err != nil {
			next, ok := r.resync(at+1, err == errShort)
			if !ok {
				r.tail(&g, at)
				return false, nil
			}
			g.clean = false
			at = next
			continue
		}
		at += len(f.whole)
		if f.kind != commitFrame {
			g.frames = append(g.frames, f)
			g.chain = link(g.chain, f.whole)
			continue
		}
		text, ok, err := r.ring.open(r.ctx, f.payload, r.ring.commit)
		if err != nil {
			return false, err
		}
		c, parsed := parseCommit(text)
		if !ok || !parsed {
			g.clean = false
			continue
		}
		return true, r.take(&g, c, f, at)
	}
	r.tail(&g, len(r.data))
	return false, nil
}

// resync finds the next frame at or behind at. Where the file only seems to end within a frame,
// nothing but a commit that opens shows that it goes on.
func (r *reader) resync(at int, short bool) (int, bool) {
	for ; at+frameHead <= len(r.data); at++ {
		if k := frameType(r.data[at]); k < batchFrame || k > commitFrame {
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
func (r *reader) tail(g *group, stop int) {
	rest := r.data[stop:]
	torn := g.clean && (len(rest) == 0 || allZero(rest))
	if !torn && g.clean {
		_, err := frameAt(r.data, stop)
		torn = err == errShort
	}
	if !torn {
		r.fault("%d octets behind commit %d do not authenticate", len(r.data)-r.c.end, r.c.seq)
	}
}

func allZero(b []byte) bool { return len(bytes.Trim(b, "\x00")) == 0 }

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
		// A piece of the log that was there before, repeated. Its commit says nothing new.
		r.fault("commit %d follows commit %d", c.seq, r.c.seq)
		r.c.end = end
		return nil
	case !first && c.seq != r.c.seq+1:
		// What the missing commits removed is not known, so nothing from before them is served.
		r.fault("commits %d to %d are missing: %d entries are given up", r.c.seq+1, c.seq-1, len(r.c.entries))
		clear(r.c.entries)
	}
	var err error
	if g.clean && g.chain == c.chain && int64(c.frames) == int64(len(g.frames)) {
		err = r.trust(g, c)
	} else {
		err = r.salvage(g, c)
	}
	r.c.seq, r.c.generation = c.seq, max(c.generation, r.c.generation)
	r.c.chain = link(c.chain, f.whole)
	r.c.end = end
	return err
}

// trust takes in a group that its commit vouches for.
func (r *reader) trust(g *group, c *commit) error {
	for _, f := range g.frames {
		ok := true
		switch f.kind {
		case batchFrame:
			if ok = len(f.payload) == batchSize; ok {
				r.c.batches[binary.BigEndian.Uint64(f.payload)] = bytes.Clone(f.payload)
			}
		case putFrame:
			var p put
			if p, ok = parsePut(f.payload); ok {
				r.c.entries[p.tag] = &p
			}
		case removeFrame:
			if ok = len(f.payload) == tagSize; ok {
				delete(r.c.entries, tag(f.payload))
			}
		case tokenFrame:
			ok = r.token(f.payload)
		case stateFrame:
			r.c.stateBox = bytes.Clone(f.payload)
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
			if p, ok := parsePut(f.payload); ok {
				it := item{p.tag, p.generation}
				found[it] = append(found[it], &p)
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
	batch := r.c.batches[it.generation]
	if batch == nil || len(puts) == 0 {
		return nil, nil
	}
	texts, err := r.ring.openHeads(r.ctx, batch, puts, true)
	if err != nil {
		return nil, err
	}
	for i, text := range texts {
		e, err := parseHead(text)
		if err != nil || e.Generation != it.generation || checkSecret(&e, puts[i].password()) != nil {
			continue
		}
		tags, err := r.ring.tags(r.ctx, []snapshot.ID{e.ID})
		if err != nil {
			return nil, err
		}
		if tags[0] == it.tag {
			return puts[i], nil
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
