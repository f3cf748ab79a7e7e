// Package lockmem holds keys and passwords in one piece of memory that is neither swapped nor dumped
// nor moved, and lends it out in slots that are wiped when they come back.
package lockmem

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"batchwarden/platform/secret"
)

// SlotSize is the size of a slot, and the most that a borrowed Buffer holds.
const SlotSize = 4096

const (
	keySize = 32
	// MaxKeys is how many keys an arena holds at one time.
	MaxKeys = 64
	// MaxSlots bounds an arena: 16 MiB.
	MaxSlots = 4096
	// MaxWait is how long Borrow waits for a free slot when its context lets it.
	MaxWait = 2 * time.Second
)

// Names of backends.
const (
	MemfdSecret = "memfd_secret" // pages that not even the kernel's other parts can read
	Memguard    = "memguard"     // mlocked pages between guard pages
	Unlocked    = "unlocked"     // ordinary pages, left out of dumps: Degraded says why
)

// ErrNoKeyRoom reports that all places for keys are taken.
var ErrNoKeyRoom = errors.New("no room for another key")

// ErrBusy reports that no slot became free within MaxWait.
var ErrBusy = errors.New("all are in use for too long")

// An Arena is all the locked memory of a process. It is allocated once and never grows. Its methods
// may be called from anywhere.
type Arena struct {
	backend  string
	degraded string
	slots    chan *Buffer // those that are free
	count    int
	wait     time.Duration // MaxWait
	release  func() error

	waited, refused atomic.Uint64 // of those who found no free slot

	mu   sync.Mutex
	keys []*Buffer // places for keys that are free
	lent int       // keys that are not
}

// New allocates an arena of the given number of slots and of MaxKeys keys. Where the memory cannot be
// locked it is used as it is, and Backend and Degraded say so.
func New(slots int) (*Arena, error) {
	if slots < 1 || slots > MaxSlots {
		return nil, fmt.Errorf("lockmem: %d slots, must be 1 to %d", slots, MaxSlots)
	}
	region, err := allocate(SlotSize * (1 + slots))
	if err != nil {
		return nil, fmt.Errorf("lockmem: %w", err)
	}
	a := &Arena{
		backend: region.backend, degraded: region.degraded, release: region.release,
		slots: make(chan *Buffer, slots), count: slots, wait: MaxWait,
	}
	mem := region.mem
	for i := range MaxKeys {
		a.keys = append(a.keys, newBuffer(mem[i*keySize:(i+1)*keySize]))
	}
	for i := range slots {
		a.slots <- newBuffer(mem[SlotSize*(1+i) : SlotSize*(2+i)])
	}
	return a, nil
}

// region is what a platform allocates: readable, writable, zero, and of whole pages.
type region struct {
	mem               []byte
	backend, degraded string
	release           func() error
}

// Backend names the kind of memory: MemfdSecret, Memguard or Unlocked.
func (a *Arena) Backend() string { return a.backend }

// Degraded says in one sentence why the memory could not be locked; empty when it is.
func (a *Arena) Degraded() string { return a.degraded }

// Usage is how busy an arena is, and was since it was allocated.
type Usage struct {
	Slots   int
	InUse   int    // slots
	Waited  uint64 // times that somebody found no free slot
	Refused uint64 // times that none became free within MaxWait
}

// Usage tells how busy the arena is.
func (a *Arena) Usage() Usage {
	return Usage{Slots: a.count, InUse: a.count - len(a.slots), Waited: a.waited.Load(), Refused: a.refused.Load()}
}

// Key returns 32 octets of the arena for as long as the caller wants, zero at first. Drop gives them
// back.
func (a *Arena) Key() (*Buffer, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if len(a.keys) == 0 {
		return nil, fmt.Errorf("lockmem: %w", ErrNoKeyRoom)
	}
	last := len(a.keys) - 1
	k := a.keys[last]
	a.keys = a.keys[:last]
	a.lent++
	k.n = keySize
	return k, nil
}

// Drop wipes a key that Key returned and takes it back. The caller must not use it any more. A nil
// Buffer is nothing to drop.
func (a *Arena) Drop(k *Buffer) {
	if k == nil {
		return
	}
	if k.size != keySize {
		panic("lockmem: Drop of a slot")
	}
	k.wipe()
	a.mu.Lock()
	defer a.mu.Unlock()
	a.keys = append(a.keys, k)
	a.lent--
}

// Borrow calls f with a slot of SlotSize octets, empty at first, and wipes the slot whatever f does.
// It waits for a free slot until ctx is done or MaxWait is over, and then returns an error that wraps
// ctx.Err or ErrBusy. What f leaves on the stack and in registers is overwritten too, as long as f uses
// less than 20 KiB of stack and starts no goroutine; no signal interrupts f. f must not keep the Buffer, nor anything
// of it.
func (a *Arena) Borrow(ctx context.Context, f func(*Buffer) error) error {
	b, err := a.slot(ctx)
	if err != nil {
		return err
	}
	defer func() {
		b.wipe()
		a.slots <- b
	}()
	return b.signals.unsignalled(func() error { return onGrownStack(b, f) })
}

// slot waits for a free one.
func (a *Arena) slot(ctx context.Context) (b *Buffer, err error) {
	select {
	case b = <-a.slots:
	default:
		a.waited.Add(1)
		late := time.NewTimer(a.wait)
		defer late.Stop()
		select {
		case b = <-a.slots:
		case <-ctx.Done():
			return nil, fmt.Errorf("lockmem: waiting for one of %d slots: %w", a.count, ctx.Err())
		case <-late.C:
			a.refused.Add(1)
			return nil, fmt.Errorf("lockmem: waiting for one of %d slots: %w", a.count, ErrBusy)
		}
	}
	if b == nil {
		return nil, errors.New("lockmem: the arena is closed")
	}
	return b, nil
}

// Close wipes and frees the memory. It waits for no one: closing an arena of which something is still
// borrowed is an error and closes nothing.
func (a *Arena) Close() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.release == nil {
		return errors.New("lockmem: the arena is closed already")
	}
	if a.lent != 0 {
		return fmt.Errorf("lockmem: %d keys are still in use", a.lent)
	}
	var got []*Buffer
	for len(got) < a.count {
		select {
		case b := <-a.slots:
			got = append(got, b)
			continue
		default:
		}
		for _, b := range got {
			a.slots <- b
		}
		return errors.New("lockmem: a slot is still in use")
	}
	close(a.slots)
	release := a.release
	a.release, a.keys = nil, nil
	if err := release(); err != nil {
		return fmt.Errorf("lockmem: %w", err)
	}
	return nil
}

// Harden keeps the process from being dumped or traced by others of its user, for good. It is called
// once at the start, after every change of ids.
func Harden() error {
	if err := harden(); err != nil {
		return fmt.Errorf("lockmem: %w", err)
	}
	return nil
}

// Hardened says with an error when what Harden did is not in force any more.
func Hardened() error {
	if err := hardened(); err != nil {
		return fmt.Errorf("lockmem: %w", err)
	}
	return nil
}

// Watch looks, every so often until ctx ends, whether what Harden did is in force, and puts it back in
// force when it is not. report is told what was found undone and, in the same error, why that could not
// be mended. It is not called while all is well, nor again for the same words.
func Watch(ctx context.Context, every time.Duration, report func(error)) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	said := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		found := Hardened()
		if found == nil {
			said = ""
			continue
		}
		err := errors.Join(found, Harden())
		if err.Error() != said {
			report(err)
		}
		said = err.Error()
	}
}

// A Buffer is a piece of an arena. It refuses to be printed or encoded in any way. It is for one
// goroutine at a time.
type Buffer struct {
	secret.Mute

	// A bare pointer: a printer that finds its way here past the methods below shows an address.
	p    unsafe.Pointer
	size int
	n    int

	signals signals // of the thread that has borrowed it
}

func newBuffer(mem []byte) *Buffer {
	return &Buffer{p: unsafe.Pointer(unsafe.SliceData(mem)), size: len(mem)}
}

func (b *Buffer) all() []byte { return unsafe.Slice((*byte)(b.p), b.size) }

func (b *Buffer) wipe() {
	clear(b.all())
	b.n = 0
}

// Len is how many octets the Buffer holds.
func (b *Buffer) Len() int { return b.n }

// Bytes are the octets that the Buffer holds, themselves, not a copy.
func (b *Buffer) Bytes() []byte { return b.all()[:b.n:b.n] }

// Room is the whole room of the Buffer with length zero, to open a box into. SetLen then says how
// much of it counts.
func (b *Buffer) Room() []byte { return b.all()[:0:b.size] }

// SetLen makes the first n octets of the room what the Buffer holds, and wipes the rest.
func (b *Buffer) SetLen(n int) {
	if n < 0 || n > b.size {
		panic("lockmem: SetLen beyond the room")
	}
	clear(b.all()[n:])
	b.n = n
}

// Key is the first 32 octets, for functions that take a key by pointer.
func (b *Buffer) Key() *[32]byte {
	if b.n < keySize {
		panic("lockmem: Key of a buffer that holds none")
	}
	return (*[32]byte)(b.p)
}

// Random fills the Buffer with n octets from the kernel, written straight into it.
func (b *Buffer) Random(n int) error {
	b.SetLen(n)
	if err := random(b.Bytes()); err != nil {
		b.SetLen(0)
		return fmt.Errorf("lockmem: random numbers: %w", err)
	}
	return nil
}

// ReadFull makes the next n octets of f what the Buffer holds, read straight into it. It takes a file
// and nothing else, as any other reader would leave a copy behind.
func (b *Buffer) ReadFull(f *os.File, n int) error {
	b.SetLen(n)
	for got := 0; got < n; {
		m, err := f.Read(b.Bytes()[got:])
		got += m
		if err != nil && got < n {
			b.SetLen(0)
			return fmt.Errorf("lockmem: %d octets of %d: %w", got, n, err)
		}
	}
	return nil
}
