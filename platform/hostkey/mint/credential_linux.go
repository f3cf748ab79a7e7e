package mint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"batchwarden/platform/hostkey"
	"batchwarden/platform/lockmem"
	"batchwarden/platform/safefile"
)

// credsTime bounds how long systemd-creds may take; a TPM is slow.
const credsTime = time.Minute

// credential lets systemd encrypt a key for this machine. It comes to the service by the line
// LoadCredentialEncrypted=kek:PATH in the service's unit.
func credential(o Options, a *lockmem.Arena) (_ *Made, err error) {
	path := o.CredentialFile
	if path == "" {
		path = CredentialFile
	}
	// Before anything is made, and again when the file is.
	if _, err := os.Lstat(path); err == nil {
		return nil, fmt.Errorf("mint: %q: %w", path, os.ErrExist)
	}
	k, err := hostkey.New(hostkey.Credential, a)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			a.Drop(k.KEK)
		}
	}()
	m := &Made{Key: *k, Path: path}
	text, err := m.encrypt(o.CredentialKey)
	if err != nil {
		return nil, fmt.Errorf("mint: systemd-creds: %w", err)
	}
	if err := makeDir(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("mint: %w", err)
	}
	err = safefile.CreateNew(path, 0o600, func(f *os.File) error {
		_, err := f.Write(text)
		return err
	})
	if err != nil {
		return nil, err
	}
	return m, nil
}

// makeDir makes the directory where there is none, as systemd's packages do, and checks it.
func makeDir(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return safefile.CheckDir(dir, safefile.Rules{})
}

// encrypt gives the key to systemd-creds by a pipe and returns what it made of it, which is no secret.
func (m *Made) encrypt(with string) (_ []byte, err error) {
	in, err := m.Pipe()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	ctx, cancel := context.WithTimeout(context.Background(), credsTime)
	defer cancel()
	args := []string{"encrypt", "--name=kek"}
	if with != "" {
		args = append(args, "--with-key="+with)
	}
	cmd := exec.CommandContext(ctx, "systemd-creds", append(args, "-", "-")...)
	var out, said bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = in, &out, &said
	if err := cmd.Run(); err != nil {
		if errors.Is(err, exec.ErrNotFound) {
			return nil, errors.New("it is not on this machine; credentials need systemd 250 or later")
		}
		return nil, fmt.Errorf("%w: %s", err, strings.TrimSpace(said.String()))
	}
	if out.Len() == 0 {
		return nil, errors.New("it made nothing")
	}
	return out.Bytes(), nil
}
