package sealed

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"batchwarden/platform/lockmem"
	"batchwarden/vault/snapshot"
)

func TestCompaction(t *testing.T) {
	a := newArena(t)
	k := newKey(t, a, "id", 1)
	dir := filepath.Join(t.TempDir(), "vault")
	s := openIn(t, dir, k, a)
	big := strings.Repeat("x", 200_000)
	mustSeal(t, s, Change{}, user("stays", 1), user("goes", 1))
	mustSeal(t, s, Change{Remove: []snapshot.ID{user("goes", 0).ID}})
	var top, shrunk int64
	for i := range 20 {
		before := s.Status().Bytes
		mustSeal(t, s, Change{State: fmt.Appendf(nil, "%d", i)}, policy("p", fmt.Sprint(i, big)))
		top = max(top, s.Status().Bytes)
		if s.Status().Bytes < before {
			shrunk++
		}
	}
	if shrunk < 2 || top > 1_700_000 {
		t.Errorf("%d compactions, at most %d octets", shrunk, top)
	}
	want := dump(t, s, a)
	if len(want) != 2 || !strings.HasPrefix(want[0], "groups/x/policies/p v3 document 19xxx") || !strings.HasSuffix(want[1], "pass word of stays, version 1") {
		t.Fatalf("got %q", want)
	}
	closing(t, s)
	info, err := os.Stat(filepath.Join(dir, logName))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	s = openIn(t, dir, k, a)
	same(t, "after a restart", dump(t, s, a), want)
	if string(s.State()) != "19" || s.Status().Bytes != info.Size() || len(s.Status().Faults) != 0 {
		t.Errorf("state %s, %+v", s.State(), s.Status())
	}
	closing(t, s)
}

func TestThousandEntries(t *testing.T) {
	a := newArena(t)
	k := newKey(t, a, "id", 1)
	dir := filepath.Join(t.TempDir(), "vault")
	s := openIn(t, dir, k, a)
	entries := make([]snapshot.Entry, 1000)
	for i := range entries {
		entries[i] = user(fmt.Sprintf("user%04d", i), 1)
	}
	mustSeal(t, s, Change{}, entries...)
	want := dump(t, s, a)
	if len(want) != 1000 {
		t.Fatalf("%d entries", len(want))
	}
	size := s.Status().Bytes
	closing(t, s)
	start := time.Now()
	s = openIn(t, dir, k, a)
	opened := time.Since(start)
	if _, err := s.Entries(bg); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d octets; opened in %v, heads in %v", size, opened, time.Since(start)-opened)
	same(t, "after a restart", dump(t, s, a), want)
	ids := make([]snapshot.ID, 0, 500)
	for _, e := range entries[:500] {
		ids = append(ids, e.ID)
	}
	if err := s.Apply(bg, Change{Remove: ids}); err != nil {
		t.Fatal(err)
	}
	same(t, "half removed", dump(t, s, a), want[500:])
	closing(t, s)
}

func TestUnusedBatchesAreForgotten(t *testing.T) {
	a := newArena(t)
	s := openIn(t, filepath.Join(t.TempDir(), "vault"), newKey(t, a, "id", 1), a)
	defer closing(t, s)
	mustSeal(t, s, Change{}, user("pay", 1))
	for range 3 * spareBatches {
		if err := s.NewBatch(bg, func(uint64, *lockmem.Buffer) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.batches); n != spareBatches+1 {
		t.Errorf("%d keys are held", n)
	}
	if got := dump(t, s, a); len(got) != 1 {
		t.Errorf("the key in use is gone: %q", got)
	}
}

// failing is the real directory with calls that fail, counted over all of them.
type failing struct {
	directory
	left int // calls until one fails; negative: never
	err  error
}

type failingFile struct {
	file
	d *failing
}

func (d *failing) fail() error {
	if d.left == 0 {
		return d.err
	}
	d.left--
	return nil
}

func (d *failing) Open(name string) (file, error) {
	f, err := d.directory.Open(name)
	return &failingFile{f, d}, errors.Join(d.fail(), err)
}

func (d *failing) Create(name string) (file, error) {
	if err := d.fail(); err != nil {
		return nil, err
	}
	f, err := d.directory.Create(name)
	return &failingFile{f, d}, err
}

func (d *failing) Rename(from, to string) error {
	if err := d.fail(); err != nil {
		return err
	}
	return d.directory.Rename(from, to)
}

func (d *failing) SyncDir() error {
	if err := d.fail(); err != nil {
		return err
	}
	return d.directory.SyncDir()
}

func (f *failingFile) WriteAt(p []byte, at int64) (int, error) {
	if err := f.d.fail(); err != nil {
		n, err2 := f.file.WriteAt(p[:len(p)/2], at)
		return n, errors.Join(err, err2)
	}
	return f.file.WriteAt(p, at)
}

func (f *failingFile) Truncate(size int64) error {
	if err := f.d.fail(); err != nil {
		return err
	}
	return f.file.Truncate(size)
}

func (f *failingFile) Sync() error {
	if err := f.d.fail(); err != nil {
		return err
	}
	return f.file.Sync()
}

// TestFailedWrites lets every single call of a change fail, for good or once, in appending and in
// compacting. The store must go on with the change, and the disk must hold what was before or all of it.
func TestFailedWrites(t *testing.T) {
	noSpace := errors.New("no space left")
	big := strings.Repeat("x", 700_000)
	for name, document := range map[string]string{"appending": "new", "compacting": big + "new"} {
		for _, forGood := range []bool{true, false} {
			failed := 0
			for at := 0; ; at++ {
				what := fmt.Sprintf("%s, call %d, for good %v", name, at, forGood)
				a := newArena(t)
				k := newKey(t, a, "id", 1)
				d, err := openDirectory(filepath.Join(inMemory(t), "vault"))
				if err != nil {
					t.Fatal(err)
				}
				fsys := &failing{directory: d, left: -1, err: noSpace}
				s, err := openStore(fsys, k, a, realChance())
				if err != nil {
					t.Fatal(err)
				}
				mustSeal(t, s, Change{}, policy("p", big+"1"))
				mustSeal(t, s, Change{}, policy("p", big+"2"), user("goes", 1))
				before := dump(t, s, a)
				after := reference(t, a, k, policy("p", document))
				change := Change{Remove: []snapshot.ID{user("goes", 0).ID}}
				fsys.left = at
				err = sealAll(s, change, policy("p", document))
				if !forGood {
					fsys.left = -1
				}
				if err == nil {
					same(t, what, dump(t, s, a), after)
					closing(t, s)
					break
				}
				failed++
				if !errors.Is(err, noSpace) || !errors.Is(err, ErrUnwritten) || !strings.Contains(s.Status().Unwritable, "no space left") {
					t.Errorf("%s: got %v, %+v", what, err, s.Status())
				}
				same(t, what, dump(t, s, a), after)
				// What a crash now would find.
				crashed := filepath.Join(inMemory(t), "crashed")
				if err := os.CopyFS(crashed, os.DirFS(string(d))); err != nil {
					t.Fatal(err)
				}
				if err := errors.Join(os.Chmod(crashed, 0o700), os.Chmod(filepath.Join(crashed, logName), 0o600)); err != nil {
					t.Fatal(err)
				}
				c := openIn(t, crashed, k, a)
				if got := dump(t, c, a); !slices.Equal(got, before) && !slices.Equal(got, after) {
					t.Errorf("%s: after a crash neither before nor after", what)
				}
				if st := c.Status(); len(st.Faults) != 0 {
					t.Errorf("%s: after a crash: %+v", what, st)
				}
				closing(t, c)
				// And once there is room again, the next change goes through, even if it is none.
				fsys.left = -1
				if err := s.Apply(bg, Change{}); err != nil {
					t.Errorf("%s, tried again: %v", what, err)
				}
				same(t, what+", tried again", dump(t, s, a), after)
				if u := s.Status().Unwritable; u != "" {
					t.Errorf("%s: still %q", what, u)
				}
				closing(t, s)
				c = openIn(t, string(d), k, a)
				same(t, what+", opened again", dump(t, c, a), after)
				closing(t, c)
			}
			if failed < 2 {
				t.Errorf("%s: only %d calls could fail", name, failed)
			}
		}
	}
}

// reference is what a vault with just these entries serves.
func reference(t *testing.T, a *lockmem.Arena, k *Key, entries ...snapshot.Entry) []string {
	t.Helper()
	s := openIn(t, filepath.Join(inMemory(t), "vault"), k, a)
	defer closing(t, s)
	mustSeal(t, s, Change{}, entries...)
	return dump(t, s, a)
}

// TestDamagedAndUnwritable: a damaged vault on a full disk is served from memory, and not overwritten
// before it is kept aside.
func TestDamagedAndUnwritable(t *testing.T) {
	v := newSample(t)
	data := slices.Clone(v.data)
	data[v.ends[0]+300] ^= 1
	s, want := v.open(t, data)
	closing(t, s)
	if err := errors.Join(os.RemoveAll(v.dir), os.Mkdir(v.dir, 0o700), os.WriteFile(v.log(), data, 0o600)); err != nil {
		t.Fatal(err)
	}
	fsys := &failing{directory: directory(v.dir), left: 0, err: fs.ErrPermission}
	s, err := openStore(fsys, v.key, v.arena, realChance())
	if err != nil {
		t.Fatal(err)
	}
	same(t, "served", dump(t, s, v.arena), want)
	if st := s.Status(); len(st.Faults) == 0 || st.Unwritable == "" || len(st.Quarantined) != 0 {
		t.Errorf("%+v", st)
	}
	if err := sealAll(s, Change{}, user("new", 1)); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v", err)
	}
	if now, err := os.ReadFile(v.log()); err != nil || !slices.Equal(now, data) {
		t.Errorf("the damaged vault was changed: %v", err)
	}
	fsys.left = -1
	mustSeal(t, s, Change{}, user("new", 1))
	v.reported(t, "once it can be written", s, data)
	v.again(t, "once it can be written", s, append(slices.Clone(want), `machines/db01/batch_users/new v1 pass word of new, version 1`))
}

func BenchmarkStore(b *testing.B) {
	a := newArena(b)
	k := newKey(b, a, "id", 1)
	dir := filepath.Join(b.TempDir(), "vault")
	s := openIn(b, dir, k, a)
	entries := make([]snapshot.Entry, 10_000)
	for i := range entries {
		entries[i] = user(fmt.Sprintf("user%05d", i), 1)
	}
	mustSeal(b, s, Change{}, entries...)
	held, err := s.Entries(bg)
	if err != nil {
		b.Fatal(err)
	}
	b.Run("OpenSecret", func(b *testing.B) {
		i := 0
		open := func(slot *lockmem.Buffer) error { return s.OpenSecret(held[i%len(held)], slot) }
		b.ReportAllocs()
		for b.Loop() {
			i++
			if err := a.Borrow(bg, open); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("Entries10000", func(b *testing.B) {
		for b.Loop() {
			if _, err := s.Entries(bg); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("ApplyOne", func(b *testing.B) {
		v := int64(1)
		for b.Loop() {
			v++
			mustSeal(b, s, Change{}, user("user00000", v))
		}
	})
	b.Run("Apply10000", func(b *testing.B) { // as a first synchronization does
		records := make([]Record, len(entries))
		for b.Loop() {
			b.StopTimer()
			var c Change
			err := s.NewBatch(bg, func(g uint64, key *lockmem.Buffer) (err error) {
				c.Generation = g
				for i, e := range entries {
					if records[i], err = Seal(g, key.Key(), e, password(&e)); err != nil {
						return err
					}
				}
				return nil
			})
			b.StartTimer()
			if err == nil {
				c.Opened, err = s.OpenHeads(bg, records)
			}
			if err == nil {
				err = s.Apply(bg, c)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("OpenAndEntries10000", func(b *testing.B) {
		for b.Loop() {
			closing(b, s)
			s, held = nil, nil
			s = openIn(b, dir, k, a)
			if held, err = s.Entries(bg); err != nil || len(held) != len(entries) {
				b.Fatal(err)
			}
		}
		var m runtime.MemStats
		entries = nil
		runtime.GC()
		runtime.ReadMemStats(&m)
		b.ReportMetric(float64(m.HeapAlloc)/1e6, "heapMB")
		runtime.KeepAlive(held)
	})
	closing(b, s)
}
