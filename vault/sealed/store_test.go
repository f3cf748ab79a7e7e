package sealed

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"batchwarden/platform/lockmem"
	"batchwarden/vault/snapshot"
)

var bg = context.Background()

func newArena(t testing.TB) *lockmem.Arena {
	t.Helper()
	a, err := lockmem.New(4)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func newKey(t testing.TB, a *lockmem.Arena, id string, fill byte) *Key {
	t.Helper()
	k, err := a.Key()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Drop(k) })
	for i := range k.Bytes() {
		k.Bytes()[i] = fill
	}
	return &Key{KEK: k, Kind: "keyfile", ID: id, Host: "0123456789abcdef"}
}

func openIn(t testing.TB, dir string, k *Key, a *lockmem.Arena) *Store {
	t.Helper()
	s, err := Open(dir, k, a)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closing(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

var created = time.Date(2026, 3, 1, 12, 0, 0, 5000, time.UTC)

func user(name string, version int64) snapshot.Entry {
	return snapshot.Entry{
		ID:      snapshot.ID{Scope: "machines/db01", Kind: snapshot.BatchUserKind, Name: name},
		Version: version, Created: created.Add(time.Duration(version) * time.Minute),
		BatchUser: &snapshot.BatchUser{
			Username: "os-" + name, Platform: "unix", Kind: "password", Launch: true, Retrieve: true,
			Names: snapshot.Names{{Where: "opcon", Name: "users/" + name}}, MaxStale: 72 * time.Hour,
		},
	}
}

func policy(realm, document string) snapshot.Entry {
	return snapshot.Entry{
		ID:      snapshot.ID{Scope: "groups/x", Kind: snapshot.PolicyKind, Name: realm},
		Version: 3, Created: created,
		Policy: &snapshot.Policy{Model: "opcon", Document: []byte(document)},
	}
}

func password(e *snapshot.Entry) []byte {
	if e.Policy != nil || e.BatchUser.Kind == "none" {
		return nil
	}
	return fmt.Appendf(nil, "pass word of %s, version %d", e.ID.Name, e.Version)
}

// sealAll seals entries as a worker does, in a new batch, and applies them with change.
func sealAll(s *Store, change Change, entries ...snapshot.Entry) error {
	err := s.NewBatch(bg, func(generation uint64, key *lockmem.Buffer) error {
		change.Generation = generation
		for _, e := range entries {
			r, err := Seal(generation, key.Key(), e, password(&e))
			if err != nil {
				return err
			}
			change.Put = append(change.Put, r)
		}
		return nil
	})
	if err != nil {
		return err
	}
	return s.Apply(bg, change)
}

func mustSeal(t testing.TB, s *Store, change Change, entries ...snapshot.Entry) {
	t.Helper()
	if err := sealAll(s, change, entries...); err != nil {
		t.Fatal(err)
	}
}

// dump says what the store serves: each entry with its password as OpenSecret gives it.
func dump(t testing.TB, s *Store, a *lockmem.Arena) []string {
	t.Helper()
	held, err := s.Entries(bg)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for i := range held {
		h := held[i]
		text, err := json.Marshal(h.Entry)
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%s v%d ", h.ID, h.Version)
		if h.Policy != nil {
			line += "document " + string(h.Policy.Document)
		} else if h.Box != nil {
			err := a.Borrow(bg, func(b *lockmem.Buffer) error {
				if err := s.OpenSecret(h, b); err != nil {
					return err
				}
				line += string(b.Bytes())
				return nil
			})
			if err != nil {
				t.Fatalf("%s: %v", h.ID, err)
			}
		}
		if !bytes.Contains(text, []byte(`"created":"2026-03-01T`)) {
			t.Errorf("entry %s", text)
		}
		if len(line) > 200 {
			sum := sha256.Sum256([]byte(line))
			line = fmt.Sprintf("%s… of %d octets, %x", line[:60], len(line), sum[:4])
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

func same(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s:\n got %q\nwant %q", what, got, want)
	}
}

func TestStoreKeepsWhatItIsGiven(t *testing.T) {
	a := newArena(t)
	k := newKey(t, a, "id1", 1)
	dir := filepath.Join(t.TempDir(), "vault")
	if h, err := Peek(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("Peek before: %+v, %v", h, err)
	}
	s := openIn(t, dir, k, a)
	if h, err := Peek(dir); h.KeyKind != "keyfile" || h.KeyID != "id1" || h.Host != k.Host || h.Older != nil || err != nil {
		t.Fatalf("Peek after: %+v, %v", h, err)
	}

	none := user("none", 1)
	none.BatchUser.Kind = "none"
	mustSeal(t, s, Change{State: []byte(`{"confirmed":1}`)}, user("pay", 1), user("fin", 7), none, policy("opcon", "{}"))
	want := []string{
		`groups/x/policies/opcon v3 document {}`,
		`machines/db01/batch_users/fin v7 pass word of fin, version 7`,
		`machines/db01/batch_users/none v1 `,
		`machines/db01/batch_users/pay v1 pass word of pay, version 1`,
	}
	same(t, "first", dump(t, s, a), want)

	// The worker's token is sealed, kept and handed back.
	err := s.NewBatch(bg, func(generation uint64, key *lockmem.Buffer) error {
		token, err := SealToken(generation, key.Key(), []byte("hvs.token"))
		if err != nil {
			return err
		}
		return s.Apply(bg, Change{
			Generation: generation, Token: &token, State: []byte(`{"confirmed":2}`),
			Remove: []snapshot.ID{user("fin", 0).ID, user("unknown", 0).ID},
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	want = slices.Delete(want, 1, 2)
	for range 3 {
		same(t, "removed", dump(t, s, a), want)
		token := s.Token()
		err := s.WithBatch(bg, token.Generation, func(key *lockmem.Buffer) error {
			text, err := OpenToken(key.Key(), token)
			if string(text) != "hvs.token" {
				t.Errorf("token %q", text)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := string(s.State()); got != `{"confirmed":2}` {
			t.Errorf("state %s", got)
		}
		if s.Generation() != 2 {
			t.Errorf("generation %d", s.Generation())
		}
		st := s.Status()
		if st.Records != 3 || st.KeyID != "id1" || st.KeyKind != "keyfile" || st.Commits != 3 ||
			len(st.Quarantined)+len(st.Faults) != 0 || st.Unwritable != "" {
			t.Errorf("status %+v", st)
		}
		closing(t, s)
		s = openIn(t, dir, k, a)
	}
	mustSeal(t, s, Change{}, user("pay", 2))
	if s.Generation() != 3 {
		t.Errorf("generation %d after a restart", s.Generation())
	}
	same(t, "rotated", dump(t, s, a)[2:], []string{`machines/db01/batch_users/pay v2 pass word of pay, version 2`})
	closing(t, s)

	content, err := os.ReadFile(filepath.Join(dir, logName))
	if err != nil {
		t.Fatal(err)
	}
	for _, plain := range []string{"pay", "db01", "pass word", "hvs", "confirmed", "unix"} {
		if bytes.Contains(content, []byte(plain)) {
			t.Errorf("the file shows %q", plain)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	a := newArena(t)
	k := newKey(t, a, "id1", 1)
	dir := filepath.Join(t.TempDir(), "vault")
	s := openIn(t, dir, k, a)
	mustSeal(t, s, Change{}, user("pay", 1))
	if _, err := Open(dir, k, a); !errors.Is(err, ErrLocked) {
		t.Errorf("opened twice: %v", err)
	}
	closing(t, s)
	if err := s.Close(); !errors.Is(err, ErrClosed) {
		t.Errorf("closed twice: %v", err)
	}
	if err := s.Apply(bg, Change{}); !errors.Is(err, ErrClosed) {
		t.Errorf("apply after close: %v", err)
	}
	before, err := os.ReadFile(filepath.Join(dir, logName))
	if err != nil {
		t.Fatal(err)
	}
	other := newKey(t, a, "id2", 2)
	lies := newKey(t, a, "id1", 2)
	kind := *k
	kind.Kind = "tpm2"
	for name, c := range map[string]struct {
		key  *Key
		want error
	}{
		"another key":                {other, ErrWrongKey},
		"another key of the same id": {lies, ErrWrongKey},
		"the same of another kind":   {&kind, ErrWrongKey},
		"no key":                     {nil, ErrMissingKey},
	} {
		if _, err := Open(dir, c.key, a); !errors.Is(err, c.want) {
			t.Errorf("%s: got %v, want %v", name, err, c.want)
		}
	}
	after, err := os.ReadFile(filepath.Join(dir, logName))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("a refusal changed the file (%v)", err)
	}
	newer := slices.Clone(before)
	h, n, err := parseHeader(newer)
	if err != nil || h.boxes[0].id != "id1" {
		t.Fatal(err)
	}
	newer[len(magic)+3] = 3
	fixChecksum(newer, n)
	if err := os.WriteFile(filepath.Join(dir, logName), newer, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, k, a); !errors.Is(err, ErrNewer) {
		t.Errorf("a newer format: %v", err)
	}
}

func TestApplyRefuses(t *testing.T) {
	a := newArena(t)
	s := openIn(t, filepath.Join(t.TempDir(), "vault"), newKey(t, a, "id", 1), a)
	defer closing(t, s)
	mustSeal(t, s, Change{}, user("pay", 1), user("old", 1))
	var r, foreign, noSecret Record
	var generation uint64
	err := s.NewBatch(bg, func(g uint64, key *lockmem.Buffer) (err error) {
		generation = g
		if r, err = Seal(g, key.Key(), user("x", 1), []byte("secret")); err != nil {
			return err
		}
		kindNone := user("x", 1)
		kindNone.BatchUser.Kind = "none"
		if noSecret, err = Seal(g, key.Key(), kindNone, nil); err != nil {
			return err
		}
		foreign, err = Seal(g, &[32]byte{9}, user("x", 1), []byte("secret"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	with := func(f func(r *Record)) []Record {
		c := r
		c.Head, c.Secret = slices.Clone(r.Head), slices.Clone(r.Secret)
		f(&c)
		return []Record{c}
	}
	before := dump(t, s, a)
	for name, c := range map[string]Change{
		"a record sealed with another key":   {Generation: generation, Put: []Record{foreign}},
		"a version the head does not have":   {Generation: generation, Put: with(func(r *Record) { r.Version = 2 })},
		"another name":                       {Generation: generation, Put: with(func(r *Record) { r.ID.Name = "y" })},
		"another time":                       {Generation: generation, Put: with(func(r *Record) { r.Created = time.Unix(1, 0) })},
		"another batch":                      {Generation: generation, Put: with(func(r *Record) { r.Generation = 1 })},
		"a batch that is not there":          {Generation: 99, Put: with(func(r *Record) { r.Generation = 99 })},
		"a flipped head":                     {Generation: generation, Put: with(func(r *Record) { r.Head[40] ^= 1 })},
		"a flipped secret":                   {Generation: generation, Put: with(func(r *Record) { r.Secret[40] ^= 1 })},
		"no secret where one belongs":        {Generation: generation, Put: with(func(r *Record) { r.Secret = nil })},
		"the head of one, secret of another": {Generation: generation, Put: with(func(r *Record) { r.Head = noSecret.Head })},
		"an empty head":                      {Generation: generation, Put: with(func(r *Record) { r.Head = nil })},
		"the same twice":                     {Generation: generation, Put: []Record{r, r}},
		"put and removed at once":            {Generation: generation, Put: []Record{r}, Remove: []snapshot.ID{r.ID}},
		"a token of another batch":           {Generation: generation, Token: &Token{Generation: 1, Box: make([]byte, 100)}},
		"a token too short":                  {Generation: generation, Token: &Token{Generation: generation, Box: make([]byte, 10)}},
		"a state too long":                   {State: make([]byte, maxState+1)},
	} {
		t.Run(name, func(t *testing.T) {
			if err := s.Apply(bg, c); err == nil {
				t.Error("it was applied")
			}
			if len(c.Put) == 1 && c.Remove == nil {
				o, err := s.OpenHeads(bg, c.Put)
				if err != nil || o[0].Err == nil && o[0].Held.Generation == generation {
					t.Errorf("its head was opened (%v)", err)
				}
				if s.Apply(bg, Change{Generation: generation, Opened: o}) == nil {
					t.Error("it was applied, opened")
				}
			}
			same(t, "after the refusal", dump(t, s, a), before)
		})
	}
	opened, err := s.OpenHeads(bg, []Record{r, foreign})
	if err != nil || opened[0].Err != nil || opened[1].Err == nil {
		t.Fatalf("the untouched record and another: %+v, %v", opened, err)
	}
	if h := opened[0].Held; h.ID != r.ID || h.BatchUser.Username != "os-x" || !bytes.Equal(h.Box, r.Secret) {
		t.Errorf("the head of the untouched record: %+v", h)
	}
	if s.Apply(bg, Change{Generation: generation, Opened: []Opened{{Held: opened[0].Held}}}) == nil {
		t.Error("a record that nobody opened was applied")
	}
	if err := s.Apply(bg, Change{Generation: generation, Opened: opened[:1]}); err != nil {
		t.Errorf("the untouched record: %v", err)
	}
	if s.Apply(bg, Change{Generation: generation, Put: []Record{r}}) == nil {
		t.Error("a record was put twice")
	}
}

func TestSealRefuses(t *testing.T) {
	key := &[32]byte{1}
	noName, both, neither := user("", 1), user("x", 1), user("x", 1)
	both.Policy, neither.BatchUser = &snapshot.Policy{}, nil
	none := user("x", 1)
	none.BatchUser.Kind = "none"
	long := user(strings.Repeat("x", MaxName+1), 1)
	big := policy("x", strings.Repeat("x", MaxDocument+1))
	for name, c := range map[string]struct {
		e      snapshot.Entry
		secret string
		g      uint64
	}{
		"no name": {noName, "x", 1}, "two kinds at once": {both, "x", 1}, "neither": {neither, "x", 1},
		"no password": {user("x", 1), "", 1}, "password of none": {none, "x", 1}, "generation 0": {user("x", 1), "x", 0},
		"long password": {user("x", 1), strings.Repeat("x", MaxSecret+1), 1}, "long name": {long, "x", 1},
		"password of a policy": {policy("x", "{}"), "x", 1}, "long document": {big, "", 1},
	} {
		if _, err := Seal(c.g, key, c.e, []byte(c.secret)); err == nil {
			t.Errorf("%s: sealed", name)
		}
	}
	if _, err := Seal(1, key, user("x", 1), []byte(strings.Repeat("x", MaxSecret))); err != nil {
		t.Errorf("the longest password: %v", err)
	}
	token, err := SealToken(1, key, []byte("t"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := Seal(1, key, user("x", 1), []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	for name, box := range map[string][]byte{"a head": r.Head, "a secret": r.Secret, "nothing": nil, "cut": token.Box[:len(token.Box)-1]} {
		if text, err := OpenToken(key, &Token{Generation: 1, Box: box}); err == nil {
			t.Errorf("%s opened as a token: %q", name, text)
		}
	}
}

func TestOpenSecretChecks(t *testing.T) {
	a := newArena(t)
	s := openIn(t, filepath.Join(t.TempDir(), "vault"), newKey(t, a, "id", 1), a)
	defer closing(t, s)
	mustSeal(t, s, Change{}, user("a", 1), user("b", 1))
	mustSeal(t, s, Change{}, user("c", 1))
	held, err := s.Entries(bg)
	if err != nil || len(held) != 3 {
		t.Fatal(err)
	}
	flipped := slices.Clone(held[0].Box)
	flipped[len(flipped)-1] ^= 1
	cases := map[string]func(h *snapshot.Held){
		"the sum of another head":   func(h *snapshot.Held) { h.HeadSum = held[1].HeadSum },
		"the secret of another":     func(h *snapshot.Held) { h.Box = held[1].Box },
		"the generation of another": func(h *snapshot.Held) { h.Generation = held[2].Generation },
		"a generation that is not":  func(h *snapshot.Held) { h.Generation = 77 },
		"a flipped bit":             func(h *snapshot.Held) { h.Box = flipped },
		"something that follows":    func(h *snapshot.Held) { h.Box = append(slices.Clone(h.Box), 0) },
		"something missing":         func(h *snapshot.Held) { h.Box = h.Box[:len(h.Box)-1] },
		"no secret":                 func(h *snapshot.Held) { h.Box = nil },
		"a huge secret":             func(h *snapshot.Held) { h.Box = make([]byte, 5000) },
	}
	for name, change := range cases {
		h := *held[0]
		change(&h)
		err := a.Borrow(bg, func(b *lockmem.Buffer) error {
			if err := s.OpenSecret(&h, b); err == nil {
				t.Errorf("%s: opened %q", name, b.Bytes())
			}
			if b.Len() != 0 || !bytes.Equal(b.Room()[:lockmem.SlotSize], make([]byte, lockmem.SlotSize)) {
				t.Errorf("%s: something is left in the slot", name)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	err = a.Borrow(bg, func(b *lockmem.Buffer) error {
		if allocs := testing.AllocsPerRun(100, func() {
			if err := s.OpenSecret(held[0], b); err != nil {
				t.Error(err)
			}
		}); allocs != 0 {
			t.Errorf("OpenSecret allocates %v times", allocs)
		}
		room := b.Room()[:lockmem.SlotSize]
		if string(b.Bytes()) != string(password(&held[0].Entry)) || len(bytes.Trim(room[b.Len():], "\x00")) != 0 {
			t.Errorf("the slot holds more than the password %q", b.Bytes())
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
