// Package hostkey finds the one key that protects this machine's local vault, the KEK, and brings it
// straight into locked memory.
package hostkey

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"strings"

	"batchwarden/platform/lockmem"

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

// ErrForeign reports a key that was sealed on another machine, and opens there only.
var ErrForeign = errors.New("the key was sealed elsewhere")

// Key is the KEK and what a vault's header says about it.
type Key struct {
	KEK  *lockmem.Buffer
	Kind string
	ID   string // the same for the same key; tells nothing about it
	Host string // this machine; see Host
}

// Places are where this machine has its keys. The zero value is where systems have them.
type Places struct {
	TPM         string // "/dev/tpmrm0"; or a socket that speaks for a TPM, as "unix:PATH"
	Credentials string // $CREDENTIALS_DIRECTORY

	// Owners may own the file of a key beside ourselves and root: for root, who looks whether another user's opens.
	Owners []uint32
}

// Open is Places.Open at the usual places.
func Open(spec string, mayCreate bool, a *lockmem.Arena) (*Key, error) {
	return Places{}.Open(spec, mayCreate, a)
}

// Open finds the key that spec names: "keyfile:PATH", "credential", "tpm2:PATH" or "dpapi:PATH".
// mayCreate allows to make one where there is none, or where there is one of another machine, which is
// then kept aside. It is false when there is a vault of this machine already, as a new key would open
// nothing. A credential is never made: systemd brings it. The caller gives KEK back with a.Drop.
//
// A key file holds 32 raw octets; the file of tpm2 and dpapi holds a key that only this machine can
// open. Either belongs to our own effective user or root, and nobody else can read it. It is checked
// once it is open, and its directory too.
func (p Places) Open(spec string, mayCreate bool, a *lockmem.Arena) (*Key, error) {
	s, err := p.parse(spec)
	if err != nil {
		return nil, err
	}
	k, err := s.get(a)
	missing, foreign := errors.Is(err, fs.ErrNotExist), errors.Is(err, ErrForeign)
	if !missing && !foreign {
		return k, err
	}
	if !mayCreate || s.write == nil {
		if missing {
			err = fmt.Errorf("hostkey: %s: %w", s.where, ErrMissing)
		}
		return nil, err
	}
	if foreign {
		if err := keepAside(s.path); err != nil {
			return nil, err
		}
	}
	if k, err = s.create(nil, a); err == nil {
		a.Drop(k.KEK)
	} else if !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	// Read back what was made: another that made one at the same time may have won.
	return s.get(a)
}

// Owner is an account that a file is made for.
type Owner struct{ UID, GID uint32 }

// Create makes a new key as spec names it, for an account of ours that will open it; nil is our own.
// What is there already is fs.ErrExist and stays. A credential cannot be made so: see package mint. The
// caller gives KEK back with a.Drop.
func (p Places) Create(spec string, owner *Owner, a *lockmem.Arena) (*Key, error) {
	s, err := p.parse(spec)
	if err != nil {
		return nil, err
	}
	if s.write == nil {
		return nil, fmt.Errorf("hostkey: keys of kind %q are not made so: %w", s.kind, errors.ErrUnsupported)
	}
	return s.create(owner, a)
}

// New makes a key that lies nowhere yet. The caller gives KEK back with a.Drop.
func New(kind string, a *lockmem.Arena) (*Key, error) {
	return fill(kind, a, func(kek, _ *lockmem.Buffer) error { return kek.Random(Size) })
}

// source is one way to a key.
type source struct {
	kind, path string
	where      string // for errors
	read       func(*lockmem.Buffer) error
	// nil: we never make one. What is needed of locked memory beside the key is in room.
	write func(kek, room *lockmem.Buffer, owner *Owner) error
}

func (s *source) get(a *lockmem.Arena) (*Key, error) {
	return fill(s.kind, a, func(kek, _ *lockmem.Buffer) error { return s.read(kek) })
}

// create makes a key of random octets.
func (s *source) create(owner *Owner, a *lockmem.Arena) (*Key, error) {
	return fill(s.kind, a, func(kek, room *lockmem.Buffer) error {
		if err := kek.Random(Size); err != nil {
			return err
		}
		return s.write(kek, room, owner)
	})
}

func (p Places) parse(spec string) (*source, error) {
	kind, path, _ := strings.Cut(spec, ":")
	s := &source{kind: kind, path: path, where: fmt.Sprintf("%q", path)}
	var unsupported error
	switch {
	case kind == KeyFile && path != "":
		s.read = func(kek *lockmem.Buffer) error { return readFile(path, p.ownFile(), kek) }
		s.write = func(kek, _ *lockmem.Buffer, owner *Owner) error { return writeFile(path, kek.Bytes(), owner) }
	case spec == Credential:
		dir := p.credentials()
		s.where = "there is no credential \"kek\"; the service's unit needs LoadCredentialEncrypted=kek:PATH"
		s.read = func(kek *lockmem.Buffer) error { return readCredential(dir, kek) }
	case kind == TPM2 && path != "":
		unsupported = haveTPM()
		s.read = func(kek *lockmem.Buffer) error { return readBox(path, p.ownFile(), kek, p.unseal) }
		s.write = func(kek, room *lockmem.Buffer, owner *Owner) error { return writeBox(path, kek, room, owner, p.seal) }
	case kind == DPAPI && path != "":
		unsupported = haveDPAPI()
		s.read = func(kek *lockmem.Buffer) error { return readBox(path, p.ownFile(), kek, unprotect) }
		s.write = func(kek, room *lockmem.Buffer, owner *Owner) error { return writeBox(path, kek, room, owner, protect) }
	default:
		return nil, fmt.Errorf("hostkey: %q is no key; one of keyfile:PATH, credential, tpm2:PATH, dpapi:PATH is", spec)
	}
	if unsupported != nil {
		return nil, fmt.Errorf("hostkey: %w", unsupported)
	}
	return s, nil
}

// fill makes a Key of the octets that get puts into kek; room is a slot for the time.
func fill(kind string, a *lockmem.Arena, get func(kek, room *lockmem.Buffer) error) (_ *Key, err error) {
	kek, err := a.Key()
	if err != nil {
		return nil, fmt.Errorf("hostkey: %w", err)
	}
	defer func() {
		if err != nil {
			a.Drop(kek)
		}
	}()
	// Inside Borrow also where no room is needed, so that nothing of the key stays on the stack.
	err = a.Borrow(context.Background(), func(room *lockmem.Buffer) error { return get(kek, room) })
	if err != nil {
		return nil, fmt.Errorf("hostkey: %w", err)
	}
	if *kek.Key() == [Size]byte{} {
		return nil, errors.New("hostkey: these are zeros, not a key")
	}
	id, err := identify(kek, a)
	if err != nil {
		return nil, fmt.Errorf("hostkey: %w", err)
	}
	return &Key{KEK: kek, Kind: kind, ID: id, Host: Host()}, nil
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
