// Package hostkey finds the one key that protects this machine's local vault, the KEK, and brings it
// straight into locked memory.
package hostkey

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"batchwarden/platform/lockmem"
	"batchwarden/platform/safefile"

	//lint:ignore SA1019 HSalsa20 derives a key from a key by pointers alone; crypto/hkdf and hmac copy it into the heap.
	"golang.org/x/crypto/salsa20/salsa"
)

// Kinds of keys, as the vault's header names them.
const (
	KeyFile    = "keyfile"
	Credential = "credential"
	TPM2       = "tpm2"
	DPAPI      = "dpapi"
)

// Size is the length of a KEK.
const Size = 32

// ErrMissing reports that the key is not there and was not to be created.
var ErrMissing = errors.New("the key is missing")

// Key is the KEK and what a vault's header says about it.
type Key struct {
	KEK  *lockmem.Buffer
	Kind string
	ID   string // the same for the same key; tells nothing about it
}

// Open finds the key that spec names: "keyfile:PATH", "credential", "tpm2" or "dpapi". mayCreate
// allows to make one where there is none; it is false when there is a vault already, as a new key
// would open nothing. The caller gives KEK back with a.Drop.
//
// A key file holds 32 raw octets, belongs to our own effective user and has mode 0400. It is checked
// once it is open, and its directory too.
func Open(spec string, mayCreate bool, a *lockmem.Arena) (*Key, error) {
	kind, path, _ := strings.Cut(spec, ":")
	switch {
	case kind == KeyFile && path != "":
	case spec == Credential, spec == TPM2, spec == DPAPI:
		return nil, fmt.Errorf("hostkey: keys of kind %q are not there yet, use keyfile:PATH: %w", kind, errors.ErrUnsupported)
	default:
		return nil, fmt.Errorf("hostkey: %q is no key; one of keyfile:PATH, credential, tpm2, dpapi is", spec)
	}
	kek, err := a.Key()
	if err != nil {
		return nil, fmt.Errorf("hostkey: %w", err)
	}
	k := &Key{KEK: kek, Kind: KeyFile}
	if err := k.fromFile(path, mayCreate, a); err != nil {
		a.Drop(kek)
		return nil, err
	}
	return k, nil
}

func (k *Key) fromFile(path string, mayCreate bool, a *lockmem.Arena) error {
	err := readFile(path, k.KEK)
	if errors.Is(err, fs.ErrNotExist) {
		if !mayCreate {
			return fmt.Errorf("hostkey: %q: %w", path, ErrMissing)
		}
		// Read back what was made: another that made one at the same time may have won.
		if err = createFile(path, a); err == nil || errors.Is(err, fs.ErrExist) {
			err = readFile(path, k.KEK)
		}
	}
	if err != nil {
		return fmt.Errorf("hostkey: %w", err)
	}
	if *k.KEK.Key() == [Size]byte{} {
		return fmt.Errorf("hostkey: %q holds zeros, not a key", path)
	}
	k.ID, err = identify(k.KEK, a)
	return err
}

func readFile(path string, kek *lockmem.Buffer) (err error) {
	f, err := safefile.Open(path, safefile.Rules{Self: true, Mode: 0o400})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != Size {
		return fmt.Errorf("%q: %d octets, a key has %d", path, info.Size(), Size)
	}
	return kek.ReadFull(f, Size)
}

func createFile(path string, a *lockmem.Arena) error {
	return a.Borrow(context.Background(), func(b *lockmem.Buffer) error {
		if err := b.Random(Size); err != nil {
			return err
		}
		return safefile.CreateNew(path, 0o400, func(f *os.File) error {
			_, err := f.Write(b.Bytes()) // write(2) from the slot
			return err
		})
	})
}

// identify derives the key's name: 64 bits of a keyed hash of a constant.
func identify(kek *lockmem.Buffer, a *lockmem.Arena) (id string, err error) {
	label := [16]byte([]byte("bw host key id 1"))
	err = a.Borrow(context.Background(), func(b *lockmem.Buffer) error {
		b.SetLen(Size)
		salsa.HSalsa20(b.Key(), &label, kek.Key(), &salsa.Sigma)
		id = hex.EncodeToString(b.Bytes()[:8])
		return nil
	})
	return id, err
}
