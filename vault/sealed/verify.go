package sealed

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"

	"batchwarden/platform/lockmem"
	"batchwarden/platform/safefile"
)

// Verified is what Verify has seen.
type Verified struct {
	Records     int
	Commits     uint64
	Quarantined []string // names of files that were kept aside before
	// Faults are what does not authenticate, one sentence each; the daemon would keep the file aside and go on without.
	Faults []string
}

// Verify looks at the vault in dir, which belongs to owner, as Open would: it follows the chain of commits and opens
// every record. It takes no lock and changes nothing, so the vault may be in use; a write that is under way is no
// fault. fs.ErrNotExist: there is none. ErrDamaged, ErrNewer, ErrWrongKey: nothing in it can be read.
func Verify(ctx context.Context, dir string, owner uint32, key *Key, arena *lockmem.Arena) (_ *Verified, err error) {
	rules := safefile.Rules{Self: true, Owners: []uint32{owner}, Mode: ours.Mode}
	data, err := safefile.Read(filepath.Join(dir, logName), maxFile, rules)
	if err != nil {
		return nil, fmt.Errorf("sealed: %w", err)
	}
	h, headerEnd, err := parseHeader(data)
	if err != nil {
		return nil, fmt.Errorf("sealed: %q: %w", filepath.Join(dir, logName), err)
	}
	if h.public().Foreign(key.Host) {
		return &Verified{Faults: []string{"the vault belongs to another machine (" + h.host + ")"}}, nil
	}
	box, ok := h.find(key.Kind, key.ID)
	if !ok {
		return nil, fmt.Errorf("sealed: %w: it was made with %q key %s", ErrWrongKey, h.public().KeyKind, h.public().KeyID)
	}
	ring, err := newRing(arena, chance{}) // nothing is made
	if err != nil {
		return nil, fmt.Errorf("sealed: %w", err)
	}
	defer ring.drop()
	if err := ring.load(ctx, key, h.host, box.box); err != nil {
		return nil, fmt.Errorf("sealed: %w", err)
	}
	c, err := read(ctx, ring, data, headerEnd)
	if err != nil {
		return nil, err
	}
	v := &Verified{Records: len(c.entries), Commits: c.seq, Faults: c.faults}
	if c.seq == 0 && len(v.Faults) == 0 {
		v.Faults = append(v.Faults, "there is no commit in the vault")
	}
	if err := v.open(ctx, ring, c); err != nil {
		return nil, err
	}
	s := Store{files: directory(dir)}
	s.listQuarantine()
	if s.failed != "" {
		return nil, errors.New("sealed: " + s.failed)
	}
	v.Quarantined = s.kept
	return v, nil
}

// open opens every record, passwords too.
func (v *Verified) open(ctx context.Context, r *ring, c *content) error {
	puts := slices.SortedFunc(maps.Values(c.entries), byGeneration)
	o, err := r.openAll(ctx, c.batches, puts, true)
	if err != nil {
		return fmt.Errorf("sealed: %w", err)
	}
	bad := 0
	for i := range o.errs {
		if o.errs[i] != nil || o.tags[i] != puts[i].tag {
			bad++
		}
	}
	if bad > 0 {
		v.Faults = append(v.Faults, fmt.Sprintf("%d of %d records cannot be opened", bad, len(puts)))
	}
	return nil
}
