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

// group returns the frames of a step.
func (s *Store) group(st *step) *building {
	b := &building{}
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
	for i, start := range b.starts {
		end := len(b.out)
		if i+1 < len(b.starts) {
			end = b.starts[i+1]
		}
		chain = link(chain, b.out[start:end])
	}
	c := commit{chain: chain, seq: s.seq + 1, generation: s.Generation(), frames: b.frames, items: b.items}
	box, err := s.ring.seal(ctx, c.encode(), s.ring.commit)
	if err != nil {
		return nil, chain, err
	}
	start := len(b.out)
	out := appendFrame(b.out, commitFrame, box)
	return out, link(chain, out[start:]), nil
}

// rewrite writes what is in force into a new file.
func (s *Store) rewrite(ctx context.Context) error {
	return s.rewriteWith(ctx, &step{}, s.entries)
}

// rewriteWith writes a new file with the step in it, in the place of the old one.
func (s *Store) rewriteWith(ctx context.Context, st *step, entries map[tag]*put) error {
	if err := s.quarantine(); err != nil {
		return err
	}
	token, box := s.token, s.box
	if st.token != nil {
		token = st.token
	}
	if st.box != nil {
		box = st.box
	}
	b := &building{}
	used := s.used(entries, token)
	addBatches := func() {
		for _, g := range slices.Sorted(maps.Keys(used)) {
			if payload := s.batch(g); payload != nil {
				b.add(batchFrame, payload)
			}
		}
	}
	addBatches()
	for _, p := range sorted(entries) {
		b.put(p)
	}
	if token != nil {
		b.token(token)
	}
	if box != nil {
		b.add(stateFrame, box)
	}
	addBatches() // once more, as in group
	out, chain, err := b.commit(ctx, s, sha256.Sum256(s.head))
	if err != nil {
		return err
	}
	if int64(len(s.head)+len(out)) > maxFile {
		return fmt.Errorf("sealed: a vault of %d octets is too large", len(out))
	}
	f, err := replace(s.files, logName, append(slices.Clone(s.head), out...))
	if s.file != nil {
		// The old file is not written any more, whichever of the two is there now.
		err = errors.Join(err, s.abandon())
	}
	if err != nil {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
		return fmt.Errorf("sealed: writing a new file: %w", err)
	}
	s.file = f
	s.done(st, entries, chain, int64(len(s.head)+len(out)))
	return nil
}
