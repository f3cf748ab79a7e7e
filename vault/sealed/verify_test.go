package sealed

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// Verify sees a vault that is in use, changes nothing of it, and finds any octet that is not what it was.
func TestVerify(t *testing.T) {
	a := newArena(t)
	key := newKey(t, a, "id", 7)
	dir := filepath.Join(t.TempDir(), "vault")
	look := func() (*Verified, error) { return Verify(bg, dir, uint32(os.Geteuid()), key, a) }
	if _, err := look(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no vault: got %v", err)
	}
	s := openIn(t, dir, key, a)
	mustSeal(t, s, Change{}, user("payroll", 1), user("reports", 2), policy("opcon", "{}"))
	mustSeal(t, s, Change{}, user("payroll", 3))
	log := filepath.Join(dir, logName)
	before, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	v, err := look()
	if err != nil || v.Records != 3 || v.Commits != s.Status().Commits || len(v.Faults)+len(v.Quarantined) != 0 {
		t.Fatalf("while it is in use: %+v, %v", v, err)
	}
	closing(t, s)
	if after, err := os.ReadFile(log); err != nil || string(after) != string(before) {
		t.Errorf("it was changed: %v", err)
	}
	for at := 0; at < len(before); at += 7 {
		data := append([]byte{}, before...)
		flip(data, at)
		if err := os.WriteFile(log, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if v, err := look(); err == nil && len(v.Faults) == 0 {
			t.Errorf("octet %d of %d is another, and nothing was found: %+v", at, len(before), v)
		}
	}
	if err := os.WriteFile(log, before, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(bg, dir, uint32(os.Geteuid()), newKey(t, a, "id", 8), a); !errors.Is(err, ErrWrongKey) {
		t.Errorf("another key: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, quarantinePart+"x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if v, err := look(); err != nil || len(v.Quarantined) != 1 {
		t.Errorf("with a file that was kept aside: %+v, %v", v, err)
	}
}

// A look while the vault is being written to, and written anew, finds no fault.
func TestVerifyWhileWriting(t *testing.T) {
	a := newArena(t)
	key := newKey(t, a, "id", 7)
	dir := filepath.Join(t.TempDir(), "vault")
	s := openIn(t, dir, key, a)
	s.spare = 4096 // written anew often
	mustSeal(t, s, Change{}, user("payroll", 1))
	done := make(chan error)
	go func() { // ends after its changes
		var err error
		for i := 2; i < 300 && err == nil; i++ {
			err = sealAll(s, Change{}, user("payroll", int64(i)), user("reports", int64(i)))
		}
		done <- err
	}()
	for looks := 0; ; looks++ {
		select {
		case err := <-done:
			if err != nil || looks < 10 {
				t.Errorf("%d looks, %v", looks, err)
			}
			closing(t, s)
			return
		default:
		}
		if v, err := Verify(bg, dir, uint32(os.Geteuid()), key, a); err != nil || len(v.Faults) > 0 {
			t.Fatalf("look %d: %+v, %v", looks, v, err)
		}
	}
}
