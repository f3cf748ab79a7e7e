package sealed

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestNewerVaultIsRefused: it is left as it is, and the sentence says which file, why and what to do.
func TestNewerVaultIsRefused(t *testing.T) {
	a := newArena(t)
	k := newKey(t, a, "0123456789abcdef", 0x42)
	text, err := os.ReadFile(goldenFile)
	if err != nil {
		t.Fatal(err)
	}
	_, n, err := parseHeader(text)
	if err != nil {
		t.Fatal(err)
	}
	binary.BigEndian.PutUint32(text[len(magic):], formatNumber+1)
	fixChecksum(text, n)
	dir := t.TempDir()
	file := filepath.Join(dir, logName)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	_, opened := Open(dir, k, a)
	_, peeked := Peek(dir)
	for _, err := range []error{opened, peeked} {
		if !errors.Is(err, ErrNewer) {
			t.Fatalf("got %v", err)
		}
		for _, part := range []string{file, "format 3", "understands up to 2", "install the newer version again", "move the vault away"} {
			if !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "\n") {
				t.Errorf("%q is not in one sentence %q", part, err)
			}
		}
	}
	if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, text) {
		t.Errorf("the vault was changed: %v", err)
	}
}
