package hostkey

import (
	"io/fs"
	"os"
	"path/filepath"

	"batchwarden/platform/lockmem"
	"batchwarden/platform/safefile"
)

// credentialFile is how systemd makes a credential for a unit with User=: ours with mode 0400, or, where
// the file system has access lists, root's with an entry for us, whose mask shows as the group's bits.
var credentialFile = safefile.Rules{Self: true, Mode: 0o440}

// credentials is the directory of our unit's credentials, "" where there is none.
func (p Places) credentials() string {
	if p.Credentials != "" {
		return p.Credentials
	}
	return os.Getenv("CREDENTIALS_DIRECTORY")
}

func readCredential(dir string, kek *lockmem.Buffer) error {
	if dir == "" {
		return fs.ErrNotExist
	}
	return readFile(filepath.Join(dir, "kek"), credentialFile, kek)
}
