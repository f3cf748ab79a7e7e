package hostkey

import (
	"errors"
	"os"
	"testing"

	"batchwarden/platform/lockmem"
)

// Root opens the key of another user only where it says whose.
func TestOwners(t *testing.T) {
	if os.Geteuid() != 0 {
		const why = "needs root; run: sudo make test"
		if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	const uid = 4242
	a, dir := arena(t), t.TempDir()
	made, err := Open("keyfile:"+dir+"/key", true, a)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Drop(made.KEK)
	if err := errors.Join(os.Chown(dir, uid, -1), os.Chown(dir+"/key", uid, -1)); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		owners []uint32
		opens  bool
	}{{nil, false}, {[]uint32{uid + 1}, false}, {[]uint32{uid}, true}} {
		k, err := Places{Owners: c.owners}.Open("keyfile:"+dir+"/key", false, a)
		if (err == nil) != c.opens || err == nil && k.ID != made.ID {
			t.Errorf("owners %v: %v", c.owners, err)
		}
		drop(a, k)
	}
}

func drop(a *lockmem.Arena, k *Key) {
	if k != nil {
		a.Drop(k.KEK)
	}
}
