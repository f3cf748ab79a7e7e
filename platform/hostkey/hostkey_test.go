//go:build linux

package hostkey

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"strings"
	"testing"

	"batchwarden/platform/lockmem"
)

func arena(t *testing.T) *lockmem.Arena {
	t.Helper()
	a, err := lockmem.New(1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err) // also: a key that a failed Open did not give back
		}
	})
	return a
}

func TestKeyFileIsMadeOnce(t *testing.T) {
	a := arena(t)
	path := t.TempDir() + "/key"
	if _, err := Open("keyfile:"+path, false, a); !errors.Is(err, ErrMissing) {
		t.Fatalf("no key, none wanted: %v", err)
	}
	if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("a key was made against the wish: %v", err)
	}
	first, err := Open("keyfile:"+path, true, a)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Drop(first.KEK)
	info, err := os.Stat(path)
	if err != nil || info.Mode() != 0o400 || info.Size() != Size {
		t.Errorf("the file: %v, %v", info, err)
	}
	onDisk, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(onDisk, first.KEK.Bytes()) {
		t.Errorf("the key is not the file's: %v", err)
	}
	for _, mayCreate := range []bool{true, false} {
		again, err := Open("keyfile:"+path, mayCreate, a)
		if err != nil {
			t.Fatal(err)
		}
		if again.ID != first.ID || again.Kind != KeyFile || !bytes.Equal(again.KEK.Bytes(), first.KEK.Bytes()) {
			t.Error("opened again it is another key")
		}
		a.Drop(again.KEK)
	}
	other, err := Open("keyfile:"+path+"2", true, a)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Drop(other.KEK)
	if other.ID == first.ID || len(other.ID) != 16 {
		t.Errorf("ids %q and %q", first.ID, other.ID)
	}
}

func TestID(t *testing.T) {
	a := arena(t)
	path := t.TempDir() + "/key"
	key := make([]byte, Size)
	for i := range key {
		key[i] = byte(i)
	}
	if err := os.WriteFile(path, key, 0o400); err != nil {
		t.Fatal(err)
	}
	k, err := Open("keyfile:"+path, false, a)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Drop(k.KEK)
	// Vaults name their key by it: it never changes, on no machine.
	if want := "d06d1c3846cf662c"; k.ID != want {
		t.Errorf("got %q, want %q", k.ID, want)
	}
}

func TestRefused(t *testing.T) {
	a := arena(t)
	dir := t.TempDir()
	file := func(name string, size int, mode fs.FileMode) string {
		path := dir + "/" + name
		if err := os.WriteFile(path, bytes.Repeat([]byte{7}, size), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return "keyfile:" + path
	}
	zeros := dir + "/zeros"
	if err := os.WriteFile(zeros, make([]byte, Size), 0o400); err != nil {
		t.Fatal(err)
	}
	cases := []struct{ name, spec, want string }{
		{"short", file("short", 31, 0o400), "31 octets, a key has 32"},
		{"long", file("long", 33, 0o400), "33 octets, a key has 32"},
		{"empty", file("empty", 0, 0o400), "0 octets"},
		{"writable", file("writable", 32, 0o600), "mode 0600: must be 0400 or less"},
		{"readable by all", file("open", 32, 0o444), "mode 0444"},
		{"zeros", "keyfile:" + zeros, "holds zeros"},
		{"no path", "keyfile:", "is no key"},
		{"nothing", "", "is no key"},
		{"kind with a path it does not take", "credential:/x", "is no key"},
		{"kind without the path it takes", "tpm2", "is no key"},
		{"directory is missing", "keyfile:" + dir + "/no/key", "no such file"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if _, err := Open(c.spec, true, a); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	if _, err := Open("dpapi:"+dir+"/dpapi", true, a); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("dpapi: %v", err)
	}
}
