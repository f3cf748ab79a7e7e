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
	"slices"
	"sync"

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
	Host string // this machine's name; "" where it has none. What is made here opens nowhere else
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
	store  *lockmem.Buffer // the others come from it
	wrap   *lockmem.Buffer // wraps the keys of batches
	commit *lockmem.Buffer
	state  *lockmem.Buffer
	tag    *lockmem.Buffer
	mark   *lockmem.Buffer

	last struct { // the batch of the secret that was opened last: most are of one
		sync.RWMutex
		key   *lockmem.Buffer
		frame [batchSize]byte // its payload
		known bool
	}
}

func newRing(a *lockmem.Arena, c chance) (*ring, error) {
	r := &ring{arena: a, chance: c}
	for _, k := range []**lockmem.Buffer{&r.store, &r.wrap, &r.commit, &r.state, &r.tag, &r.mark, &r.last.key} {
		var err error
		if *k, err = a.Key(); err != nil {
			r.drop()
			return nil, err
		}
	}
	return r, nil
}

func (r *ring) drop() {
	for _, k := range []*lockmem.Buffer{r.store, r.wrap, r.commit, r.state, r.tag, r.mark, r.last.key} {
		r.arena.Drop(k)
	}
}

// create makes a new store key and derives the ring from it.
func (r *ring) create(ctx context.Context) error {
	return r.arena.Borrow(ctx, func(*lockmem.Buffer) error {
		if err := r.chance.fill(r.store, 32); err != nil {
			return err
		}
		r.derive()
		return nil
	})
}

// load opens the box of the store key and derives the ring. ErrWrongKey: it does not open.
func (r *ring) load(ctx context.Context, key *Key, host string, box []byte) error {
	return r.arena.Borrow(ctx, func(b *lockmem.Buffer) error {
		text, ok := open(b.Room(), box, key.bound(host, b))
		if !ok || len(text) != 32 {
			return ErrWrongKey
		}
		copy(r.store.Bytes(), text)
		r.derive()
		return nil
	})
}

// box returns the store key boxed for the key on the host.
func (r *ring) box(ctx context.Context, key *Key, host string) (kb keyBox, err error) {
	kb = keyBox{kind: key.Kind, id: key.ID}
	err = r.arena.Borrow(ctx, func(b *lockmem.Buffer) error {
		kb.box, err = seal(r.chance.nonces, r.store.Bytes(), key.bound(host, b))
		return err
	})
	return kb, err
}

// opens says whether the box holds this ring's store key for the key on the host.
func (r *ring) opens(ctx context.Context, key *Key, host string, box []byte) (ok bool, err error) {
	err = r.arena.Borrow(ctx, func(b *lockmem.Buffer) error {
		text, opened := open(b.Room(), box, key.bound(host, b))
		ok = opened && subtle.ConstantTimeCompare(text, r.store.Bytes()) == 1
		return nil
	})
	return ok, err
}

// bound is the key that boxes the store key on the host: the KEK itself where that has no name. It
// lies in the end of the slot b.
func (k *Key) bound(host string, b *lockmem.Buffer) *[32]byte {
	if host == "" {
		return k.KEK.Key()
	}
	sum := sha256.Sum256([]byte(host))
	out := (*[32]byte)(b.Room()[keyAt : keyAt+32])
	salsa.HSalsa20(out, (*[16]byte)(sum[:16]), k.KEK.Key(), &salsa.Sigma)
	return out
}

func (r *ring) derive() {
	for _, d := range []struct {
		label string
		key   *lockmem.Buffer
	}{
		{"bw key of batchs", r.wrap}, {"bw key of commit", r.commit},
		{"bw key of states", r.state}, {"bw key of names ", r.tag},
		{"bw key of marks ", r.mark},
	} {
		in := [16]byte([]byte(d.label))
		salsa.HSalsa20(d.key.Key(), &in, r.store.Key(), &salsa.Sigma)
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
	if len(ids) == 0 {
		return out, nil
	}
	name := make([]byte, 0, 2*MaxName+32)
	err := r.arena.Borrow(ctx, func(b *lockmem.Buffer) error {
		b.SetLen(64)
		mid, end := (*[32]byte)(b.Bytes()), (*[32]byte)(b.Bytes()[32:])
		for i, id := range ids {
			name = append(append(name[:0], id.Kind...), 0)
			name = append(append(name, id.Scope...), 0)
			sum := sha256.Sum256(append(name, id.Name...))
			salsa.HSalsa20(mid, (*[16]byte)(sum[:16]), r.tag.Key(), &salsa.Sigma)
			salsa.HSalsa20(end, (*[16]byte)(sum[16:]), mid, &salsa.Sigma)
			copy(out[i][:], end[:tagSize])
		}
		return nil
	})
	return out, err
}

// markOf returns the frame that says that commit seq, and all before it, is on the disk.
func (r *ring) markOf(ctx context.Context, seq uint64) (out []byte, err error) {
	payload := make([]byte, 8+macSize)
	binary.BigEndian.PutUint64(payload, seq)
	err = r.arena.Borrow(ctx, func(b *lockmem.Buffer) error {
		b.SetLen(32)
		var in [16]byte
		copy(in[:], payload[:8])
		salsa.HSalsa20(b.Key(), &in, r.mark.Key(), &salsa.Sigma)
		copy(payload[8:], b.Bytes()[:macSize])
		return nil
	})
	return appendFrame(nil, markFrame, payload), err
}

// marks returns what number the payload of a mark frame says; false when it is no mark of this vault.
func (r *ring) marks(ctx context.Context, f frame) (seq uint64, ok bool, err error) {
	if len(f.payload) != 8+macSize {
		return 0, false, nil
	}
	seq = binary.BigEndian.Uint64(f.payload)
	want, err := r.markOf(ctx, seq)
	return seq, subtle.ConstantTimeCompare(want, f.whole) == 1, err
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

// openSecret opens the box of a secret into the begin of the slot b, given the payload of its batch's frame, and returns
// how long the password is; it lies behind the sum. It does not allocate.
func (r *ring) openSecret(batch, box []byte, sum *[sumSize]byte, b *lockmem.Buffer) (int, error) {
	r.last.RLock()
	if r.last.known && bytes.Equal(batch, r.last.frame[:]) {
		defer r.last.RUnlock()
		return openSecret(box, r.last.key.Key(), sum, b)
	}
	r.last.RUnlock()
	key, ok := r.unwrap(batch, b)
	if !ok {
		return 0, errSecret
	}
	r.last.Lock()
	copy(r.last.key.Bytes(), key[:])
	copy(r.last.frame[:], batch)
	r.last.known = true
	r.last.Unlock()
	return openSecret(box, key, sum, b)
}

var errSecret = errors.New("sealed: the secret does not authenticate")

// openSecret does that with the key, which may lie in the end of the slot.
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

// texts holds the texts of some heads. It is used again and again; a long text alone gets memory of
// its own, which whoever keeps the text may keep.
type texts struct {
	of  [][]byte // nil where the head did not open
	all []byte
}

// longHead is from where on a head is long.
const longHead = 32 << 10

func (p *put) long() bool { return len(p.head) > longHead }

// openHeads opens heads of one batch, given by the payload of its frame. Where verify is set, a secret
// that does not open or does not go with its head counts as a head that does not open. What t.of holds
// is good until t is used the next time.
func (r *ring) openHeads(ctx context.Context, batch []byte, puts []*put, verify bool, t *texts) error {
	t.of, t.all = t.of[:0], t.all[:0]
	size := 0
	for _, p := range puts {
		if !p.long() {
			size += len(p.head)
		}
	}
	t.all = slices.Grow(t.all, size)
	return r.arena.Borrow(ctx, func(b *lockmem.Buffer) error {
		key, ok := r.unwrap(batch, b)
		if !ok {
			return fmt.Errorf("sealed: the key of a batch does not authenticate")
		}
		for _, p := range puts {
			t.of = append(t.of, t.open(p, key, verify, b))
		}
		return nil
	})
}

func (t *texts) open(p *put, key *[32]byte, verify bool, b *lockmem.Buffer) []byte {
	var text []byte
	var ok bool
	if p.long() {
		text, ok = open(nil, p.head, key)
	} else {
		var all []byte
		if all, ok = open(t.all, p.head, key); ok {
			text = all[len(t.all):len(all):len(all)]
			t.all = all
		}
	}
	if ok && verify && p.secret != nil {
		sum := sha256.Sum256(text)
		if _, err := openSecret(p.secret, key, &sum, b); err != nil {
			ok = false
		}
	}
	if !ok {
		return nil
	}
	return text
}

// checkBatch says whether the payload of a batch frame holds a key.
func (r *ring) checkBatch(ctx context.Context, payload []byte) (ok bool, err error) {
	err = r.arena.Borrow(ctx, func(b *lockmem.Buffer) error {
		_, ok = r.unwrap(payload, b)
		return nil
	})
	return ok, err
}
