package sealed

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"batchwarden/platform/lockmem"
	"batchwarden/vault/snapshot"
)

// run makes steps of the history.
func (w *world) run(steps int, failed func() bool) {
	for i := 0; i < steps && !failed(); i++ {
		if w.s == nil {
			w.step = fmt.Sprintf("step %d, open", i)
			w.open()
			continue
		}
		if w.d.fails == nil && w.rnd.IntN(3) == 0 {
			w.d.fails = w.failure()
		} else if w.rnd.IntN(3) > 0 {
			w.d.fails = nil
		}
		name, f := "apply", w.apply
		switch n := w.rnd.IntN(20); {
		case n < 2:
			name, f = "rekey", w.rekey
		case n < 4:
			name, f = "end", w.end
		case n < 5:
			name, f = "kill", func() { w.stop(w.d.killed(w.rnd)) }
		case n < 6:
			name, f = "power failure", func() { w.stop(w.d.crash(w.rnd)) }
		case n < 7:
			name, f = "damage", w.damage
		case n == 7 && i%4 == 0:
			name, f = "another host", w.move
		}
		w.step = fmt.Sprintf("step %d, %s", i, name)
		f()
	}
	w.d.before, w.d.fails = nil, nil
	if w.s != nil {
		w.end()
	}
}

// failure makes some call to come fail, and perhaps more behind it.
func (w *world) failure() func() error {
	left := w.rnd.IntN(8)
	many := 1
	if w.rnd.IntN(2) == 0 {
		many = 1 + w.rnd.IntN(20)
	}
	err := []error{errors.New("no space left on device"), errors.New("input/output error")}[w.rnd.IntN(2)]
	return func() error {
		if left--; left >= 0 || left < -many {
			return nil
		}
		return err
	}
}

// attempt makes next what a crash may leave, and what is served, and f the step that writes it.
func (w *world) attempt(next *state, f func() error) {
	w.legal = append(w.legal, next)
	w.now = next
	switch err := f(); {
	case err == nil:
		w.acknowledged()
	case !errors.Is(err, ErrUnwritten) || w.d.fails == nil && w.d.lie == honest:
		w.complain("%v", err)
	}
	if got, err := served(w.s, w.arena); err != nil || got.String() != next.String() {
		w.complain("%v; served\n%vnot\n%v", err, got, next)
	}
}

func (w *world) apply() {
	next := w.now.clone()
	var c Change
	var entries []snapshot.Entry
	used := map[int]bool{}
	for range w.rnd.IntN(4) {
		n := w.rnd.IntN(8)
		if used[n] {
			continue
		}
		used[n] = true
		e := user(fmt.Sprintf("u%d", n), w.rnd.Int64N(1000))
		text := string(password(&e))
		if n == 0 {
			text = strings.Repeat(strconv.Itoa(w.rnd.IntN(1e9)), w.rnd.IntN(300))
			e = policy("p", text)
		}
		entries = append(entries, e)
		next.entries[e.ID.String()] = fmt.Sprintf("v%d %s", e.Version, text)
	}
	for range w.rnd.IntN(3) {
		n := w.rnd.IntN(8)
		id := user(fmt.Sprintf("u%d", n), 1).ID
		if !used[n] {
			c.Remove = append(c.Remove, id)
			delete(next.entries, id.String())
		}
	}
	if w.rnd.IntN(2) == 0 {
		next.text = strconv.Itoa(w.rnd.IntN(1e9))
		c.State = []byte(next.text)
	}
	if w.rnd.IntN(4) == 0 {
		next.token = fmt.Sprintf("hvs.%d", w.rnd.IntN(1e9))
	}
	w.attempt(next, func() error {
		return w.s.NewBatch(bg, func(g uint64, key *lockmem.Buffer) error {
			c.Generation = g
			for _, e := range entries {
				r, err := sealRecord(w.chance.nonces, g, key.Key(), e, password(&e))
				if err != nil {
					return err
				}
				c.Put = append(c.Put, r)
			}
			if next.token != "" {
				box, err := seal(w.chance.nonces, []byte(tokenMark+next.token), key.Key())
				if err != nil {
					return err
				}
				c.Token = &Token{g, box}
			}
			return w.s.Apply(bg, c)
		})
	})
}

func (w *world) rekey() {
	to := w.rnd.IntN(len(w.hosts[0]))
	if _, ok := w.opens[to]; !ok {
		w.opens[to] = false
	}
	switch err := w.s.Rekey(bg, w.hosts[w.host][to]); {
	case err == nil:
		w.opens[to] = true
		if w.s.file != nil {
			w.acknowledged()
		}
	case !errors.Is(err, ErrUnwritten) || w.d.fails == nil && w.d.lie == honest:
		w.complain("%v", err)
	}
}

// end closes the vault, stop lets its process end in another way; the next step opens what is then there.
func (w *world) end() {
	if err := w.s.Close(); err != nil {
		w.complain("close: %v", err)
	}
	w.s = nil
}

func (w *world) stop(d *disk) {
	l := w.d.lie
	w.end()
	w.use(d, l)
}

// damage flips a bit of what is on the disk.
func (w *world) damage() {
	w.end()
	n := w.settle()
	if n == nil {
		return
	}
	at, bit := w.rnd.IntN(len(n.now)), byte(1)<<w.rnd.IntN(8)
	if n.now[at] == bit {
		return // zeros behind the last commit are no damage
	}
	n.now[at] ^= bit
	n.durable = bytes.Clone(n.now)
	w.mend()
}

// move takes the disk to the other host.
func (w *world) move() {
	w.end()
	if w.settle() == nil {
		return
	}
	w.host = 1 - w.host
	w.mend()
}

// settle lets the disk come to rest and returns the vault's file; nil when it is not what is served.
func (w *world) settle() *inode {
	if len(w.legal) > 1 || w.mending || w.d.fails != nil || w.d.lie != honest {
		return nil
	}
	w.d.durable, w.d.pending = maps.Clone(w.d.names), nil
	for _, n := range w.d.names {
		n.durable, n.pending = bytes.Clone(n.now), nil
	}
	return w.d.names[logName]
}

// mend makes what a copy of the disk serves the state that the next Open must come to.
func (w *world) mend() {
	was := w.now
	n := w.d.names[logName]
	sum := sha256.Sum256(n.now)
	copied := w.d.killed(w.rnd)
	s, err := openStore(copied, w.hosts[w.host][w.at], w.arena, w.chance)
	if err != nil {
		w.complain("damage: %v", err)
		return
	}
	got, err := served(s, w.arena)
	st := s.Status()
	if err = errors.Join(err, s.Close()); err != nil {
		w.complain("damage: %v", err)
		return
	}
	for path, text := range got.entries {
		if was.entries[path] != text {
			w.complain("damage: served %s %s", path, text)
		}
	}
	if st.Foreign != "" && len(got.entries)+len(got.token)+len(got.text) > 0 {
		w.complain("another host's vault: served %v", got)
	}
	w.opens = map[int]bool{w.at: true} // what opens a damaged header is another matter
	if len(st.Faults) == 0 && st.Foreign == "" {
		w.complain("the damage was not seen: %+v", st)
		return
	}
	w.now, w.legal, w.mending = got, []*state{got}, true
	w.kept[quarantinePart+hex.EncodeToString(sum[:8])] = string(n.now)
	w.open()
}

// open opens what is there with one of the keys, which then alone opens it.
func (w *world) open() {
	key, must := w.someKey()
	for !must {
		key, must = w.someKey()
	}
	if w.mending {
		key = w.at
	}
	for k := range w.opens {
		w.opens[k] = k == key
	}
	s, err := openStore(w.d, w.hosts[w.host][key], w.arena, w.chance)
	if err != nil {
		w.complain("open: %v", err)
		return
	}
	s.spare = 4096
	w.s, w.at = s, key
	got, err := served(s, w.arena)
	if err != nil || !w.isLegal(got) {
		w.complain("open: %v\n%vand these were legal:\n%v", err, got, w.legal)
	}
	w.now = got
	st := s.Status()
	switch {
	case st.Unwritable == "":
		w.judge(st, w.d)
		w.acknowledged()
		w.opens = map[int]bool{key: true}
		w.refuse((key + 1) % len(w.hosts[0]))
	case w.d.fails == nil && w.d.lie == honest:
		w.complain("open: %+v", st)
	}
}

// acknowledged notes that the disk has what is served.
func (w *world) acknowledged() { w.legal, w.mending = []*state{w.now}, false }

// refuse tries a key that does not open the vault any more, or never did.
func (w *world) refuse(key int) {
	s, err := openStore(w.d.killed(w.rnd), w.hosts[w.host][key], w.arena, w.chance)
	if err == nil {
		err = s.Close()
		w.complain("key %d opens the vault (%v)", key, err)
	} else if !errors.Is(err, ErrWrongKey) {
		w.complain("key %d: %v", key, err)
	}
}

// crashSlice is how many points at which the power may fail an ordinary test run looks at.
const (
	crashSlice = 600
	crashSoak  = 10_000 // and a soak at least
)

// soak says how long to go on, and with which dice.
func soak(t *testing.T) (seed uint64, points int, until time.Time) {
	t.Helper()
	if os.Getenv("BATCHWARDEN_SOAK") == "" {
		return 1, crashSlice, time.Time{}
	}
	seed, err := strconv.ParseUint(os.Getenv("BATCHWARDEN_SEED"), 10, 64)
	if err != nil {
		t.Fatalf("BATCHWARDEN_SEED: %v", err)
	}
	d, err := time.ParseDuration(os.Getenv("BATCHWARDEN_SOAK_TIME"))
	if err != nil {
		t.Fatalf("BATCHWARDEN_SOAK_TIME: %v", err)
	}
	return seed, crashSoak, time.Now().Add(d)
}

func crashKeys(t testing.TB, a *lockmem.Arena) (keys []*Key) {
	t.Helper()
	for i := range 3 {
		keys = append(keys, newKey(t, a, fmt.Sprintf("key %d", i), byte(i+1)))
	}
	return keys
}

// TestSoakCrash lets the power fail at every call of many random histories, and the calls themselves.
func TestSoakCrash(t *testing.T) {
	seed, least, until := soak(t)
	a := newArena(t)
	keys := crashKeys(t, a)
	points, states, histories := 0, 0, 0
	for ; (points < least || time.Now().Before(until)) && !t.Failed(); histories++ {
		w := newWorld(t, a, keys, seed*1_000_003+uint64(histories), honest, t.Errorf)
		w.run(60, t.Failed)
		points += w.points
		states += w.states
	}
	t.Logf("%d histories, %d points at which the power failed, %d states of the disk", histories, points, states)
}

// TestCrashesAreFound: the same on disks, or below writers, that do wrong. Each must be found out.
func TestCrashesAreFound(t *testing.T) {
	a := newArena(t)
	keys := crashKeys(t, a)
	for name, l := range map[string]lie{
		"files are not synced": noSync, "names are not synced": noDirSync, "the commit comes before the data": commitFirst,
		"a new file is written over the old one": inPlace, "a failed fsync is tried again": forgivingSync,
		"a file is synced after its renaming": syncAfterwards,
	} {
		t.Run(name, func(t *testing.T) {
			found, points := "", 0
			for seed := uint64(1); found == "" && points < 20_000; seed++ {
				w := newWorld(t, a, keys, seed, l, func(format string, args ...any) {
					if found == "" {
						found = fmt.Sprintf(format, args...)
					}
				})
				w.run(60, func() bool { return found != "" })
				points += w.points
			}
			if found == "" {
				t.Fatalf("nothing was found at %d points", points)
			}
			t.Logf("found at point %d: %.300s", points, found)
		})
	}
}
