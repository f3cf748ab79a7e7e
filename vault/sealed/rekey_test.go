package sealed

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"batchwarden/vault/snapshot"
)

func TestRekey(t *testing.T) {
	a := newArena(t)
	first, second, third := newKey(t, a, "id1", 1), newKey(t, a, "id2", 2), newKey(t, a, "id3", 3)
	second.Kind = "tpm2"
	dir := filepath.Join(t.TempDir(), "vault")
	s := openIn(t, dir, first, a)
	mustSeal(t, s, Change{State: []byte("1")}, user("pay", 1), policy("opcon", "{}"))
	want := dump(t, s, a)
	lying := *third
	lying.Kind, lying.ID = first.Kind, first.ID
	elsewhere := *third
	elsewhere.Host = "another"
	for name, k := range map[string]*Key{"no key": nil, "another key of a name that is there": &lying, "a key of another host": &elsewhere} {
		if err := s.Rekey(bg, k); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	for range 2 { // the second time it is there already
		if err := s.Rekey(bg, second); err != nil {
			t.Fatal(err)
		}
	}
	if st := s.Status(); st.KeyKind != "tpm2" || st.KeyID != "id2" || !slices.Equal(st.OlderKeys, []string{"keyfile id1"}) {
		t.Errorf("status %+v", st)
	}
	if h, err := Peek(dir); err != nil || h.KeyID != "id2" || !slices.Equal(h.Older, []string{"keyfile id1"}) || h.Host != first.Host {
		t.Errorf("Peek %+v, %v", h, err)
	}
	mustSeal(t, s, Change{}, user("new", 1))
	want = append(want, `machines/db01/batch_users/new v1 pass word of new, version 1`)
	slices.Sort(want)
	same(t, "rekeyed", dump(t, s, a), want)
	closing(t, s)
	both, err := os.ReadFile(filepath.Join(dir, logName))
	if err != nil {
		t.Fatal(err)
	}

	for _, c := range []struct {
		name         string
		opens, fails *Key
	}{{"the new key", second, first}, {"the old key", first, second}} {
		if err := os.WriteFile(filepath.Join(dir, logName), both, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(dir, third, a); !errors.Is(err, ErrWrongKey) {
			t.Errorf("a key that was never there: %v", err)
		}
		for range 2 {
			s = openIn(t, dir, c.opens, a)
			same(t, c.name, dump(t, s, a), want)
			if st := s.Status(); st.OlderKeys != nil || st.KeyID != c.opens.ID || len(st.Faults)+len(st.Quarantined) != 0 {
				t.Errorf("%s: %+v", c.name, st)
			}
			closing(t, s)
		}
		if _, err := Open(dir, c.fails, a); !errors.Is(err, ErrWrongKey) {
			t.Errorf("after %s the other: %v", c.name, err)
		}
	}
}

func TestRekeyThatFails(t *testing.T) {
	a := newArena(t)
	first, second := newKey(t, a, "id1", 1), newKey(t, a, "id2", 2)
	d, err := openDirectory(filepath.Join(t.TempDir(), "vault"))
	if err != nil {
		t.Fatal(err)
	}
	fsys := &failing{directory: d, left: -1, err: fs.ErrPermission}
	s, err := openStore(fsys, first, a, realChance())
	if err != nil {
		t.Fatal(err)
	}
	mustSeal(t, s, Change{}, user("pay", 1))
	want := dump(t, s, a)
	fsys.left = 0
	if err := s.Rekey(bg, second); !errors.Is(err, ErrUnwritten) || !errors.Is(err, fs.ErrPermission) {
		t.Errorf("got %v", err)
	}
	if st := s.Status(); st.KeyID != "id1" || st.Unwritable == "" {
		t.Errorf("%+v", st)
	}
	fsys.left = -1
	if err := s.Apply(bg, Change{}); err != nil || s.Status().Unwritable != "" {
		t.Errorf("once it can be written: %v, %+v", err, s.Status())
	}
	closing(t, s)
	if _, err := Open(string(d), second, a); !errors.Is(err, ErrWrongKey) {
		t.Errorf("the key that was not taken: %v", err)
	}
	s = openIn(t, string(d), first, a)
	same(t, "with the first", dump(t, s, a), want)
	closing(t, s)
}

// TestForeignVault: a directory that was copied to another machine opens nothing there, with the same
// key too, and nothing of it is lost.
func TestForeignVault(t *testing.T) {
	a := newArena(t)
	here := newKey(t, a, "id1", 1)
	there := *here
	there.Host = "fedcba9876543210"
	nameless := *here
	nameless.Host = ""
	for name, k := range map[string]*Key{"with the same key": &there, "on a machine without a name": &nameless} {
		dir := filepath.Join(t.TempDir(), "vault")
		s := openIn(t, dir, here, a)
		mustSeal(t, s, Change{State: []byte("1"), Remove: []snapshot.ID{user("gone", 1).ID}}, user("pay", 1))
		want := dump(t, s, a)
		closing(t, s)
		before, err := os.ReadFile(filepath.Join(dir, logName))
		if err != nil {
			t.Fatal(err)
		}
		h, err := Peek(dir)
		if err != nil || !h.Foreign(k.Host) || h.Foreign(here.Host) {
			t.Errorf("%s: %+v, %v", name, h, err)
		}
		s = openIn(t, dir, k, a)
		st := s.Status()
		if st.Foreign != here.Host || len(st.Faults) != 0 || st.Records != 0 || len(st.Quarantined) != 1 || s.State() != nil || s.Token() != nil {
			t.Fatalf("%s: %+v", name, st)
		}
		mustSeal(t, s, Change{}, user("new", 1))
		closing(t, s)
		kept := filepath.Join(dir, st.Quarantined[0])
		if after, err := os.ReadFile(kept); err != nil || !bytes.Equal(after, before) {
			t.Errorf("%s: the old vault was not kept: %v", name, err)
		}
		s = openIn(t, dir, k, a)
		if st := s.Status(); st.Foreign != "" || st.Records != 1 {
			t.Errorf("%s, at the next start: %+v", name, st)
		}
		closing(t, s)
		// Back where it came from it is whole.
		if err := os.Rename(kept, filepath.Join(dir, logName)); err != nil {
			t.Fatal(err)
		}
		s = openIn(t, dir, here, a)
		same(t, name+", back again", dump(t, s, a), want)
		closing(t, s)
	}

	// The KEK alone does not open what was made on a named host: the name is part of the key.
	r, err := newRing(a, realChance())
	if err != nil {
		t.Fatal(err)
	}
	defer r.drop()
	if err := r.create(bg); err != nil {
		t.Fatal(err)
	}
	box, err := r.box(bg, here, here.Host)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []string{"", "fedcba9876543210"} {
		if err := r.load(bg, here, host, box.box); !errors.Is(err, ErrWrongKey) {
			t.Errorf("host %q: %v", host, err)
		}
	}
}

// TestOpenOnFullDisk: without a vault and without room for one the service goes on in memory.
func TestOpenOnFullDisk(t *testing.T) {
	a := newArena(t)
	k := newKey(t, a, "id", 1)
	d, err := openDirectory(filepath.Join(t.TempDir(), "vault"))
	if err != nil {
		t.Fatal(err)
	}
	fsys := &failing{directory: d, left: 0, err: errors.New("no space left")}
	s, err := openStore(fsys, k, a, realChance())
	if err != nil {
		t.Fatal(err)
	}
	if err := sealAll(s, Change{}, user("pay", 1)); !errors.Is(err, ErrUnwritten) {
		t.Errorf("got %v", err)
	}
	want := []string{`machines/db01/batch_users/pay v1 pass word of pay, version 1`}
	same(t, "in memory", dump(t, s, a), want)
	if s.Status().Unwritable == "" {
		t.Error("nothing says that it is unwritable")
	}
	if _, err := Peek(string(d)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Peek: %v", err)
	}
	fsys.left = -1
	if err := s.Apply(bg, Change{}); err != nil || s.Status().Unwritable != "" {
		t.Errorf("once there is room: %v, %+v", err, s.Status())
	}
	closing(t, s)
	s = openIn(t, string(d), k, a)
	same(t, "opened again", dump(t, s, a), want)
	closing(t, s)
}

// TestUpdateSyncsAtMostTwice counts what a change costs: one fsync where it is appended, two where it is
// written with all the rest into a new file.
func TestUpdateSyncsAtMostTwice(t *testing.T) {
	a := newArena(t)
	d := newDisk(nil)
	s, err := openStore(d, newKey(t, a, "id", 1), a, realChance())
	if err != nil {
		t.Fatal(err)
	}
	defer closing(t, s)
	s.spare = 4096
	most := map[int]int{}
	for v := range int64(200) {
		before := d.syncs
		mustSeal(t, s, Change{State: []byte{'0' + byte(v%10)}}, user("pay", v+1), policy("p", string(make([]byte, 500))))
		most[d.syncs-before]++
	}
	if most[1] < 100 || most[2] == 0 || most[1]+most[2] != 200 {
		t.Errorf("changes by how many fsyncs they took: %v", most)
	}
	before := d.syncs
	if err := s.Apply(bg, Change{}); err != nil || d.syncs != before {
		t.Errorf("a change of nothing: %v, %d fsyncs", err, d.syncs-before)
	}
}
