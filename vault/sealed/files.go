package sealed

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"batchwarden/platform/safefile"
)

// Names in the directory of a vault.
const (
	logName        = "vault.log"
	newName        = "vault.log.new" // being written; never read
	quarantinePart = "quarantine-"   // and the begin of its sum
)

// files is all that a Store does with its directory, so that a test can put a layer between that
// fails. Names are names in the directory.
type files interface {
	// ReadAll returns a file's content of at most limit octets; fs.ErrNotExist when there is none.
	ReadAll(name string, limit int64) ([]byte, error)
	// Open opens a file that is there for writing.
	Open(name string) (file, error)
	// Create makes an empty file, in the place of any that is there.
	Create(name string) (file, error)
	Rename(from, to string) error
	Remove(name string) error
	Names() ([]string, error)
	// SyncDir puts the names on the disk.
	SyncDir() error
	// Lock keeps other processes from the directory until it is closed; ErrLocked.
	Lock() (io.Closer, error)
}

type file interface {
	WriteAt(p []byte, at int64) (int, error)
	Truncate(size int64) error
	Sync() error
	Close() error
}

// directory is the real files.
type directory string

// ours: the vault belongs to the daemon's own user and is nobody else's to read.
var ours = safefile.Rules{Self: true, Mode: 0o600}

// Size is how many octets the vault in dir has; 0 where there is none, or nobody can tell.
func Size(dir string) int64 {
	info, err := os.Lstat(directory(dir).path(logName))
	if err != nil {
		return 0
	}
	return info.Size()
}

// openDirectory checks dir, and makes it where it is missing.
func openDirectory(dir string) (directory, error) {
	err := os.Mkdir(dir, 0o700)
	if err == nil {
		err = safefile.SyncDir(filepath.Dir(dir))
	} else if errors.Is(err, fs.ErrExist) {
		err = nil
	}
	if err == nil {
		err = safefile.CheckDir(dir, safefile.Rules{Self: true})
	}
	if err != nil {
		return "", fmt.Errorf("sealed: open %q: %w", dir, err)
	}
	return directory(dir), nil
}

func (d directory) path(name string) string { return filepath.Join(string(d), name) }

func (d directory) ReadAll(name string, limit int64) ([]byte, error) {
	data, err := d.read(name, limit+1)
	if err == nil && int64(len(data)) > limit {
		err = fmt.Errorf("%q: longer than %d octets", d.path(name), limit)
	}
	return data, err
}

// read returns at most the first limit octets of a file, in a piece of memory of that size.
func (d directory) read(name string, limit int64) (data []byte, err error) {
	f, err := safefile.Open(d.path(name), ours)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	data = make([]byte, min(info.Size(), limit))
	n, err := io.ReadFull(f, data)
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = nil // others that hold the lock do not write; it is as long as it is
	}
	return data[:n], err
}

func (d directory) Open(name string) (file, error) {
	f, err := os.OpenFile(d.path(name), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d directory) Create(name string) (file, error) {
	if err := d.Remove(name); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(d.path(name), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	return f, nil
}

func (d directory) Rename(from, to string) error { return os.Rename(d.path(from), d.path(to)) }

// Remove is content when there is nothing to remove.
func (d directory) Remove(name string) error {
	if err := os.Remove(d.path(name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (d directory) Names() ([]string, error) {
	entries, err := os.ReadDir(string(d))
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (d directory) SyncDir() error { return safefile.SyncDir(string(d)) }

func (d directory) Lock() (io.Closer, error) {
	c, err := safefile.Lock(string(d))
	if errors.Is(err, safefile.ErrLocked) {
		return nil, fmt.Errorf("sealed: open %q: %w", string(d), ErrLocked)
	}
	return c, err
}

// replace makes data the content of the file name: whole, and on the disk, or not at all. It returns
// the file open for writing.
func replace(fsys files, name string, data []byte) (f file, err error) {
	f, err = fsys.Create(newName)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			// The first error is told. What is left of the new file is never read.
			_ = f.Close()
			_ = fsys.Remove(newName)
			f = nil
		}
	}()
	if _, err = f.WriteAt(data, 0); err != nil {
		return f, err
	}
	if err = f.Sync(); err != nil {
		return f, err
	}
	if err = fsys.Rename(newName, name); err != nil {
		return f, err
	}
	return f, fsys.SyncDir()
}
