package sealed

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"batchwarden/vault/snapshot"
)

// opening is what the heads of some puts say, by the place of the put.
type opening struct {
	held []*snapshot.Held
	tags []tag   // of what the head says
	errs []error // why a head or its secret is not what it should be; there is then nothing of the rest
}

// Heads are opened in pieces, as every piece holds a slot of locked memory, by some goroutines at once.
const (
	pieceHeads  = 256
	pieceOctets = 256 << 10
	mostOpeners = 4
)

// piece is puts of one batch, from one place to another.
type piece struct{ from, to int }

func pieces(puts []*put) []piece {
	var all []piece
	for at := 0; at < len(puts); {
		to, size := at, 0
		for to < len(puts) && to-at < pieceHeads && size < pieceOctets && puts[to].generation == puts[at].generation {
			size += len(puts[to].head)
			to++
		}
		all = append(all, piece{at, to})
		at = to
	}
	return all
}

// openAll opens the heads of puts and, where verify is set, their secrets, and says what they are. The
// error is that it could not look.
func (r *ring) openAll(ctx context.Context, batches map[uint64][]byte, puts []*put, verify bool) (*opening, error) {
	o := &opening{make([]*snapshot.Held, len(puts)), make([]tag, len(puts)), make([]error, len(puts))}
	all := pieces(puts)
	var next atomic.Int64
	work := func() error {
		var t texts
		var p parser
		for {
			i := int(next.Add(1)) - 1
			if i >= len(all) {
				return nil
			}
			if err := o.open(ctx, r, batches, puts, all[i], verify, &t, &p); err != nil {
				return err
			}
		}
	}
	errs := make([]error, min(runtime.GOMAXPROCS(0), mostOpeners, len(all)))
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { errs[i] = work() })
	}
	wg.Wait()
	return o, errors.Join(errs...)
}

// open opens one piece.
func (o *opening) open(ctx context.Context, r *ring, batches map[uint64][]byte, puts []*put, pc piece, verify bool, t *texts, p *parser) error {
	batch := batches[puts[pc.from].generation]
	if batch == nil {
		for i := pc.from; i < pc.to; i++ {
			o.errs[i] = fmt.Errorf("there is no key of batch %d", puts[i].generation)
		}
		return nil
	}
	if err := r.openHeads(ctx, batch, puts[pc.from:pc.to], verify, t); err != nil {
		return err
	}
	ids := make([]snapshot.ID, pc.to-pc.from)
	for i, text := range t.of {
		at := pc.from + i
		h, err := puts[at].held(text, p)
		if err != nil {
			o.errs[at] = err
			continue
		}
		o.held[at], ids[i] = h, h.ID
	}
	tags, err := r.tags(ctx, ids)
	if err != nil {
		return err
	}
	copy(o.tags[pc.from:], tags)
	return nil
}

var (
	errHead     = errors.New("head or secret does not authenticate")
	errOtherPut = errors.New("the head says something else than what it is in")
)

// held is the entry whose head has the text; nil is a head that did not open.
func (p *put) held(text []byte, with *parser) (*snapshot.Held, error) {
	if text == nil {
		return nil, errHead
	}
	e, err := with.head(text)
	if err != nil {
		return nil, err
	}
	if e.Generation != p.generation {
		return nil, errOtherPut
	}
	if err := checkSecret(&e, p.password()); err != nil {
		return nil, err
	}
	if e.Policy != nil && !p.long() {
		e.Policy.Document = bytes.Clone(e.Policy.Document)
	}
	return &snapshot.Held{Entry: e, HeadSum: sha256.Sum256(text), Box: p.secret}, nil
}

// Opened is a record that was opened and agrees with itself, for a caller who has to judge what it says
// before it replaces anything. Apply takes it as it is.
type Opened struct {
	Held *snapshot.Held // Confirmed is for the caller to fill, in a copy
	Err  error          // why the record is none; Held is nil then

	store *Store
	put   *put
}

// OpenHeads opens records that are not in the vault yet, each for itself, and returns what came of each
// in the same order. They must be of batches that NewBatch began. What is returned shares the records'
// octets, which nobody changes any more. The error is that it could not look.
func (s *Store) OpenHeads(ctx context.Context, records []Record) ([]Opened, error) {
	if err := s.begin(); err != nil {
		return nil, fmt.Errorf("sealed: %w", err)
	}
	defer s.users.Done()
	out, err := s.openRecords(ctx, records)
	if err != nil {
		return nil, fmt.Errorf("sealed: %w", err)
	}
	return out, nil
}

func (s *Store) openRecords(ctx context.Context, records []Record) ([]Opened, error) {
	slab := make([]put, len(records))
	puts := make([]*put, len(records))
	for i := range records {
		r := &records[i]
		puts[i] = &slab[i]
		puts[i].generation, puts[i].head = r.Generation, r.Head
		if len(r.Secret) > 0 {
			puts[i].secret = r.Secret
		}
		if len(r.Head) > maxHead {
			puts[i].head = nil // which does not open
		}
	}
	o, err := s.ring.openAll(ctx, s.keysOf(puts), puts, true)
	if err != nil {
		return nil, err
	}
	out := make([]Opened, len(records))
	for i := range out {
		r, h := &records[i], o.held[i]
		err := o.errs[i]
		if err == nil && (h.ID != r.ID || h.Version != r.Version || !h.Created.Equal(r.Created)) {
			err = errOtherPut
		}
		if err != nil {
			out[i].Err = fmt.Errorf("sealed: %s: %w", r.ID, err)
			continue
		}
		puts[i].tag = o.tags[i]
		out[i] = Opened{Held: h, store: s, put: puts[i]}
	}
	return out, nil
}

// keysOf returns the keys of the batches of puts, as the file has them.
func (s *Store) keysOf(puts []*put) map[uint64][]byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	keys := map[uint64][]byte{}
	for _, p := range puts {
		if _, ok := keys[p.generation]; !ok {
			keys[p.generation] = s.batches[p.generation]
		}
	}
	return keys
}

// byGeneration is the order that makes pieces long.
func byGeneration(a, b *put) int { return cmp.Compare(a.generation, b.generation) }

// Entries returns every entry, in no order, with its head opened and checked. Confirmed is for the caller to fill,
// in a copy. An entry whose head does not open or is not its own is left out and becomes a fault.
func (s *Store) Entries(ctx context.Context) ([]*snapshot.Held, error) {
	if err := s.begin(); err != nil {
		return nil, fmt.Errorf("sealed: %w", err)
	}
	defer s.users.Done()
	s.mu.RLock()
	all := make([]*put, 0, len(s.entries))
	for _, p := range s.entries {
		all = append(all, p)
	}
	s.mu.RUnlock()
	slices.SortFunc(all, byGeneration)
	o, err := s.ring.openAll(ctx, s.keysOf(all), all, false)
	if err != nil {
		return nil, fmt.Errorf("sealed: %w", err)
	}
	good := o.held[:0]
	bad := map[uint64]int{}
	for i := range o.held {
		if o.errs[i] != nil || o.tags[i] != all[i].tag {
			bad[all[i].generation]++
			continue
		}
		good = append(good, o.held[i])
	}
	for generation, n := range bad {
		s.fault(fmt.Sprintf("%d entries of batch %d cannot be opened", n, generation))
	}
	clear(o.held[len(good):])
	return good, nil
}

// fault adds one that Status shows, once.
func (s *Store) fault(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range s.faults {
		if f == text {
			return
		}
	}
	s.faults = append(s.faults, text)
}
