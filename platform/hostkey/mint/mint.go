// Package mint makes the key that is to open a local vault instead of the one that does: for the
// administrator who changes it, with the rights that takes, in a process of its own.
package mint

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"batchwarden/platform/hostkey"
	"batchwarden/platform/lockmem"
)

// CredentialFile is where a credential's file is made unless the caller says otherwise.
const CredentialFile = "/etc/credstore.encrypted/batchwarden.kek"

// Options say what differs from the usual.
type Options struct {
	Places         hostkey.Places
	CredentialFile string // CredentialFile
	CredentialKey  string // what systemd-creds encrypts with: "auto", "host", "tpm2"; "" is auto
}

// A Made key lies where it will be found, and opens nothing yet.
type Made struct {
	hostkey.Key
	Path string // the file that was made
}

// Key makes the key that spec names, for the account that will open it. The file must not be there: it
// may be the key of something, and then the error is fs.ErrExist. Whoever gets an error has no new file.
// The caller gives KEK back with a.Drop.
func Key(spec string, owner hostkey.Owner, o Options, a *lockmem.Arena) (*Made, error) {
	if spec == hostkey.Credential {
		return credential(o, a)
	}
	k, err := o.Places.Create(spec, &owner, a)
	if err != nil {
		return nil, err
	}
	_, path, _ := strings.Cut(spec, ":")
	return &Made{Key: *k, Path: path}, nil
}

// Undo removes the file again: it is for when the vault did not take the key.
func (m *Made) Undo() error {
	if err := os.Remove(m.Path); err != nil {
		return fmt.Errorf("mint: the new key, which opens nothing, is still there: %w", err)
	}
	return nil
}

// Pipe returns the reading end of a pipe that holds the key, written straight from locked memory, and
// whose writing end is closed.
func (m *Made) Pipe() (*os.File, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, fmt.Errorf("mint: %w", err)
	}
	_, err = w.Write(m.KEK.Bytes()) // write(2); a pipe has room for it
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, errors.Join(fmt.Errorf("mint: %w", err), r.Close())
	}
	return r, nil
}
