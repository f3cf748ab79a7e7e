package hostkey

import (
	"crypto/sha256"
	"encoding/hex"
	"strings"
)

// Host names this machine: the same at every start, another on another machine, "" where the machine
// has no name of its own, or where it cannot be read. It is not the machine's id, which others take
// for a secret, but 64 bits of a hash of it.
func Host() string { return hostOf(machineIDs()) }

// hostOf takes the first of the ids that is one: 128 bits, in hexadecimal, with or without dashes, and
// not all zero. systemd writes "uninitialized" where an id will be.
func hostOf(ids []string) string {
	for _, text := range ids {
		text = strings.ToLower(strings.ReplaceAll(strings.TrimSpace(text), "-", ""))
		id, err := hex.DecodeString(text)
		if err != nil || len(id) != 16 || [16]byte(id) == [16]byte{} {
			continue
		}
		sum := sha256.Sum256(append([]byte("batchwarden host 1\x00"), id...))
		return hex.EncodeToString(sum[:8])
	}
	return ""
}
