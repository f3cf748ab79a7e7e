package sealed

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"flag"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"batchwarden/platform/lockmem"
	"batchwarden/vault/snapshot"
)

var update = flag.Bool("update", false, "write testdata anew; a file that readers know already must never change")

// What was written once can be read for ever; the newest is also what is written.
const (
	goldenFile      = "testdata/format-2.log"
	goldenFileRekey = "testdata/format-2-rekeyed.log"
	goldenFileOld   = "testdata/format-1.log"
)

// counter gives octets that are the same on every machine.
type counter struct{ n, used uint64 }

func (c *counter) Read(p []byte) (int, error) {
	for i := range p {
		if c.used%32 == 0 {
			c.n++
		}
		sum := sha256.Sum256(binary.BigEndian.AppendUint64(nil, c.n))
		p[i] = sum[c.used%32]
		c.used++
	}
	return len(p), nil
}

func fixedChance() chance {
	c := &counter{}
	return chance{c, func(b *lockmem.Buffer, n int) error {
		b.SetLen(n)
		_, err := c.Read(b.Bytes())
		return err
	}}
}

// goldenLog is a vault with every type of frame, made with fixed keys and nonces.
func goldenLog(t *testing.T, dir string, a *lockmem.Arena, k, second *Key) []byte {
	t.Helper()
	d, err := openDirectory(dir)
	if err != nil {
		t.Fatal(err)
	}
	random := fixedChance()
	s, err := openStore(d, k, a, random)
	if err != nil {
		t.Fatal(err)
	}
	apply := func(c Change, entries ...snapshot.Entry) {
		t.Helper()
		err := s.NewBatch(bg, func(g uint64, key *lockmem.Buffer) error {
			c.Generation = g
			for _, e := range entries {
				r, err := sealRecord(random.nonces, g, key.Key(), e, password(&e))
				if err != nil {
					return err
				}
				c.Put = append(c.Put, r)
			}
			if c.Token != nil {
				box, err := seal(random.nonces, []byte(tokenMark+"hvs.golden"), key.Key())
				if err != nil {
					return err
				}
				c.Token = &Token{g, box}
			}
			return nil
		})
		if err == nil {
			err = s.Apply(bg, c)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	apply(Change{State: []byte(`{"x":1}`), Token: &Token{}}, user("pay", 1), user("fin", 1), policy("opcon", `{"model":"opcon"}`))
	apply(Change{Remove: []snapshot.ID{user("fin", 0).ID}}, fullUser("ldap"), user("pay", 2))
	if second != nil {
		if err := s.Rekey(bg, second); err != nil {
			t.Fatal(err)
		}
	}
	closing(t, s)
	data, err := os.ReadFile(filepath.Join(dir, logName))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestGoldenFile(t *testing.T) {
	a := newArena(t)
	k, second := newKey(t, a, "0123456789abcdef", 0x42), newKey(t, a, "fedcba9876543210", 0x43)
	second.Kind = "tpm2"
	for _, c := range []struct {
		file   string
		second *Key
		opens  []*Key
	}{{goldenFile, nil, []*Key{k}}, {goldenFileRekey, second, []*Key{k, second}}} {
		got := goldenLog(t, filepath.Join(t.TempDir(), "vault"), a, k, c.second)
		if *update {
			if err := os.WriteFile(c.file, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(c.file)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			at := 0
			for at < min(len(got), len(want)) && got[at] == want[at] {
				at++
			}
			t.Errorf("%s: the octets differ at %d of %d", c.file, at, len(want))
		}
		for _, k := range c.opens {
			readGolden(t, want, k, a, `machines/db01/batch_users/ldap v1 pass word of ldap, version 1`)
		}
	}
}

// TestOldGoldenFile: format 1 names no host; what is read of it is written in the format of now.
func TestOldGoldenFile(t *testing.T) {
	old, err := os.ReadFile(goldenFileOld)
	if err != nil {
		t.Fatal(err)
	}
	a := newArena(t)
	k := newKey(t, a, "0123456789abcdef", 0x42)
	dir := readGolden(t, old, k, a)
	h, err := Peek(dir)
	if err != nil || h.Host != k.Host || h.KeyID != k.ID {
		t.Errorf("%+v, %v", h, err)
	}
	now, err := os.ReadFile(filepath.Join(dir, logName))
	if err != nil {
		t.Fatal(err)
	}
	readGolden(t, now, k, a)
}

func readGolden(t *testing.T, data []byte, k *Key, a *lockmem.Arena, more ...string) (dir string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "vault")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, logName), data, 0o600); err != nil {
		t.Fatal(err)
	}
	s := openIn(t, dir, k, a)
	defer closing(t, s)
	want := append(more, `groups/x/policies/opcon v3 document {"model":"opcon"}`,
		`machines/db01/batch_users/pay v2 pass word of pay, version 2`)
	slices.Sort(want)
	same(t, "read", dump(t, s, a), want)
	if string(s.State()) != `{"x":1}` || s.Generation() != 2 || len(s.Status().Faults) != 0 {
		t.Errorf("state %s, generation %d, %+v", s.State(), s.Generation(), s.Status())
	}
	err := s.WithBatch(bg, s.Token().Generation, func(key *lockmem.Buffer) error {
		token, err := OpenToken(key.Key(), s.Token())
		if string(token) != "hvs.golden" {
			t.Errorf("token %q", token)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return dir
}
