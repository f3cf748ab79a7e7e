//go:build linux

package hostkey

import (
	"bytes"
	"os"
	"testing"
)

// TestGoldenKeyFile: the octets of a key file are the key, and have the id that vaults were made with.
func TestGoldenKeyFile(t *testing.T) {
	a := arena(t)
	path, key := t.TempDir()+"/key", bytes.Repeat([]byte{0x42}, Size)
	if err := os.WriteFile(path, key, 0o400); err != nil {
		t.Fatal(err)
	}
	k, err := Open("keyfile:"+path, false, a)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Drop(k.KEK)
	if k.Kind != "keyfile" || k.ID != "95855adfdb794298" || !bytes.Equal(k.KEK.Bytes(), key) {
		t.Errorf("kind %q, id %q", k.Kind, k.ID)
	}
}
