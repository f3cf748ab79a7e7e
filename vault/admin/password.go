package admin

import (
	"crypto/rand"
	"fmt"
	"math/bits"

	"batchwarden/vault/documents"
)

// Characters that passwords are generated from.
const (
	Letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
	Digits  = "0123456789"
	Symbols = "!#%+,-./:=?@_~" // none that a shell, a JCL or a connection string takes for its own in most places

	DefaultAlphabet = Letters + Digits
	DefaultLength   = 32
)

// CheckPassword says why no machine would take the password. It does not quote it.
func CheckPassword(secret []byte) error {
	if err := documents.CheckPassword(secret); err != nil {
		return fmt.Errorf("%w: password: %w", ErrInvalid, err)
	}
	return nil
}

// GeneratePassword returns length characters of the alphabet, each as likely as
// any other. The alphabet is of printable ASCII, none twice; empty is DefaultAlphabet,
// as length 0 is DefaultLength. Fewer than 64 bits to guess are refused.
func GeneratePassword(length int, alphabet string) ([]byte, error) {
	if alphabet == "" {
		alphabet = DefaultAlphabet
	}
	if length == 0 {
		length = DefaultLength
	}
	var seen [128]bool
	for _, b := range []byte(alphabet) {
		if b < '!' || b > '~' || seen[b] {
			return nil, fmt.Errorf("admin: %w: an alphabet is of printable ASCII characters, none of them twice", ErrInvalid)
		}
		seen[b] = true
	}
	if length < 0 || length > documents.MaxPassword || (bits.Len(uint(len(alphabet)))-1)*length < 64 {
		return nil, fmt.Errorf("admin: %w: %d characters out of %d: at most %d, and enough for 64 bits", ErrInvalid, length, len(alphabet), documents.MaxPassword)
	}
	// Octets from fair on are thrown away: a remainder of them would favour the first characters.
	fair := 256 - 256%len(alphabet)
	secret := make([]byte, 0, length)
	random := make([]byte, 2*length)
	for len(secret) < length {
		if _, err := rand.Read(random); err != nil {
			return nil, err
		}
		for _, b := range random {
			if int(b) < fair && len(secret) < length {
				secret = append(secret, alphabet[int(b)%len(alphabet)])
			}
		}
	}
	clear(random)
	return secret, nil
}
