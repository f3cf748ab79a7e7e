package sealed

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// building is a group of frames that is being written.
type building struct {
	out    []byte
	frames uint32
	items  []item
	starts []int
}

func (b *building) add(t frameType, parts ...[]byte) {
	b.starts = append(b.starts, len(b.out))
	b.out = appendFrame(b.out, t, parts...)
	b.frames++
}

func (b *building) put(p *put) {
	b.starts = append(b.starts, len(b.out))
	b.out = p.append(b.out)
	b.frames++
	b.items = append(b.items, item{p.tag, p.generation})
}

func (b *building) token(t *Token) {
	b.add(tokenFrame, binary.BigEndian.AppendUint64(nil, t.Generation), t.Box)
}

// group returns the frames of a step, behind the mark of the last commit.
func (s *Store) group(st *step) *building {
	b := &building{}
	b.starts = append(b.starts, 0)
	b.out = append(b.out, s.mark...)
	b.frames++
	if st.batch != nil {
		b.add(batchFrame, st.batch)
	}
	for _, p := range st.puts {
		b.put(p)
	}
	for _, t := range st.removes {
		b.add(removeFrame, t[:])
		b.items = append(b.items, item{tag: t})
	}
	if st.token != nil {
		b.token(st.token)
	}
	if st.box != nil {
		b.add(stateFrame, st.box)
	}
	if st.batch != nil {
		// Once more, so that one bad sector does not take every record of the batch along.
		b.add(batchFrame, st.batch)
	}
	return b
}

// commit ends the group, which stands behind chain, with its commit and returns it, and the chain
// behind that.
func (b *building) commit(ctx context.Context, s *Store, chain [sumSize]byte) ([]byte, [sumSize]byte, error) {
	hash := newChainer(chain)
	for i, start := range b.starts {
		end := len(b.out)
		if i+1 < len(b.starts) {
			end = b.starts[i+1]
		}
		hash.link(b.out[start:end])
	}
	c := commit{chain: hash.sum, seq: s.seq + 1, generation: s.Generation(), frames: b.frames, items: b.items}
	box, err := s.ring.seal(ctx, c.encode(), s.ring.commit)
	if err != nil {
		return nil, chain, err
	}
	start := len(b.out)
	out := appendFrame(b.out, commitFrame, box)
	hash.link(out[start:])
	return out, hash.sum, nil
}

// rewrite writes all that is in force into a new file, in the place of the old one. The old file is not
// written any more, whichever of the two is there when it fails.
func (s *Store) rewrite(ctx context.Context) error {
	if err := s.quarantine(); err != nil {
		return err
	}
	b := &building{out: make([]byte, 0, int64(len(s.head)+len(s.box))+s.live+s.overhead())}
	b.out = append(b.out, s.head...)
	generations := slices.Sorted(maps.Keys(s.uses))
	addBatches := func() {
		for _, g := range generations {
			if payload := s.batch(g); payload != nil {
				b.add(batchFrame, payload)
			}
		}
	}
	addBatches()
	for _, p := range sorted(s.entries) {
		b.put(p)
	}
	if s.token != nil {
		b.token(s.token)
	}
	if s.box != nil {
		b.add(stateFrame, s.box)
	}
	addBatches() // once more, as in group
	out, chain, err := b.commit(ctx, s, sha256.Sum256(s.head))
	if err != nil {
		return err
	}
	size := int64(len(out))
	mark, err := s.ring.markOf(ctx, s.seq+1)
	if err != nil {
		return err
	}
	f, err := replace(s.files, logName, append(out, mark...))
	if err = errors.Join(err, s.abandon()); err != nil {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		return fmt.Errorf("writing a new file: %w", err)
	}
	s.file = f
	s.written(chain, size, mark)
	return nil
}

// overhead is about how much a file needs beside its entries.
func (s *Store) overhead() int64 {
	n := int64(frameHead + boxed + commitFixed + 2*frameHead + markSize)
	n += int64(len(s.entries)) * itemSize
	n += int64(len(s.uses)) * 2 * (frameHead + batchSize)
	if s.token != nil {
		n += int64(len(s.token.Box)) + frameHead + 8
	}
	return n
}
