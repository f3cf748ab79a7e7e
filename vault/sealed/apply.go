package sealed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"batchwarden/platform/lockmem"
	"batchwarden/vault/snapshot"
)

// spareOctets is how much of a file may be out of force before a smaller one takes its place.
const spareOctets = 1 << 20

// spareBatches is how many keys of batches that nothing in the vault uses stay in memory: of batches
// that are just being made, and of those whose last entries a snapshot in use may still name.
const spareBatches = 64

// Change is one step of the vault. What it does not mention stays.
type Change struct {
	Generation uint64 // of the batch that everything in Put and Opened, and Token, is sealed with; 0 when there is neither
	Put        []Record
	Opened     []Opened // put too, without being opened once more
	Remove     []snapshot.ID
	Token      *Token
	State      json.RawMessage // the caller's own
}

// NewBatch calls f with a new key for a batch of records, in a borrowed slot, and the batch's
// generation, higher than any before. The key goes into the vault with the first change that uses it.
func (s *Store) NewBatch(ctx context.Context, f func(generation uint64, key *lockmem.Buffer) error) error {
	if err := s.begin(); err != nil {
		return fmt.Errorf("sealed: %w", err)
	}
	defer s.users.Done()
	s.mu.Lock()
	s.high++
	generation := s.high
	s.mu.Unlock()
	return s.ring.arena.Borrow(ctx, func(b *lockmem.Buffer) error {
		payload, err := s.ring.newBatch(generation, b)
		if err != nil {
			return fmt.Errorf("sealed: %w", err)
		}
		s.mu.Lock()
		s.batches[generation] = payload
		s.prune()
		s.mu.Unlock()
		return f(generation, b)
	})
}

// WithBatch calls f with the key of an earlier batch, in a borrowed slot.
func (s *Store) WithBatch(ctx context.Context, generation uint64, f func(key *lockmem.Buffer) error) error {
	if err := s.begin(); err != nil {
		return fmt.Errorf("sealed: %w", err)
	}
	defer s.users.Done()
	payload := s.batch(generation)
	if payload == nil {
		return fmt.Errorf("sealed: there is no key of batch %d", generation)
	}
	return s.ring.arena.Borrow(ctx, func(b *lockmem.Buffer) error {
		key, ok := s.ring.unwrap(payload, b)
		if !ok {
			return fmt.Errorf("sealed: the key of batch %d does not authenticate", generation)
		}
		copy(b.Room()[:32], key[:])
		b.SetLen(32)
		return f(b)
	})
}

// Apply makes the change and returns nil once it is on the disk, all of it. A change that is refused
// changes nothing. ErrUnwritten reports that the change is in force here, in memory, and that the disk
// did not take it: there it is whole or absent. Every later Apply, also one of nothing, then tries to
// write all that is in force.
func (s *Store) Apply(ctx context.Context, c Change) error {
	if err := s.begin(); err != nil {
		return fmt.Errorf("sealed: %w", err)
	}
	defer s.users.Done()
	s.writing.Lock()
	defer s.writing.Unlock()
	st, err := s.plan(ctx, &c)
	if err != nil {
		return err
	}
	if st.empty() && s.file != nil {
		return nil
	}
	rewrite := s.file == nil || s.worthRewriting(st)
	s.enact(st)
	if rewrite {
		err = s.rewrite(ctx)
	} else {
		err = s.append(ctx, st)
	}
	if err != nil {
		// The file lacks the change, or nobody knows whether it does.
		err = errors.Join(fmt.Errorf("sealed: %w: %w", ErrUnwritten, err), s.abandon())
	}
	s.failing(err)
	return err
}

// step is a change that was checked and sealed.
type step struct {
	batch   []byte // payload, when the file does not have it yet
	puts    []*put
	removes []tag
	token   *Token
	state   json.RawMessage
	box     []byte
}

func (st *step) empty() bool {
	return len(st.puts) == 0 && len(st.removes) == 0 && st.token == nil && st.box == nil
}

// size is how much of the file the step takes, but for its commit.
func (st *step) size() int64 {
	n := int64(len(st.box))
	for _, p := range st.puts {
		n += p.size()
	}
	return n
}

// plan checks the change and seals what is still open. Every record is opened once: nothing that could
// not be served later gets into the vault.
func (s *Store) plan(ctx context.Context, c *Change) (*step, error) {
	batch := s.batch(c.Generation)
	puts := len(c.Put) + len(c.Opened)
	switch {
	case puts+len(c.Remove) > maxItems || len(s.entries)+puts > maxItems:
		return nil, fmt.Errorf("sealed: more than %d entries", maxItems)
	case len(c.State) > maxState:
		return nil, fmt.Errorf("sealed: a state of %d octets", len(c.State))
	case (puts > 0 || c.Token != nil) && batch == nil:
		return nil, fmt.Errorf("sealed: there is no key of batch %d", c.Generation)
	}
	st := &step{}
	if err := s.planPuts(ctx, c, st); err != nil {
		return nil, err
	}
	tags, err := s.ring.tags(ctx, c.Remove)
	if err != nil {
		return nil, err
	}
	put := make(map[tag]bool, len(st.puts))
	for _, p := range st.puts {
		put[p.tag] = true
	}
	removed := make(map[tag]bool, len(tags))
	for i, t := range tags {
		if put[t] {
			return nil, fmt.Errorf("sealed: %s is put and removed at once", c.Remove[i])
		}
		if s.entries[t] != nil && !removed[t] {
			removed[t] = true
			st.removes = append(st.removes, t)
		}
	}
	if t := c.Token; t != nil {
		if t.Generation != c.Generation || len(t.Box) <= boxed || len(t.Box) > maxToken {
			return nil, fmt.Errorf("sealed: a token of batch %d and %d octets", t.Generation, len(t.Box))
		}
		st.token = &Token{t.Generation, slices.Clone(t.Box)}
	}
	if (len(st.puts) > 0 || st.token != nil) && s.uses[c.Generation] == 0 {
		st.batch = batch
	}
	if c.State != nil && string(c.State) != string(s.state) {
		st.state = slices.Clone(c.State)
		if st.box, err = s.ring.seal(ctx, c.State, s.ring.state); err != nil {
			return nil, err
		}
	}
	if s.live+int64(len(s.box))+st.size() > maxLive {
		return nil, fmt.Errorf("sealed: a vault of over %d octets", maxLive)
	}
	return st, nil
}

// planPuts takes what is to be put, and opens what was not opened yet.
func (s *Store) planPuts(ctx context.Context, c *Change, st *step) error {
	all := c.Opened
	if len(c.Put) > 0 {
		records := make([]Record, len(c.Put))
		for i, r := range c.Put {
			r.Head, r.Secret = slices.Clone(r.Head), slices.Clone(r.Secret)
			records[i] = r
		}
		opened, err := s.openRecords(ctx, records)
		if err != nil {
			return fmt.Errorf("sealed: %w", err)
		}
		all = append(slices.Clip(all), opened...)
	}
	seen := make(map[tag]bool, len(all))
	st.puts = make([]*put, len(all))
	for i := range all {
		o := &all[i]
		switch {
		case o.Err != nil:
			return o.Err
		case o.store != s:
			return errors.New("sealed: a record that this vault did not open")
		case o.put.generation != c.Generation:
			return fmt.Errorf("sealed: %s: of batch %d, not %d", o.Held.ID, o.put.generation, c.Generation)
		}
		t := o.put.tag
		if old := s.entries[t]; seen[t] || old != nil && old.generation >= c.Generation {
			return fmt.Errorf("sealed: %s: put twice, or of an older batch than what is there", o.Held.ID)
		}
		seen[t] = true
		st.puts[i] = o.put
	}
	return nil
}

// worthRewriting says whether too much of the file would be out of force with the step behind it. What
// the step replaces or removes counts the next time.
func (s *Store) worthRewriting(st *step) bool {
	live := int64(len(s.head)+len(s.box)) + s.live
	added := st.size()
	garbage := s.size - live
	return s.size+added > maxFile || garbage > live && garbage > s.spare
}

// append writes the step behind the last commit.
func (s *Store) append(ctx context.Context, st *step) error {
	out, chain, err := s.group(st).commit(ctx, s, s.chain)
	if err != nil {
		return err
	}
	mark, err := s.ring.markOf(ctx, s.seq+1)
	if err != nil {
		return err
	}
	if _, err := s.file.WriteAt(out, s.size); err != nil {
		// What was written of it is no commit. If it cannot be cut off, the next Open does that.
		return fmt.Errorf("write: %w", errors.Join(err, s.file.Truncate(s.size)))
	}
	if err := s.file.Sync(); err != nil {
		// What is on the disk now nobody knows: after a failed fsync the kernel forgets what it could
		// not write.
		return fmt.Errorf("fsync: %w", err)
	}
	s.written(chain, s.size+int64(len(out)), mark)
	// The mark tells damage from an interrupted write. Nothing else depends on it, so it waits for no
	// fsync, and the next change writes it again.
	if _, err := s.file.WriteAt(mark, s.size); err != nil {
		return fmt.Errorf("write: %w", err)
	}
	return nil
}

// abandon gives the file up: the next change writes a new one.
func (s *Store) abandon() error {
	if s.file == nil {
		return nil
	}
	err := s.file.Close()
	s.file = nil
	return err
}

// enact makes the step the state of the store.
func (s *Store) enact(st *step) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range st.puts {
		s.drop(p.tag)
		s.entries[p.tag] = p
		s.live += p.size()
		s.uses[p.generation]++
	}
	for _, t := range st.removes {
		s.drop(t)
	}
	if st.token != nil {
		if s.token != nil {
			s.unuse(s.token.Generation)
		}
		s.token = st.token
		s.uses[st.token.Generation]++
	}
	if st.box != nil {
		s.state, s.box = st.state, st.box
	}
	s.prune()
}

// drop and unuse forget an entry, and one use of a batch's key. s.mu is held.
func (s *Store) drop(t tag) {
	if p := s.entries[t]; p != nil {
		delete(s.entries, t)
		s.live -= p.size()
		s.unuse(p.generation)
	}
}

func (s *Store) unuse(generation uint64) {
	if s.uses[generation]--; s.uses[generation] == 0 {
		delete(s.uses, generation)
	}
}

// written notes that the file holds all that is in force.
func (s *Store) written(chain [sumSize]byte, size int64, mark []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.chain, s.size, s.mark = chain, size, mark
	s.seq++
}

// prune forgets keys that nothing uses, but for the newest. s.mu is held.
func (s *Store) prune() {
	if len(s.batches) <= len(s.uses)+spareBatches {
		return
	}
	var spare []uint64
	for g := range s.batches {
		if s.uses[g] == 0 {
			spare = append(spare, g)
		}
	}
	slices.Sort(spare)
	for _, g := range spare[:max(0, len(spare)-spareBatches)] {
		delete(s.batches, g)
	}
}
