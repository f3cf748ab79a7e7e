package hostkey

import (
	"errors"
	"fmt"
	"slices"

	"batchwarden/platform/lockmem"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
)

// A key of kind tpm2 is a sealed data object below the storage root key of the machine's TPM, the ECC
// P-256 one that everybody derives alike from the TPM's owner seed. The file holds what the TPM made of
// it: the object's public and private part, and the name of the storage root key.
//
// It is bound to the TPM and to nothing else: no PCR, because a firmware update must not lock a machine
// out of its vault, and no password, because there is nobody to give one. Who can use the TPM and read
// the file, root and our own user, can have the key; who has the disk, or a copy of it, cannot.
//
// The key never crosses the bus to the TPM as it is: a session whose key is agreed with the storage
// root key encrypts it. When it is unsealed, the storage root key is known to be the right one by its
// name, so that who sits on the bus cannot put another in its place; when it is sealed there is nothing
// to know it by. And the key is never in the heap: go-tpm sees zeros, see sealing and unsealing. What
// the heap keeps is the session's own key, which is of use only to who recorded the bus.

// boxMagic begins the file; three parts follow, each with its length in two octets.
const boxMagic = "batchwarden tpm2 key 1\n"

// sharedRoot is where operating systems keep the storage root key when the TPM's owner has a password,
// so that it cannot be made again.
const sharedRoot = tpm2.TPMHandle(0x81000001)

func haveTPM() error { return nil }

// seal lets the TPM make a box of the key.
func (p Places) seal(kek, room *lockmem.Buffer) (box []byte, err error) {
	t, err := p.openTPM()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	root, err := findRoot(t, nil)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, root.flush(t)) }()
	session := tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.Salted(root.handle, root.public), tpm2.AESEncryption(128, tpm2.EncryptIn))
	made, err := tpm2.Create{
		ParentHandle: tpm2.AuthHandle{Handle: root.handle, Name: root.name, Auth: &sealing{session, kek, room}},
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: make([]byte, Size)}),
		}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type:             tpm2.TPMAlgKeyedHash,
			NameAlg:          tpm2.TPMAlgSHA256,
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, UserWithAuth: true, NoDA: true},
		}),
	}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("TPM: seal: %w", err)
	}
	box = []byte(boxMagic)
	for _, part := range [][]byte{root.name.Buffer, made.OutPublic.Bytes(), made.OutPrivate.Buffer} {
		box = append(box, byte(len(part)>>8), byte(len(part)))
		box = append(box, part...)
	}
	return box, nil
}

// unseal lets the TPM open a box that it made.
func (p Places) unseal(box []byte, kek *lockmem.Buffer) (err error) {
	rootName, public, private, err := cutBox(box)
	if err != nil {
		return err
	}
	t, err := p.openTPM()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	root, err := findRoot(t, rootName)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.flush(t)) }()
	inPublic := tpm2.BytesAs2B[tpm2.TPMTPublic](public)
	name, err := nameOf(&inPublic)
	if err != nil {
		return errBox
	}
	object, err := tpm2.Load{
		ParentHandle: tpm2.AuthHandle{Handle: root.handle, Name: root.name, Auth: tpm2.PasswordAuth(nil)},
		InPrivate:    tpm2.TPM2BPrivate{Buffer: private},
		InPublic:     inPublic,
	}.Execute(t)
	if err != nil {
		return fmt.Errorf("TPM: load: %w", err)
	}
	defer func() { err = errors.Join(err, flush(t, object.ObjectHandle)) }()
	session := tpm2.HMAC(tpm2.TPMAlgSHA256, 16, tpm2.Salted(root.handle, root.public), tpm2.AESEncryption(128, tpm2.EncryptOut))
	opening := &unsealing{Session: session, kek: kek}
	_, err = tpm2.Unseal{
		ItemHandle: tpm2.AuthHandle{Handle: object.ObjectHandle, Name: name, Auth: opening},
	}.Execute(t)
	if err == nil && !opening.done {
		err = errors.New("the answer holds no key")
	}
	if err != nil {
		return fmt.Errorf("TPM: unseal: %w", err)
	}
	return nil
}

var errBox = errors.New("not a key that a TPM sealed, or damaged")

func cutBox(box []byte) (rootName, public, private []byte, err error) {
	if len(box) < len(boxMagic) || string(box[:len(boxMagic)]) != boxMagic {
		return nil, nil, nil, errBox
	}
	rest := box[len(boxMagic):]
	for _, part := range []*[]byte{&rootName, &public, &private} {
		if len(rest) < 2 {
			return nil, nil, nil, errBox
		}
		n := int(rest[0])<<8 | int(rest[1])
		if rest = rest[2:]; n == 0 || n > len(rest) {
			return nil, nil, nil, errBox
		}
		*part, rest = rest[:n], rest[n:]
	}
	if len(rest) > 0 {
		return nil, nil, nil, errBox
	}
	return rootName, public, private, nil
}

// storageRoot is the storage root key, loaded.
type storageRoot struct {
	handle    tpm2.TPMHandle
	public    tpm2.TPMTPublic
	name      tpm2.TPM2BName
	transient bool // made by us
}

func (r *storageRoot) flush(t transport.TPM) error {
	if !r.transient {
		return nil
	}
	return flush(t, r.handle)
}

func flush(t transport.TPM, h tpm2.TPMHandle) error {
	if _, err := (tpm2.FlushContext{FlushHandle: h}).Execute(t); err != nil {
		return fmt.Errorf("TPM: flush: %w", err)
	}
	return nil
}

// findRoot finds the storage root key of that name, nil for any. ErrForeign: this TPM has another one.
func findRoot(t transport.TPM, name []byte) (*storageRoot, error) {
	var failed error
	for _, load := range []func(transport.TPM) (*storageRoot, error){makeRoot, readRoot} {
		r, err := load(t)
		if err != nil {
			failed = errors.Join(failed, err)
			continue
		}
		if name == nil || slices.Equal(r.name.Buffer, name) {
			return r, nil
		}
		if err := r.flush(t); err != nil {
			return nil, err
		}
		failed = errors.Join(failed, fmt.Errorf("%w: by another TPM than this machine's, or before it was cleared", ErrForeign))
	}
	return nil, failed
}

// makeRoot derives the storage root key, which needs the TPM's owner to have no password.
func makeRoot(t transport.TPM) (*storageRoot, error) {
	made, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("TPM: storage root key: %w", err)
	}
	return rootOf(made.ObjectHandle, &made.OutPublic, true)
}

// readRoot takes the one that the operating system keeps.
func readRoot(t transport.TPM) (*storageRoot, error) {
	found, err := tpm2.ReadPublic{ObjectHandle: sharedRoot}.Execute(t)
	if err != nil {
		return nil, fmt.Errorf("TPM: storage root key that is kept: %w", err)
	}
	return rootOf(sharedRoot, &found.OutPublic, false)
}

func rootOf(h tpm2.TPMHandle, public *tpm2.TPM2BPublic, transient bool) (*storageRoot, error) {
	contents, err := public.Contents()
	if err != nil {
		return nil, fmt.Errorf("TPM: storage root key: %w", err)
	}
	name, err := nameOf(public)
	if err != nil {
		return nil, fmt.Errorf("TPM: storage root key: %w", err)
	}
	return &storageRoot{handle: h, public: *contents, name: name, transient: transient}, nil
}

// nameOf computes an object's name, a hash of what it is. What the TPM, or who sits before it, says that
// the name is counts for nothing.
func nameOf(public *tpm2.TPM2BPublic) (tpm2.TPM2BName, error) {
	contents, err := public.Contents()
	if err != nil {
		return tpm2.TPM2BName{}, err
	}
	name, err := tpm2.ObjectName(contents)
	if err != nil {
		return tpm2.TPM2BName{}, err
	}
	return *name, nil
}

// sealing is a session that puts the key into the command as it encrypts it. go-tpm made the command
// with zeros in the key's place, and gets back what is encrypted.
type sealing struct {
	tpm2.Session
	kek, room *lockmem.Buffer
}

// Encrypt replaces the first parameter of Create: an empty password with its length, and the key with
// its length.
func (s *sealing) Encrypt(parameter []byte) error {
	const before = 4
	if len(parameter) != before+Size {
		return errors.New("the command is not laid out as expected")
	}
	s.room.SetLen(len(parameter))
	text := s.room.Bytes()
	copy(text, parameter[:before])
	copy(text[before:], s.kek.Bytes())
	if err := s.Session.Encrypt(text); err != nil {
		return err
	}
	copy(parameter, text)
	return nil
}

// unsealing is a session that decrypts an answer into locked memory, and leaves zeros to go-tpm.
type unsealing struct {
	tpm2.Session
	kek  *lockmem.Buffer
	done bool
}

// Decrypt takes the first parameter of what Unseal answers: the key, and nothing else.
func (u *unsealing) Decrypt(parameter []byte) error {
	if len(parameter) != Size {
		return fmt.Errorf("%d octets were sealed, a key has %d", len(parameter), Size)
	}
	copy(u.kek.Bytes(), parameter)
	clear(parameter)
	u.done = true
	return u.Session.Decrypt(u.kek.Bytes())
}
