package sealed

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"batchwarden/vault/snapshot"

	"golang.org/x/crypto/nacl/secretbox"
)

// What a record may hold at most.
const (
	MaxSecret   = 1024     // octets of a password
	MaxDocument = 10 << 20 // octets of a policy document
	MaxName     = 512      // octets of a scope, and of a name

	maxMeta  = 256 << 10
	maxHead  = boxed + len(headMark) + 4 + maxMeta + MaxDocument
	maxToken = 64 << 10
)

const (
	nonceSize = 24
	boxed     = nonceSize + secretbox.Overhead // what a box is longer than its text
	sumSize   = sha256.Size
)

// Record is one sealed entry: the same octets in the worker's pipe, on disk and in memory. Outside is
// only what a reader needs to find it; the sealed head repeats all of that.
type Record struct {
	ID         snapshot.ID `json:"id"`
	Generation uint64      `json:"generation"` // of the batch whose key seals it
	Version    int64       `json:"version"`
	Created    time.Time   `json:"created"`
	Head       []byte      `json:"head"`             // nonce and box of the head's text
	Secret     []byte      `json:"secret,omitempty"` // nonce and box of sha256(head's text) and the password; nil when there is none
}

// Token is the sync worker's Vault token, sealed by the worker with a batch key. The daemon keeps it
// and never opens it.
type Token struct {
	Generation uint64 `json:"generation"`
	Box        []byte `json:"box"`
}

// Seal seals e, and secret if it has one, with the key of batch generation. A batch user of kind
// "password" must have a secret and nothing else may. It is for the sync worker: e and secret lie in
// ordinary memory.
func Seal(generation uint64, key *[32]byte, e snapshot.Entry, secret []byte) (Record, error) {
	return sealRecord(rand.Reader, generation, key, e, secret)
}

func sealRecord(random io.Reader, generation uint64, key *[32]byte, e snapshot.Entry, secret []byte) (Record, error) {
	e.Generation = generation
	if err := check(&e); err != nil {
		return Record{}, err
	}
	if err := checkSecret(&e, len(secret)); err != nil {
		return Record{}, err
	}
	text, err := headText(&e)
	if err != nil {
		return Record{}, err
	}
	r := Record{ID: e.ID, Generation: generation, Version: e.Version, Created: e.Created.UTC().Round(0)}
	if r.Head, err = seal(random, text, key); err != nil || len(secret) == 0 {
		return r, err
	}
	sum := sha256.Sum256(text)
	plain := make([]byte, 0, sumSize+MaxSecret)
	plain = append(append(plain, sum[:]...), secret...)
	r.Secret, err = seal(random, plain, key)
	clear(plain)
	return r, err
}

// SealToken seals the worker's token with the key of batch generation.
func SealToken(generation uint64, key *[32]byte, token []byte) (Token, error) {
	if len(token) == 0 || len(token) > maxToken-boxed-len(tokenMark) {
		return Token{}, fmt.Errorf("sealed: a token of %d octets", len(token))
	}
	text := append([]byte(tokenMark), token...)
	box, err := seal(rand.Reader, text, key)
	clear(text)
	return Token{Generation: generation, Box: box}, err
}

// OpenToken returns what SealToken sealed with the same key. The caller wipes it.
func OpenToken(key *[32]byte, t *Token) ([]byte, error) {
	text, ok := open(nil, t.Box, key)
	if !ok || !bytes.HasPrefix(text, []byte(tokenMark)) {
		clear(text)
		return nil, errors.New("sealed: the token does not authenticate")
	}
	return text[len(tokenMark):], nil
}

// seal returns nonce and box of text.
func seal(random io.Reader, text []byte, key *[32]byte) ([]byte, error) {
	out := make([]byte, nonceSize, boxed+len(text))
	if _, err := io.ReadFull(random, out); err != nil {
		return nil, fmt.Errorf("sealed: random numbers: %w", err)
	}
	return secretbox.Seal(out, text, (*[nonceSize]byte)(out), key), nil
}

// open appends the text of nonce and box to out. It allocates only when out has no room.
func open(out, box []byte, key *[32]byte) ([]byte, bool) {
	if len(box) < boxed {
		return nil, false
	}
	return secretbox.Open(out, box[nonceSize:], (*[nonceSize]byte)(box), key)
}

// check refuses an entry that cannot be one.
func check(e *snapshot.Entry) error {
	switch {
	case e.ID.Scope == "" || e.ID.Name == "" || len(e.ID.Scope) > MaxName || len(e.ID.Name) > MaxName:
		return errors.New("sealed: an entry without a name, or with one that is too long")
	case e.Generation == 0:
		return fmt.Errorf("sealed: %s: generation 0", e.ID)
	case e.ID.Kind == snapshot.BatchUserKind && e.BatchUser != nil && e.Policy == nil:
		return nil
	case e.ID.Kind == snapshot.PolicyKind && e.Policy != nil && e.BatchUser == nil:
		if len(e.Policy.Document) > MaxDocument {
			return fmt.Errorf("sealed: %s: a document of %d octets", e.ID, len(e.Policy.Document))
		}
		return nil
	}
	return fmt.Errorf("sealed: %s: does not hold what its kind %q says", e.ID, e.ID.Kind)
}

// checkSecret holds the length of a secret, 0 for none, against the entry.
func checkSecret(e *snapshot.Entry, size int) error {
	wants := e.BatchUser != nil && e.BatchUser.Kind == "password"
	switch {
	case wants && size == 0:
		return fmt.Errorf("sealed: %s: no password", e.ID)
	case !wants && size != 0:
		return fmt.Errorf("sealed: %s: a password where none belongs", e.ID)
	case size > MaxSecret:
		return fmt.Errorf("sealed: %s: a password of %d octets", e.ID, size)
	}
	return nil
}
