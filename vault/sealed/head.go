package sealed

import (
	"context"
	"crypto/sha256"
	"fmt"

	"batchwarden/vault/snapshot"
)

// OpenHead opens a record that is not in the vault yet and checks it as Apply
// would, for a caller who has to judge what it says before it replaces
// anything. The record must be of a batch that NewBatch began. What is
// returned shares the record's octets.
func (s *Store) OpenHead(ctx context.Context, r *Record) (snapshot.Held, error) {
	if err := s.begin(); err != nil {
		return snapshot.Held{}, fmt.Errorf("sealed: %w", err)
	}
	defer s.users.Done()
	fail := func(err error) (snapshot.Held, error) {
		return snapshot.Held{}, fmt.Errorf("sealed: %s: %w", r.ID, err)
	}
	batch := s.batch(r.Generation)
	if batch == nil {
		return fail(fmt.Errorf("there is no key of batch %d", r.Generation))
	}
	p := &put{generation: r.Generation, head: r.Head}
	if len(r.Secret) > 0 {
		p.secret = r.Secret
	}
	texts, err := s.ring.openHeads(ctx, batch, []*put{p}, true)
	if err != nil {
		return fail(err)
	}
	if err := r.agrees(texts[0], p); err != nil {
		return fail(err)
	}
	e, err := parseHead(texts[0])
	if err != nil {
		return fail(err)
	}
	return snapshot.Held{Entry: e, HeadSum: sha256.Sum256(texts[0]), Box: p.secret}, nil
}
