package sealed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"batchwarden/platform/lockmem"
	"batchwarden/vault/snapshot"
)

// compactAbove is how much of a file may be out of force before a smaller one takes its place.
const compactAbove = 1 << 20

// spareBatches is how many keys of batches that nothing in the vault uses stay in memory: of batches
// that are just being made, and of those whose last entries a snapshot in use may still name.
const spareBatches = 64

// Change is one step of the vault. What it does not mention stays.
type Change struct {
	Generation uint64 // of the batch that everything in Put, and Token, is sealed with; 0 when there is neither
	Put        []Record
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

// Apply makes the change and returns nil once it is on the disk, all of it. When it fails the store
// goes on with what it held before; on the disk the change is whole or absent.
func (s *Store) Apply(ctx context.Context, c Change) error {
	if err := s.begin(); err != nil {
		return fmt.Errorf("sealed: %w", err)
	}
	defer s.users.Done()
	s.writing.Lock()
	defer s.writing.Unlock()
	step, err := s.plan(ctx, &c)
	if err != nil {
		return err
	}
	if step.empty() {
		return nil
	}
	// Nobody else changes the store while writing is held, so what is planned stays true.
	entries := step.after(s.entries)
	if s.file == nil || s.worthRewriting(step, entries) {
		err = s.rewriteWith(ctx, step, entries)
	} else {
		err = s.append(ctx, step, entries)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failed = err.Error()
		return err
	}
	s.failed = ""
	return nil
}

// step is a change that was checked and sealed.
type step struct {
	generation uint64
	batch      []byte // payload, when the file does not have it yet
	puts       []*put
	removes    []tag
	token      *Token
	state      json.RawMessage
	box        []byte
}

func (s *step) empty() bool {
	return len(s.puts) == 0 && len(s.removes) == 0 && s.token == nil && s.box == nil
}

// after returns the entries as they will be.
func (s *step) after(entries map[tag]*put) map[tag]*put {
	next := maps.Clone(entries)
	for _, p := range s.puts {
		next[p.tag] = p
	}
	for _, t := range s.removes {
		delete(next, t)
	}
	return next
}

// plan checks the change and seals what is still open. Every record is opened once: nothing that could
// not be served later gets into the vault.
func (s *Store) plan(ctx context.Context, c *Change) (*step, error) {
	batch := s.batch(c.Generation)
	switch {
	case len(c.Put)+len(c.Remove) > maxItems || len(s.entries)+len(c.Put) > maxItems:
		return nil, fmt.Errorf("sealed: more than %d entries", maxItems)
	case len(c.State) > maxState:
		return nil, fmt.Errorf("sealed: a state of %d octets", len(c.State))
	case (len(c.Put) > 0 || c.Token != nil) && batch == nil:
		return nil, fmt.Errorf("sealed: there is no key of batch %d", c.Generation)
	}
	st := &step{generation: c.Generation}
	if err := s.planPuts(ctx, c, batch, st); err != nil {
		return nil, err
	}
	tags, err := s.ring.tags(ctx, c.Remove)
	if err != nil {
		return nil, err
	}
	for i, t := range tags {
		if slices.ContainsFunc(st.puts, func(p *put) bool { return p.tag == t }) {
			return nil, fmt.Errorf("sealed: %s is put and removed at once", c.Remove[i])
		}
		if s.entries[t] != nil && !slices.Contains(st.removes, t) {
			st.removes = append(st.removes, t)
		}
	}
	if t := c.Token; t != nil {
		if t.Generation != c.Generation || len(t.Box) <= boxed || len(t.Box) > maxToken {
			return nil, fmt.Errorf("sealed: a token of batch %d and %d octets", t.Generation, len(t.Box))
		}
		st.token = &Token{t.Generation, slices.Clone(t.Box)}
	}
	if (len(st.puts) > 0 || st.token != nil) && !s.inFile(c.Generation) {
		st.batch = batch
	}
	if c.State != nil && string(c.State) != string(s.state) {
		st.state = slices.Clone(c.State)
		st.box, err = s.ring.seal(ctx, c.State, s.ring.state)
	}
	return st, err
}

func (s *Store) planPuts(ctx context.Context, c *Change, batch []byte, st *step) error {
	ids := make([]snapshot.ID, len(c.Put))
	puts := make([]*put, len(c.Put))
	for i := range c.Put {
		r := &c.Put[i]
		ids[i] = r.ID
		if r.Generation != c.Generation || r.Generation == 0 {
			return fmt.Errorf("sealed: %s: of batch %d, not %d", r.ID, r.Generation, c.Generation)
		}
		if len(r.Head) > maxHead {
			return fmt.Errorf("sealed: %s: a head of %d octets", r.ID, len(r.Head))
		}
		puts[i] = &put{generation: r.Generation, head: slices.Clone(r.Head)}
		if len(r.Secret) > 0 {
			puts[i].secret = slices.Clone(r.Secret)
		}
	}
	if len(puts) == 0 {
		return nil
	}
	tags, err := s.ring.tags(ctx, ids)
	if err != nil {
		return err
	}
	seen := make(map[tag]bool, len(tags))
	for i, t := range tags {
		if old := s.entries[t]; seen[t] || old != nil && old.generation >= c.Generation {
			return fmt.Errorf("sealed: %s: put twice, or of an older batch than what is there", ids[i])
		}
		seen[t] = true
		puts[i].tag = t
	}
	for at := 0; at < len(puts); at += 256 {
		some := puts[at:min(at+256, len(puts))]
		texts, err := s.ring.openHeads(ctx, batch, some, true)
		if err != nil {
			return err
		}
		for i, text := range texts {
			if err := c.Put[at+i].agrees(text, some[i]); err != nil {
				return fmt.Errorf("sealed: %s: %w", ids[at+i], err)
			}
		}
	}
	st.puts = puts
	return nil
}

// agrees holds the text of a head against what the record says outside.
func (r *Record) agrees(text []byte, p *put) error {
	if text == nil {
		return errHead
	}
	e, err := parseHead(text)
	if err != nil {
		return err
	}
	if e.ID != r.ID || e.Generation != r.Generation || e.Version != r.Version || !e.Created.Equal(r.Created) {
		return errors.New("the head says something else than the record")
	}
	return checkSecret(&e, p.password())
}

// inFile says whether the file has the key of the batch: something that uses it is there.
func (s *Store) inFile(generation uint64) bool {
	return s.used(s.entries, s.token)[generation]
}

// used returns the generations that entries and token are sealed with.
func (s *Store) used(entries map[tag]*put, token *Token) map[uint64]bool {
	used := map[uint64]bool{}
	for _, p := range entries {
		used[p.generation] = true
	}
	if token != nil {
		used[token.Generation] = true
	}
	return used
}

func (s *Store) worthRewriting(st *step, entries map[tag]*put) bool {
	live := int64(len(s.head)) + int64(len(s.box))
	added := int64(len(st.box))
	for _, p := range entries {
		live += p.size()
	}
	for _, p := range st.puts {
		added += p.size()
	}
	garbage := s.size + added - live
	return garbage > live && garbage > compactAbove
}

// append writes the step behind the last commit.
func (s *Store) append(ctx context.Context, st *step, entries map[tag]*put) error {
	g := s.group(st)
	out, chain, err := g.commit(ctx, s, s.chain)
	if err != nil {
		return err
	}
	if s.size+int64(len(out)) > maxFile {
		return s.rewriteWith(ctx, st, entries)
	}
	if _, err := s.file.WriteAt(out, s.size); err != nil {
		err = fmt.Errorf("sealed: write: %w", err)
		// What was written of it is no commit. If it cannot be cut off, the file is not used again.
		if cut := s.file.Truncate(s.size); cut != nil {
			err = errors.Join(err, s.abandon())
		}
		return err
	}
	if err := s.file.Sync(); err != nil {
		// What is on the disk now nobody knows: after a failed fsync the kernel forgets what it could
		// not write. The next change writes a new file.
		return errors.Join(fmt.Errorf("sealed: fsync: %w", err), s.abandon())
	}
	s.done(st, entries, chain, s.size+int64(len(out)))
	return nil
}

func (s *Store) abandon() error {
	err := s.file.Close()
	s.file = nil
	return err
}

// done makes the step that was written the state of the store.
func (s *Store) done(st *step, entries map[tag]*put, chain [sumSize]byte, size int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.entries, s.chain, s.size = entries, chain, size
	s.seq++
	if st.token != nil {
		s.token = st.token
	}
	if st.box != nil {
		s.state, s.box = st.state, st.box
	}
	s.prune()
}

// prune forgets keys that nothing uses, but for the newest. s.mu is held.
func (s *Store) prune() {
	used := s.used(s.entries, s.token)
	var spare []uint64
	for g := range s.batches {
		if !used[g] {
			spare = append(spare, g)
		}
	}
	slices.Sort(spare)
	for _, g := range spare[:max(0, len(spare)-spareBatches)] {
		delete(s.batches, g)
	}
}
