// Package sealed is the local vault: what this machine knows from Vault, kept on its own disk as an
// append-only, hash-chained log of sealed records with commits, which is read at the start and written
// behind. FORMAT.md describes the file.
//
// Records are sealed by the sync worker with the key of their batch. They stay sealed on disk and in
// memory; OpenSecret opens one straight into a slot of locked memory.
package sealed

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"batchwarden/platform/lockmem"
	"batchwarden/vault/snapshot"
)

// ErrWrongKey reports that the vault was made with another key.
var ErrWrongKey = errors.New("the key is not this vault's")

// ErrMissingKey reports that there is a vault but no key for it.
var ErrMissingKey = errors.New("there is a vault but no key for it")

// ErrNewer reports that the vault has a format of a newer version.
var ErrNewer = errors.New("a newer version of batchwarden wrote this local vault")

// ErrUnwritten reports that the disk did not take a change, which is in force until the process ends.
var ErrUnwritten = errors.New("the local vault cannot be written")

// ErrLocked reports that another process has the vault open.
var ErrLocked = errors.New("another process has the vault open")

// ErrClosed reports that the Store is closed.
var ErrClosed = errors.New("the vault is closed")

// openWait bounds how long Open waits for a slot.
const openWait = 10 * time.Second

// Store is an open local vault. Its methods may be called from anywhere.
type Store struct {
	files files
	ring  *ring
	lock  io.Closer
	spare int64 // spareOctets

	writing sync.Mutex // held by Apply and Rekey; guards the next five, and what they change against others that would
	file    file       // nil when it cannot be written to or must not be any more
	damaged []byte     // the content of a file that is still to be quarantined
	head    []byte     // the header as the file has it, or the next file will
	chain   [sumSize]byte
	mark    []byte // of the last commit, which it lies behind

	users sync.WaitGroup // calls that use the ring; none begins once closed is set

	mu      sync.RWMutex // guards the rest
	closed  bool
	header  *header
	foreign string            // the host whose vault was here
	batches map[uint64][]byte // payload of the batch's frame, by generation
	entries map[tag]*put
	uses    map[uint64]int // how many of entries and token are sealed with the key of a batch
	live    int64          // how much of the file the entries take
	token   *Token
	state   json.RawMessage
	box     []byte // state, sealed
	seq     uint64
	high    uint64 // the highest generation that was ever used
	size    int64
	faults  []string
	kept    []string // names of quarantined files
	failed  string   // why the last write failed
}

// Status is what an operator wants to know of a Store.
type Status struct {
	Records     int      `json:"records"`
	Bytes       int64    `json:"bytes"`
	Commits     uint64   `json:"commits"`
	KeyKind     string   `json:"key_kind"` // of the newest key that opens it
	KeyID       string   `json:"key_id"`
	OlderKeys   []string `json:"older_keys,omitempty"`  // kinds and ids of those that open it too, until the next start
	Foreign     string   `json:"foreign,omitempty"`     // the host whose vault was found here and kept aside
	Quarantined []string `json:"quarantined,omitempty"` // files with what did not authenticate, kept aside
	Faults      []string `json:"faults,omitempty"`      // what was found wrong when the vault was opened
	Unwritable  string   `json:"unwritable,omitempty"`  // why the file is not what it should be: the last write failed
}

// Open opens the vault in dir, and makes an empty one where there is none. An interrupted write at its
// end is cut off. Anything else that does not authenticate is copied aside into the same directory and
// left out: Status says so, and nothing of it is served. A vault of another host than key names is
// kept aside whole, and an empty one begins: Status says that too. Once Open returns, and Status names
// nothing unwritable, key alone opens the vault, on its host alone. Errors: ErrWrongKey, ErrMissingKey,
// ErrNewer, ErrLocked. key stays the caller's.
func Open(dir string, key *Key, arena *lockmem.Arena) (*Store, error) {
	d, err := openDirectory(dir)
	if err != nil {
		return nil, err
	}
	s, err := openStore(d, key, arena, realChance())
	if errors.Is(err, ErrNewer) {
		err = fmt.Errorf("%q: %w", filepath.Join(dir, logName), err)
	}
	return s, err
}

func openStore(fsys files, key *Key, arena *lockmem.Arena, c chance) (_ *Store, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), openWait)
	defer cancel()
	lock, err := fsys.Lock()
	if err != nil {
		return nil, err
	}
	s := &Store{files: fsys, lock: lock, spare: spareOctets}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.shut())
		}
	}()
	data, err := fsys.ReadAll(logName, maxFile)
	missing := errors.Is(err, fs.ErrNotExist)
	if err != nil && !missing {
		return nil, fmt.Errorf("sealed: %w", err)
	}
	if key == nil || key.KEK == nil {
		return nil, fmt.Errorf("sealed: %w", ErrMissingKey)
	}
	if s.ring, err = newRing(arena, c); err != nil {
		return nil, fmt.Errorf("sealed: %w", err)
	}
	switch h, n, headErr := parseHeader(data); {
	case missing:
		err = s.create(ctx, key)
	case errors.Is(headErr, ErrDamaged):
		s.faults = []string{headErr.Error() + ": the whole vault is given up"}
		s.damaged = data
		err = s.create(ctx, key)
	case headErr != nil:
		err = fmt.Errorf("sealed: %w", headErr)
	case h.public().Foreign(key.Host):
		s.foreign, s.damaged = h.host, data
		err = s.create(ctx, key)
	default:
		err = s.load(ctx, key, h, data, n)
	}
	if err != nil {
		return nil, err
	}
	s.listQuarantine()
	return s, nil
}

// create begins an empty vault with a new store key. Where it cannot be written it is served from
// memory, and the next change tries again.
func (s *Store) create(ctx context.Context, key *Key) error {
	h := &header{host: key.Host}
	if _, err := io.ReadFull(s.ring.chance.nonces, h.storeID[:]); err != nil {
		return fmt.Errorf("sealed: random numbers: %w", err)
	}
	if err := s.ring.create(ctx); err != nil {
		return fmt.Errorf("sealed: %w", err)
	}
	if err := s.reserve(ctx, h, key); err != nil {
		return err
	}
	s.use(newContent(len(s.head), s.head))
	s.size = 0
	s.write(ctx)
	return nil
}

// reserve makes h, with one box for key and none else, the header of the next file.
func (s *Store) reserve(ctx context.Context, h *header, key *Key) error {
	box, err := s.ring.box(ctx, key, key.Host)
	if err != nil {
		return fmt.Errorf("sealed: %w", err)
	}
	h = &header{storeID: h.storeID, host: key.Host, boxes: []keyBox{box}}
	if s.head, err = h.encode(); err != nil {
		return err
	}
	s.header = h
	return nil
}

// write writes a new file while the store is being opened. A failure is for Status, and the next change
// tries again.
func (s *Store) write(ctx context.Context) {
	if err := s.rewrite(ctx); err != nil {
		s.failed = err.Error()
	}
}

// load takes in the vault that is there.
func (s *Store) load(ctx context.Context, key *Key, h *header, data []byte, headerEnd int) error {
	box, ok := h.find(key.Kind, key.ID)
	if !ok {
		return fmt.Errorf("sealed: %w: it was made with %q key %s, this is %q key %s",
			ErrWrongKey, h.public().KeyKind, h.public().KeyID, key.Kind, key.ID)
	}
	if err := s.ring.load(ctx, key, h.host, box.box); err != nil {
		return fmt.Errorf("sealed: %w", err)
	}
	c, err := read(ctx, s.ring, data, headerEnd)
	if err != nil {
		return err
	}
	s.header, s.head = h, slices.Clone(data[:headerEnd])
	if c.stateBox != nil {
		text, ok, err := s.ring.open(ctx, c.stateBox, s.ring.state)
		if err != nil {
			return err
		}
		if ok {
			s.state = text
		} else {
			c.stateBox = nil
			c.faults = append(c.faults, "the state of the synchronization does not authenticate")
		}
	}
	s.use(c)
	switch {
	case len(c.faults) > 0 || c.seq == 0:
		// What is left is written anew, once the old file is kept aside.
		if len(c.faults) == 0 {
			s.faults = append(s.faults, "there is no commit in the vault")
		}
		s.damaged = data
	case c.mark == nil:
		// The last write was interrupted. Its commit may be seen here and be on no disk: the kernel
		// shows what a failed fsync did not write. So all is written once more.
	case len(h.boxes) == 1 && h.host == key.Host && data[len(magic)+3] == formatNumber:
		if err := s.continueFile(); err != nil {
			s.failed = err.Error()
		}
		return nil
	}
	if err := s.reserve(ctx, h, key); err != nil {
		return err
	}
	s.write(ctx)
	return nil
}

func (s *Store) use(c *content) {
	s.batches, s.entries, s.token, s.box = c.batches, c.entries, c.token, c.stateBox
	s.seq, s.high, s.chain, s.size, s.mark = c.seq, c.generation, c.chain, int64(c.end), c.mark
	s.uses, s.live = map[uint64]int{}, 0
	for _, p := range c.entries {
		s.uses[p.generation]++
		s.live += p.size()
	}
	if c.token != nil {
		s.uses[c.token.Generation]++
	}
	s.faults = append(s.faults, c.faults...)
}

// continueFile opens the log, which ends with a mark, for appending.
func (s *Store) continueFile() error {
	// Left by a crash while a new file was written; it is not needed and never read.
	if err := s.files.Remove(newName); err != nil {
		return err
	}
	// The process before may have ended between the renaming of this file and the fsync after it.
	if err := s.files.SyncDir(); err != nil {
		return err
	}
	f, err := s.files.Open(logName)
	if err != nil {
		return err
	}
	s.file = f
	return nil
}

// quarantine copies a damaged file aside, under a name that is the same for the same content.
func (s *Store) quarantine() error {
	if s.damaged == nil {
		return nil
	}
	sum := sha256.Sum256(s.damaged)
	name := quarantinePart + hex.EncodeToString(sum[:8])
	names, err := s.files.Names()
	switch {
	case err != nil:
	case slices.Contains(names, name):
		// A process that ended in between has put it there, and perhaps not onto the disk.
		err = s.files.SyncDir()
	default:
		var f file
		if f, err = replace(s.files, name, s.damaged); err == nil {
			err = f.Close()
		}
	}
	if err != nil {
		return fmt.Errorf("keeping the old vault aside: %w", err)
	}
	s.damaged = nil
	s.listQuarantine()
	return nil
}

func (s *Store) listQuarantine() {
	names, err := s.files.Names()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.failed = err.Error()
		return
	}
	s.kept = slices.DeleteFunc(names, func(n string) bool { return !strings.HasPrefix(n, quarantinePart) })
	slices.Sort(s.kept)
}

// begin lets a call use the ring until it calls users.Done.
func (s *Store) begin() error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.closed {
		return ErrClosed
	}
	s.users.Add(1)
	return nil
}

func (s *Store) batch(generation uint64) []byte {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.batches[generation]
}

// Close waits for the calls that are under way, and gives up the keys and the lock. Calls that begin
// later fail with ErrClosed.
func (s *Store) Close() error {
	s.mu.Lock()
	was := s.closed
	s.closed = true
	s.mu.Unlock()
	if was {
		return fmt.Errorf("sealed: %w", ErrClosed)
	}
	s.users.Wait()
	return s.shut()
}

func (s *Store) shut() error {
	var err error
	if s.file != nil {
		err = s.file.Close()
	}
	if s.ring != nil {
		s.ring.drop()
	}
	if err := errors.Join(err, s.lock.Close()); err != nil {
		return fmt.Errorf("sealed: close: %w", err)
	}
	return nil
}

// Status says how the store is.
func (s *Store) Status() Status {
	s.mu.RLock()
	defer s.mu.RUnlock()
	h := s.header.public()
	return Status{
		Records: len(s.entries), Bytes: s.size + int64(len(s.mark)), Commits: s.seq,
		KeyKind: h.KeyKind, KeyID: h.KeyID, OlderKeys: h.Older, Foreign: s.foreign,
		Quarantined: slices.Clone(s.kept), Faults: slices.Clone(s.faults), Unwritable: s.failed,
	}
}

// Token is the worker's token as the last change left it; nil when there is none.
func (s *Store) Token() *Token {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.token == nil {
		return nil
	}
	t := *s.token
	return &t
}

// State is what the last change with a State gave; nil when none did.
func (s *Store) State() json.RawMessage {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return slices.Clone(s.state)
}

// Generation is the highest generation that was ever used.
func (s *Store) Generation() uint64 {
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.high
}

// OpenSecret makes the password of u what into, a slot that the caller borrowed, holds: exactly the
// password, which goes with the head that u came from. It makes no copy elsewhere and does not
// allocate. When it fails into is empty.
func (s *Store) OpenSecret(u *snapshot.Held, into *lockmem.Buffer) error {
	if err := s.begin(); err != nil {
		into.SetLen(0)
		return fmt.Errorf("sealed: %w", err)
	}
	defer s.users.Done()
	n, err := s.ring.openSecret(s.batch(u.Generation), u.Box, &u.HeadSum, into)
	if err == nil {
		room := into.Room()[:sumSize+n]
		copy(room, room[sumSize:])
	}
	into.SetLen(n) // and wipes the rest, the key too
	return err
}
