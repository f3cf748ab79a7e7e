package sealed

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"batchwarden/platform/lockmem"
	"batchwarden/vault/snapshot"

	"golang.org/x/crypto/nacl/secretbox"
	//lint:ignore SA1019 HSalsa20 derives a key from a key by pointers alone; crypto/hkdf and hmac copy it into the heap.
	"golang.org/x/crypto/salsa20/salsa"
)

// Key is the KEK, which a host key provides, and what the header says about it.
type Key struct {
	KEK  *lockmem.Buffer
	Kind string
	ID   string
}

// chance is where random octets come from. Tests of the format make it predictable.
type chance struct {
	nonces io.Reader
	fill   func(b *lockmem.Buffer, n int) error // keys, straight into locked memory
}

func realChance() chance {
	return chance{rand.Reader, func(b *lockmem.Buffer, n int) error { return b.Random(n) }}
}

// ring is the keys of one store, all in locked memory. Whatever touches one of them runs inside
// arena.Borrow, which cleans the stack.
type ring struct {
	arena  *lockmem.Arena
	chance chance
	wrap   *lockmem.Buffer // wraps the keys of batches
	commit *lockmem.Buffer
	state  *lockmem.Buffer
	tag    *lockmem.Buffer
}

func newRing(a *lockmem.Arena, c chance) (*ring, error) {
	r := &ring{arena: a, chance: c}
	for _, k := range []**lockmem.Buffer{&r.wrap, &r.commit, &r.state, &r.tag} {
		var err error
		if *k, err = a.Key(); err != nil {
			r.drop()
			return nil, err
		}
	}
	return r, nil
}

func (r *ring) drop() {
	for _, k := range []*lockmem.Buffer{r.wrap, r.commit, r.state, r.tag} {
		r.arena.Drop(k)
	}
}

// create makes a new store key, derives the ring from it, and returns its box.
func (r *ring) create(ctx context.Context, kek *lockmem.Buffer) (box []byte, err error) {
	err = r.arena.Borrow(ctx, func(b *lockmem.Buffer) error {
		if err := r.chance.fill(b, 32); err != nil {
			return err
		}
		if box, err = seal(r.chance.nonces, b.Bytes(), kek.Key()); err != nil {
			return err
		}
		r.derive(b)
		return nil
	})
	return box, err
}

// load opens the box of the store key and derives the ring. ErrWrongKey: it does not open.
func (r *ring) load(ctx context.Context, kek *lockmem.Buffer, box []byte) error {
	return r.arena.Borrow(ctx, func(b *lockmem.Buffer) error {
		text, ok := open(b.Room(), box, kek.Key())
		if !ok || len(text) != 32 {
			return ErrWrongKey
		}
		b.SetLen(32)
		r.derive(b)
		return nil
	})
}

func (r *ring) derive(store *lockmem.Buffer) {
	for _, d := range []struct {
		label string
		key   *lockmem.Buffer
	}{
		{"bw key of batchs", r.wrap}, {"bw key of commit", r.commit},
		{"bw key of states", r.state}, {"bw key of names ", r.tag},
	} {
		in := [16]byte([]byte(d.label))
		salsa.HSalsa20(d.key.Key(), &in, store.Key(), &salsa.Sigma)
	}
}

// seal and open are for text that is no secret, with one of the ring's keys.
func (r *ring) seal(ctx context.Context, text []byte, key *lockmem.Buffer) (box []byte, err error) {
	err = r.arena.Borrow(ctx, func(*lockmem.Buffer) error {
		box, err = seal(r.chance.nonces, text, key.Key())
		return err
	})
	return box, err
}

func (r *ring) open(ctx context.Context, box []byte, key *lockmem.Buffer) (text []byte, ok bool, err error) {
	err = r.arena.Borrow(ctx, func(*lockmem.Buffer) error {
		text, ok = open(nil, box, key.Key())
		return nil
	})
	return text, ok, err
}

// tags returns what stands for the ids in the file: SHA-256 of the id and then HSalsa20 over both
// halves of that, keyed.
func (r *ring) tags(ctx context.Context, ids []snapshot.ID) ([]tag, error) {
	out := make([]tag, len(ids))
	err := r.arena.Borrow(ctx, func(b *lockmem.Buffer) error {
		b.SetLen(64)
		mid, end := (*[32]byte)(b.Bytes()), (*[32]byte)(b.Bytes()[32:])
		for i, id := range ids {
			sum := sha256.Sum256([]byte(string(id.Kind) + "\x00" + id.Scope + "\x00" + id.Name))
			salsa.HSalsa20(mid, (*[16]byte)(sum[:16]), r.tag.Key(), &salsa.Sigma)
			salsa.HSalsa20(end, (*[16]byte)(sum[16:]), mid, &salsa.Sigma)
			copy(out[i][:], end[:tagSize])
		}
		return nil
	})
	return out, err
}

// newBatch fills b with a new key of batch generation and returns the payload of its frame.
func (r *ring) newBatch(generation uint64, b *lockmem.Buffer) ([]byte, error) {
	if err := r.chance.fill(b, 32); err != nil {
		return nil, err
	}
	room := b.Room()[:40]
	copy(room[8:], room[:32])
	binary.BigEndian.PutUint64(room, generation)
	box, err := seal(r.chance.nonces, room, r.wrap.Key())
	if err != nil {
		return nil, err
	}
	copy(room, room[8:])
	b.SetLen(32)
	return append(binary.BigEndian.AppendUint64(nil, generation), box...), nil
}

// keyAt is where in a slot unwrap puts a batch's key: at its end, with the slot's begin free.
const keyAt = lockmem.SlotSize - 64

// unwrap opens the payload of a batch frame into the end of the slot b. It does not allocate.
func (r *ring) unwrap(payload []byte, b *lockmem.Buffer) (*[32]byte, bool) {
	if len(payload) != batchSize {
		return nil, false
	}
	room := b.Room()
	text, ok := open(room[keyAt:keyAt:cap(room)], payload[8:], r.wrap.Key())
	if !ok || !bytes.Equal(text[:8], payload[:8]) {
		return nil, false
	}
	return (*[32]byte)(text[8:]), true
}

var (
	errSecret = errors.New("sealed: the secret does not authenticate")
	errHead   = errors.New("head or secret does not authenticate")
)

// openSecret opens the box of a secret into the begin of the slot b, whose end holds the key, and
// returns how long the password is; it lies behind the sum. It does not allocate.
func openSecret(box []byte, key *[32]byte, sum *[sumSize]byte, b *lockmem.Buffer) (int, error) {
	if len(box) <= boxed+sumSize || len(box) > boxed+sumSize+MaxSecret {
		return 0, errSecret
	}
	text, ok := secretbox.Open(b.Room()[:0:keyAt], box[nonceSize:], (*[nonceSize]byte)(box), key)
	if !ok || subtle.ConstantTimeCompare(text[:sumSize], sum[:]) != 1 {
		return 0, errSecret
	}
	return len(text) - sumSize, nil
}

// openHeads opens heads of one batch, given by the payload of its frame; where one does not open its
// text is nil. Where verify is set, a secret that does not open or does not go with its head counts as
// that too.
func (r *ring) openHeads(ctx context.Context, batch []byte, puts []*put, verify bool) ([][]byte, error) {
	texts := make([][]byte, len(puts))
	err := r.arena.Borrow(ctx, func(b *lockmem.Buffer) error {
		key, ok := r.unwrap(batch, b)
		if !ok {
			return fmt.Errorf("sealed: the key of a batch does not authenticate")
		}
		for i, p := range puts {
			text, ok := open(nil, p.head, key)
			if !ok {
				continue
			}
			if verify && p.secret != nil {
				sum := sha256.Sum256(text)
				if _, err := openSecret(p.secret, key, &sum, b); err != nil {
					continue
				}
			}
			texts[i] = text
		}
		return nil
	})
	return texts, err
}

// checkBatch says whether the payload of a batch frame holds a key.
func (r *ring) checkBatch(ctx context.Context, payload []byte) (ok bool, err error) {
	err = r.arena.Borrow(ctx, func(b *lockmem.Buffer) error {
		_, ok = r.unwrap(payload, b)
		return nil
	})
	return ok, err
}
