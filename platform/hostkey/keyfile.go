package hostkey

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"batchwarden/platform/lockmem"
	"batchwarden/platform/safefile"
)

// maxBox bounds the file of a key that is sealed.
const maxBox = 4096

// ownFile is whose a key's file may be and who may read it.
var ownFile = safefile.Rules{Self: true, Mode: 0o400}

// ownFile is ownFile, and whom the caller adds.
func (p Places) ownFile() safefile.Rules {
	r := ownFile
	r.Owners = p.Owners
	return r
}

// readFile reads a key that lies in a file as it is.
func readFile(path string, rules safefile.Rules, kek *lockmem.Buffer) (err error) {
	f, err := safefile.Open(path, rules)
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
	if err := kek.ReadFull(f, Size); err != nil {
		return err
	}
	if *kek.Key() == [Size]byte{} {
		return fmt.Errorf("%q holds zeros, not a key", path)
	}
	return nil
}

// writeFile makes a file of owner's, nil for ours, with these octets, straight from where they lie.
// Where we write for somebody else, the directory has to be his or root's, and no link.
func writeFile(path string, text []byte, owner *Owner) error {
	rules := safefile.Rules{Self: true}
	if owner != nil {
		rules = safefile.Rules{Owners: []uint32{owner.UID}}
	}
	if err := safefile.CheckDir(filepath.Dir(path), rules); err != nil {
		return err
	}
	return safefile.CreateNew(path, 0o400, func(f *os.File) error {
		if owner != nil {
			if err := f.Chown(int(owner.UID), int(owner.GID)); err != nil {
				return err
			}
		}
		_, err := f.Write(text) // write(2)
		return err
	})
}

// readBox reads a sealed key and opens it.
func readBox(path string, rules safefile.Rules, kek *lockmem.Buffer, open func(box []byte, kek *lockmem.Buffer) error) error {
	box, err := safefile.Read(path, maxBox, rules)
	if err != nil {
		return err
	}
	if err := open(box, kek); err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	return nil
}

// writeBox seals a key and makes a file of that.
func writeBox(path string, kek, room *lockmem.Buffer, owner *Owner, seal func(kek, room *lockmem.Buffer) ([]byte, error)) error {
	if _, err := os.Lstat(path); err == nil {
		return fmt.Errorf("%q: %w", path, os.ErrExist) // before the work is done
	}
	box, err := seal(kek, room)
	if err != nil {
		return fmt.Errorf("%q: %w", path, err)
	}
	return writeFile(path, box, owner)
}

// keepAside renames the file of a key of another machine, to a name that is the same for the same one.
func keepAside(path string) error {
	box, err := safefile.Read(path, maxBox, ownFile)
	if err != nil {
		return fmt.Errorf("hostkey: %w", err)
	}
	sum := sha256.Sum256(box)
	if err := os.Rename(path, path+".foreign-"+hex.EncodeToString(sum[:8])); err != nil {
		return fmt.Errorf("hostkey: %w", err)
	}
	return safefile.SyncDir(filepath.Dir(path))
}
