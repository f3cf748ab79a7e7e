package sealed

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// Rekey lets key open the vault too, beside the key that it was opened with, and returns nil once that
// is on the disk. The next Open keeps only the key that it is given. When it fails the keys are what
// they were; on the disk the new one may be there as well. key is of the host of the vault, and stays
// the caller's.
func (s *Store) Rekey(ctx context.Context, key *Key) error {
	if err := s.begin(); err != nil {
		return fmt.Errorf("sealed: %w", err)
	}
	defer s.users.Done()
	if key == nil || key.KEK == nil {
		return fmt.Errorf("sealed: rekey: %w", ErrMissingKey)
	}
	s.writing.Lock()
	defer s.writing.Unlock()
	old, oldHead := s.header, s.head
	if key.Host != old.host {
		return fmt.Errorf("sealed: rekey: a key of host %q, the vault is of host %q", key.Host, old.host)
	}
	if box, there := old.find(key.Kind, key.ID); there {
		ok, err := s.ring.opens(ctx, key, old.host, box.box)
		if err != nil {
			return fmt.Errorf("sealed: rekey: %w", err)
		}
		if !ok {
			return fmt.Errorf("sealed: rekey: %w: it has another %q key %s", ErrWrongKey, key.Kind, key.ID)
		}
		return nil
	}
	if len(old.boxes) == maxBoxes {
		return fmt.Errorf("sealed: rekey: %d keys open the vault already; the next start leaves one", maxBoxes)
	}
	box, err := s.ring.box(ctx, key, old.host)
	if err != nil {
		return fmt.Errorf("sealed: rekey: %w", err)
	}
	next := &header{storeID: old.storeID, host: old.host, boxes: append(slices.Clone(old.boxes), box)}
	head, err := next.encode()
	if err != nil {
		return err
	}
	s.useHeader(next, head)
	if err := s.rewrite(ctx); err != nil {
		s.useHeader(old, oldHead)
		err = errors.Join(fmt.Errorf("sealed: rekey: %w: %w", ErrUnwritten, err), s.abandon())
		s.failing(err)
		return err
	}
	s.failing(nil)
	return nil
}

func (s *Store) useHeader(h *header, encoded []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.header, s.head = h, encoded
}

// failing notes why the last write failed, or with nil that it did not.
func (s *Store) failing(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.failed = ""
	if err != nil {
		s.failed = err.Error()
	}
}
