package sealed

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"batchwarden/platform/lockmem"
	"batchwarden/vault/snapshot"
)

func fixChecksum(data []byte, headerEnd int) {
	sum := sha256.Sum256(data[:headerEnd-checksumSize])
	copy(data[headerEnd-checksumSize:], sum[:checksumSize])
}

// flip changes one octet, and not to zero: a part of a mark that is zeros was never written.
func flip(data []byte, at int) {
	bit := byte(1) << (at % 8)
	if data[at] == bit {
		bit = ^bit
	}
	data[at] ^= bit
}

// sample is a vault of several commits.
type sample struct {
	arena  *lockmem.Arena
	key    *Key
	dir    string
	data   []byte
	header int
	ends   []int      // where each commit ends
	states [][]string // what the vault served after it
}

// inMemory is a directory where fsync costs nothing, if there is one: these tests open thousands of
// vaults.
func inMemory(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "batchwarden-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return dir
}

func newSample(t testing.TB) *sample {
	t.Helper()
	a := newArena(t)
	v := &sample{arena: a, key: newKey(t, a, "id", 1), dir: filepath.Join(inMemory(t), "vault")}
	s := openIn(t, v.dir, v.key, a)
	mark := func() {
		v.ends = append(v.ends, int(s.Status().Bytes)-markSize)
		v.states = append(v.states, dump(t, s, a))
	}
	mark()
	mustSeal(t, s, Change{State: []byte("1")}, user("a", 1), user("b", 1), user("c", 1), policy("p", "one"))
	mark()
	mustSeal(t, s, Change{Remove: []snapshot.ID{user("b", 0).ID}}, user("a", 2))
	mark()
	mustSeal(t, s, Change{State: []byte("2")}, user("d", 1), policy("p", "two"))
	mark()
	err := s.NewBatch(bg, func(g uint64, key *lockmem.Buffer) error {
		token, err := SealToken(g, key.Key(), []byte("hvs"))
		if err != nil {
			return err
		}
		return s.Apply(bg, Change{Generation: g, Token: &token, Remove: []snapshot.ID{user("c", 0).ID}})
	})
	if err != nil {
		t.Fatal(err)
	}
	mark()
	closing(t, s)
	if v.data, err = os.ReadFile(v.log()); err != nil {
		t.Fatal(err)
	}
	if _, v.header, err = parseHeader(v.data); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v *sample) log() string { return filepath.Join(v.dir, logName) }

// open puts data in the place of the vault and opens it, in an otherwise empty directory.
func (v *sample) open(t testing.TB, data []byte) (*Store, []string) {
	t.Helper()
	if err := os.RemoveAll(v.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(v.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(v.log(), data, 0o600); err != nil {
		t.Fatal(err)
	}
	s := openIn(t, v.dir, v.key, v.arena)
	return s, dump(t, s, v.arena)
}

// final is the state after the last commit.
func (v *sample) final() []string { return v.states[len(v.states)-1] }

// judge says what is wrong with what was served from a damaged copy: only what is in force may be, and
// the damage must be reported and the copy kept.
func (v *sample) judge(t testing.TB, what string, s *Store, got []string, data []byte) {
	t.Helper()
	for _, line := range got {
		if !slices.Contains(v.final(), line) {
			t.Errorf("%s: served %q, which is not in force", what, line)
		}
	}
	v.reported(t, what, s, data)
}

func (v *sample) reported(t testing.TB, what string, s *Store, data []byte) {
	t.Helper()
	st := s.Status()
	if len(st.Faults) == 0 || len(st.Quarantined) != 1 {
		t.Errorf("%s: not reported: %+v", what, st)
		return
	}
	kept, err := os.ReadFile(filepath.Join(v.dir, st.Quarantined[0]))
	if err != nil || !bytes.Equal(kept, data) {
		t.Errorf("%s: the damaged file was not kept: %v", what, err)
	}
}

// again opens the vault once more: what Open mended must stay mended.
func (v *sample) again(t testing.TB, what string, s *Store, want []string) {
	t.Helper()
	closing(t, s)
	s = openIn(t, v.dir, v.key, v.arena)
	same(t, what+", opened again", dump(t, s, v.arena), want)
	if st := s.Status(); len(st.Faults) != 0 || st.Unwritable != "" {
		t.Errorf("%s: still damaged: %+v", what, st)
	}
	closing(t, s)
}

// TestTornTailIsCut cuts the file at every octet of the last change: no write of a change that did not
// end is taken for damage.
func TestTornTailIsCut(t *testing.T) {
	v := newSample(t)
	last := len(v.ends) - 1
	for cut := v.ends[last-1]; cut < len(v.data); cut++ {
		for _, zeros := range []int{0, 1, 700} {
			data := append(slices.Clone(v.data[:cut]), make([]byte, zeros)...)
			want := v.states[last-1]
			if end := v.ends[last]; len(data) >= end && bytes.Equal(data[:end], v.data[:end]) {
				want = v.states[last] // only the mark is not whole: what is cut off were zeros, if anything was
			}
			s, got := v.open(t, data)
			what := fmt.Sprintf("cut at %d of %d and %d zeros", cut, len(v.data), zeros)
			same(t, what, got, want)
			if st := s.Status(); len(st.Faults)+len(st.Quarantined) != 0 {
				t.Fatalf("%s: %+v", what, st)
			}
			if cut%36 == 0 {
				mustSeal(t, s, Change{}, user("new", 1))
				v.again(t, what, s, slices.Sorted(slices.Values(append(slices.Clone(want), `machines/db01/batch_users/new v1 pass word of new, version 1`))))
				continue
			}
			closing(t, s)
		}
	}
}

func TestOlderFileIsWhatItWas(t *testing.T) {
	v := newSample(t)
	for i, end := range v.ends {
		s, got := v.open(t, v.data[:end+markSize])
		same(t, fmt.Sprintf("cut behind commit %d", i), got, v.states[i])
		if st := s.Status(); len(st.Faults) != 0 || st.Commits != uint64(i+1) {
			t.Errorf("cut behind commit %d: %+v", i, st)
		}
		closing(t, s)
	}
}

func TestFlippedOctetIsNeverServed(t *testing.T) {
	v := newSample(t)
	last := v.ends[len(v.ends)-2]
	inHead, inCommit := map[int]bool{}, map[int]bool{}
	for at := v.header; at < len(v.data); {
		f, err := frameAt(v.data, at)
		if err != nil {
			t.Fatal(err)
		}
		for i := range f.whole {
			inHead[at+i] = i < frameHead
			inCommit[at+i] = f.kind == commitFrame
		}
		at += len(f.whole)
	}
	for at := range v.data {
		if at%11 != 0 && !inHead[at] {
			continue
		}
		data := slices.Clone(v.data)
		flip(data, at)
		s, got := v.open(t, data)
		what := fmt.Sprintf("octet %d flipped", at)
		switch {
		case at >= last:
			// In the last commit it looks like a write that never ended.
			v.reported(t, what, s, data)
			if !slices.Equal(got, v.states[len(v.states)-2]) {
				v.judge(t, what, s, got, data)
			}
		default:
			v.judge(t, what, s, got, data)
			// One record is lost; a commit says what became of all before it, and takes them along.
			if at >= v.ends[0] && !inCommit[at] && len(got) < len(v.final())-1 {
				t.Errorf("%s: only %q is left", what, got)
			}
		}
		if at%55 == 0 {
			v.again(t, what, s, got)
			continue
		}
		closing(t, s)
	}
}

func TestRearrangedCommitsAreNeverServed(t *testing.T) {
	v := newSample(t)
	part := func(i int) []byte { // 0 is header and first commit
		if i == 0 {
			return v.data[:v.ends[0]]
		}
		return v.data[v.ends[i-1]:v.ends[i]]
	}
	for name, order := range map[string][]int{
		"the second missing": {0, 2, 3, 4}, "the third missing": {0, 1, 3, 4}, "two swapped": {0, 2, 1, 3, 4},
		"one twice": {0, 1, 1, 2, 3, 4}, "one again at the end": {0, 1, 2, 3, 4, 1}, "all again": {0, 1, 2, 3, 4, 1, 2, 3, 4},
		"the last two swapped": {0, 1, 2, 4, 3}, "only the last": {0, 4},
	} {
		var data []byte
		for _, i := range order {
			data = append(data, part(i)...)
		}
		s, got := v.open(t, data)
		v.judge(t, name, s, got, data)
		v.again(t, name, s, got)
	}
	// Without the first commit after the header.
	data := append(slices.Clone(v.data[:v.header]), v.data[v.ends[0]:]...)
	s, got := v.open(t, data)
	v.judge(t, "the first missing", s, got, data)
	closing(t, s)
}

func TestRearrangedFramesAreNeverServed(t *testing.T) {
	v := newSample(t)
	var frames [][]byte
	for at := v.header; at < len(v.data); {
		f, err := frameAt(v.data, at)
		if err != nil {
			t.Fatal(err)
		}
		frames = append(frames, f.whole)
		at += len(f.whole)
	}
	join := func(frames [][]byte) []byte {
		return append(slices.Clone(v.data[:v.header]), slices.Concat(frames...)...)
	}
	check := func(what string, frames [][]byte) {
		t.Helper()
		data := join(frames)
		if bytes.HasPrefix(v.data, data) {
			return
		}
		s, got := v.open(t, data)
		for _, line := range got {
			if !slices.Contains(v.final(), line) && !slices.Contains(v.states[len(v.states)-2], line) {
				t.Errorf("%s: served %q", what, line)
			}
		}
		v.reported(t, what, s, data)
		closing(t, s)
	}
	for i := range frames {
		check(fmt.Sprintf("frame %d missing", i), slices.Delete(slices.Clone(frames), i, i+1))
		check(fmt.Sprintf("frame %d twice", i), slices.Insert(slices.Clone(frames), i, frames[i]))
		if k := frameType(frames[i][0]); k != batchFrame && k != removeFrame { // which look like a change that began
			check(fmt.Sprintf("frame %d again at the end", i), append(slices.Clone(frames), frames[i]))
		}
		for j := range i {
			swapped := slices.Clone(frames)
			swapped[i], swapped[j] = swapped[j], swapped[i]
			check(fmt.Sprintf("frames %d and %d swapped", j, i), swapped)
		}
	}
}

func TestRandomDamage(t *testing.T) {
	v := newSample(t)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 300 {
		data := slices.Clone(v.data)
		at := v.header + random.IntN(v.ends[len(v.ends)-2]-v.header)
		n := 1 + random.IntN(min(2000, v.ends[len(v.ends)-2]-at))
		for j := at; j < at+n; j++ {
			data[j] = byte(random.Uint32())
		}
		s, got := v.open(t, data)
		v.judge(t, fmt.Sprintf("round %d, %d octets at %d", i, n, at), s, got, data)
		closing(t, s)
	}
}

func TestDamagedHeaderGivesAllUp(t *testing.T) {
	v := newSample(t)
	for name, data := range map[string][]byte{
		"empty": {}, "garbage": []byte(strings.Repeat("garbage ", 100)), "cut header": v.data[:v.header-1],
		"header alone": v.data[:v.header],
	} {
		s, got := v.open(t, data)
		same(t, name, got, nil)
		v.reported(t, name, s, data)
		mustSeal(t, s, Change{}, user("new", 1))
		v.again(t, name, s, []string{`machines/db01/batch_users/new v1 pass word of new, version 1`})
	}
}

func FuzzRead(f *testing.F) {
	v := newSample(f)
	f.Add(v.data[v.header:])
	f.Add(v.data[v.ends[2]:])
	f.Add([]byte{})
	final := map[string]bool{}
	for _, state := range v.states {
		for _, line := range state {
			final[line] = true
		}
	}
	h, n, err := parseHeader(v.data)
	if err != nil {
		f.Fatal(err)
	}
	r, err := newRing(v.arena, realChance())
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(r.drop)
	if err := r.load(bg, v.key, h.host, h.boxes[0].box); err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, log []byte) {
		// The reader alone: what is written to a disk after it is another test's.
		c, err := read(bg, r, append(slices.Clone(v.data[:n]), log...), n)
		if err != nil {
			t.Fatal(err)
		}
		s := &Store{ring: r}
		s.use(c)
		for _, line := range dump(t, s, v.arena) {
			if !final[line] {
				t.Errorf("served %q", line)
			}
		}
	})
}
