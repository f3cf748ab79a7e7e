package hostkey

import (
	"bytes"
	"errors"
	"testing"

	"batchwarden/platform/lockmem"
)

func TestDPAPI(t *testing.T) {
	a, err := lockmem.New(1)
	if err != nil {
		t.Fatal(err)
	}
	k, err := New(DPAPI, a)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Drop(k.KEK)
	box, err := protect(k.KEK, nil)
	if err != nil || bytes.Contains(box, k.KEK.Bytes()[:8]) {
		t.Fatalf("the box holds the key as it is, or: %v", err)
	}
	again, err := a.Key()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Drop(again)
	if err := unprotect(box, again); err != nil || !bytes.Equal(again.Bytes(), k.KEK.Bytes()) {
		t.Errorf("opened it is another key: %v", err)
	}
	box[len(box)-1] ^= 1
	if err := unprotect(box, again); !errors.Is(err, ErrForeign) {
		t.Errorf("damaged: %v", err)
	}
	if err := unprotect(nil, again); err == nil {
		t.Error("nothing was opened")
	}
}
