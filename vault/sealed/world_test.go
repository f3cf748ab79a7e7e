package sealed

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"batchwarden/platform/lockmem"
)

// world is one vault through a random history, on a disk that is stopped at every single call: what is
// there then must be what was before or what was after, whatever of the unsynced writes is lost.
type world struct {
	rnd    *rand.Rand
	chance chance // of rnd too: a history is the same every time
	arena  *lockmem.Arena
	hosts  [2][]*Key // the keys, as each of two hosts has them

	d       *disk
	s       *Store
	host    int
	at      int               // the key that the vault was opened with
	opens   map[int]bool      // keys that must open it; false: that may
	now     *state            // what the store serves
	legal   []*state          // what a crash may leave: what was acknowledged last, and all after it
	kept    map[string]string // the quarantined files
	mending bool              // what is on the disk was damaged, or is of another host

	step     string
	points   int // at which the power could fail
	states   int // that were looked at
	complain func(format string, args ...any)
}

// state is what a vault serves.
type state struct {
	entries map[string]string // by path: version and password or document
	token   string
	text    string // the caller's own
}

func (st *state) clone() *state {
	c := *st
	c.entries = maps.Clone(st.entries)
	return &c
}

func (st *state) String() string {
	var b strings.Builder
	for _, path := range slices.Sorted(maps.Keys(st.entries)) {
		fmt.Fprintf(&b, "%s %.60s\n", path, st.entries[path])
	}
	fmt.Fprintf(&b, "token %q state %q\n", st.token, st.text)
	return b.String()
}

// served reads all that the store serves.
func served(s *Store, a *lockmem.Arena) (*state, error) {
	st := &state{entries: map[string]string{}, text: string(s.State())}
	held, err := s.Entries(bg)
	if err != nil {
		return nil, err
	}
	for i := range held {
		h := held[i]
		text := ""
		if h.Policy != nil {
			text = string(h.Policy.Document)
		} else if err := a.Borrow(bg, func(b *lockmem.Buffer) error {
			err := s.OpenSecret(h, b)
			text = string(b.Bytes())
			return err
		}); err != nil {
			return nil, err
		}
		st.entries[h.ID.String()] = fmt.Sprintf("v%d %s", h.Version, text)
	}
	if t := s.Token(); t != nil {
		err := s.WithBatch(bg, t.Generation, func(key *lockmem.Buffer) error {
			text, err := OpenToken(key.Key(), t)
			st.token = string(text)
			return err
		})
		if err != nil {
			st.token = "broken" // only the worker looks into it
		}
	}
	return st, nil
}

func newWorld(t testing.TB, a *lockmem.Arena, keys []*Key, seed uint64, l lie, complain func(string, ...any)) *world {
	t.Helper()
	w := &world{
		rnd: rand.New(rand.NewPCG(seed, 7)), arena: a,
		opens: map[int]bool{0: true}, kept: map[string]string{},
		now: &state{entries: map[string]string{}},
	}
	w.chance.nonces = rand.NewChaCha8(sha256.Sum256([]byte(strconv.FormatUint(seed, 10))))
	w.chance.fill = func(b *lockmem.Buffer, n int) error {
		b.SetLen(n)
		_, err := w.chance.nonces.Read(b.Bytes())
		return err
	}
	said := false
	w.complain = func(format string, args ...any) {
		if said {
			return // what follows is no news
		}
		said = true
		complain("seed %d, %s: %s", seed, w.step, fmt.Sprintf(format, args...))
	}
	for i := range w.hosts {
		for _, k := range keys {
			on := *k
			on.Host = fmt.Sprintf("host %d", i)
			w.hosts[i] = append(w.hosts[i], &on)
		}
	}
	w.legal = []*state{w.now}
	w.use(newDisk(w.rnd), l)
	return w
}

func (w *world) use(d *disk, l lie) {
	w.d = d
	d.lie = l
	d.before = func() {
		w.points++
		for range 2 {
			w.lookWithSome(d.crash(w.rnd))
		}
		if w.rnd.IntN(4) == 0 {
			w.lookWithSome(d.killed(w.rnd))
		}
	}
}

func (w *world) lookWithSome(d *disk) {
	key, must := w.someKey()
	w.look(d, 0, key, must)
}

// look opens what a crash left with the key, which may not open it unless must is set, and says what is
// wrong with it.
func (w *world) look(d *disk, depth, key int, must bool) *state {
	w.states++
	settled := len(d.pending) == 0
	for _, n := range d.names {
		settled = settled && bytes.Equal(n.now, n.durable)
	}
	var nested []*state
	if depth < 2 && w.rnd.IntN(4) == 0 {
		d.before = func() {
			if w.rnd.IntN(3) == 0 {
				nested = append(nested, w.look(d.crash(w.rnd), depth+1, key, must))
			}
		}
	}
	s, err := openStore(d, w.hosts[w.host][key], w.arena, w.chance)
	d.before = nil
	if err != nil {
		if must || !errors.Is(err, ErrWrongKey) {
			w.complain("key %d, after a crash: %v", key, err)
		}
		return nil
	}
	defer func() {
		if err := s.Close(); err != nil {
			w.complain("close: %v", err)
		}
	}()
	got, err := served(s, w.arena)
	if err != nil {
		w.complain("after a crash: %v", err)
		return nil
	}
	if !w.isLegal(got) {
		w.complain("a crash left\n%vand these were legal:\n%v", got, w.legal)
	}
	for _, n := range nested {
		if settled && n != nil && n.String() != got.String() {
			w.complain("a crash while another was mended left\n%vnot\n%v", n, got)
		}
	}
	if depth == 0 && w.rnd.IntN(4) == 0 {
		// What is served once may not be something else after the next crash.
		legal := w.legal
		w.legal = []*state{got}
		w.look(d.crash(w.rnd), 2, key, true)
		w.legal = legal
	}
	w.judge(s.Status(), d)
	if w.rnd.IntN(8) == 0 {
		w.goOn(s, d, key, got)
	}
	return got
}

func (w *world) isLegal(got *state) bool {
	return slices.ContainsFunc(w.legal, func(l *state) bool { return l.String() == got.String() })
}

// judge looks at what the store says of itself, and at the quarantined files.
func (w *world) judge(st Status, d *disk) {
	if st.Unwritable != "" {
		w.complain("after a crash: %+v", st)
	}
	reported := len(st.Faults) > 0 || st.Foreign != ""
	if reported && !w.mending {
		w.complain("a crash is taken for damage: %+v", st)
	}
	for name, content := range w.kept {
		if n := d.names[name]; n == nil || string(n.now) != content {
			w.complain("the quarantined %s is gone or is another, %+v", name, st)
		}
	}
	for _, name := range st.Quarantined {
		if _, ok := w.kept[name]; !ok {
			w.complain("%s was quarantined: %+v", name, st)
		}
	}
}

// goOn makes a change in a vault that was opened after a crash, and lets the power fail.
func (w *world) goOn(s *Store, d *disk, key int, was *state) {
	e := user("u0", 99)
	err := s.NewBatch(bg, func(g uint64, key *lockmem.Buffer) error {
		r, err := sealRecord(w.chance.nonces, g, key.Key(), e, password(&e))
		if err != nil {
			return err
		}
		return s.Apply(bg, Change{Generation: g, Put: []Record{r}, State: []byte(`"went on"`)})
	})
	if err != nil {
		w.complain("after a crash nothing can be written: %v", err)
		return
	}
	want := was.clone()
	want.text = `"went on"`
	want.entries[e.ID.String()] = "v99 " + string(password(&e))
	after := d.crash(w.rnd)
	again, err := openStore(after, w.hosts[w.host][key], w.arena, w.chance)
	if err != nil {
		w.complain("after a crash, a change and a crash: %v", err)
		return
	}
	got, err := served(again, w.arena)
	if err = errors.Join(err, again.Close()); err != nil || got.String() != want.String() {
		w.complain("after a crash, a change and a crash: %v\n%vwanted\n%v", err, got, want)
	}
}

func (w *world) someKey() (key int, must bool) {
	all := slices.Sorted(maps.Keys(w.opens))
	key = all[w.rnd.IntN(len(all))]
	return key, w.opens[key]
}
