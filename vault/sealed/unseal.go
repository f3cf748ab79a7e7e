package sealed

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"batchwarden/vault/snapshot"
)

// Unseal is the reverse of Seal. It is for tests of whoever seals: entry and
// secret lie in ordinary memory, where the daemon has neither.
func Unseal(key *[32]byte, r *Record) (e snapshot.Entry, secret []byte, err error) {
	fail := func(err error) (snapshot.Entry, []byte, error) {
		return snapshot.Entry{}, nil, fmt.Errorf("sealed: %s: %w", r.ID, err)
	}
	text, ok := open(nil, r.Head, key)
	if !ok {
		return fail(errors.New("the head does not authenticate"))
	}
	var p parser
	if e, err = p.head(text); err != nil {
		return fail(err)
	}
	if e.ID != r.ID || e.Generation != r.Generation || e.Version != r.Version || !e.Created.Equal(r.Created) {
		return fail(errors.New("the head is of another record"))
	}
	if r.Secret == nil {
		return e, nil, nil
	}
	plain, ok := open(nil, r.Secret, key)
	sum := sha256.Sum256(text)
	if !ok || !bytes.HasPrefix(plain, sum[:]) {
		return fail(errors.New("the secret is not the head's"))
	}
	return e, plain[len(sum):], nil
}
