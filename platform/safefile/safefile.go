// Package safefile opens files that only trusted owners can have written, and writes files so that a
// crash leaves the old content or the new one.
//
// A path that an administrator configures may be, or may lead over, a symbolic link: certificates and
// mounted secrets commonly are. Nothing is gained by refusing it, as whoever could place a bad link
// could place a bad file. So links are resolved first, the directory that really holds the file is
// opened, and the file is opened in that directory without following a link, once; owner and mode are
// read from the open descriptors. Where the path given is a link, the directory of the link is held to
// the same rules. Ancestors above these directories are not checked.
package safefile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// ErrLocked reports that another process has the directory locked.
var ErrLocked = errors.New("locked by another process")

// Rules say whose a file may be. The zero value: root's, and writable by nobody else.
type Rules struct {
	// Self allows our own effective user as the owner beside root.
	Self bool
	// Owners allows these users beside root.
	Owners []uint32
	// Mode is the permission bits that the file may have; 0 means 0755. Bits that let group or
	// others write are never allowed. The directory may be readable by anybody.
	Mode fs.FileMode
	// AnyDir leaves the directories unchecked.
	AnyDir bool
}

// Open opens the regular file at path for reading, once, when the rules allow it and its directory.
// A file that does not exist is fs.ErrNotExist.
func Open(path string, r Rules) (*os.File, error) {
	f, err := open(path, &r)
	if err != nil {
		return nil, wrap(path, err)
	}
	return f, nil
}

// Read returns the content of the file at path, which must hold to the rules and be at most limit
// octets long.
func Read(path string, limit int64, r Rules) (data []byte, err error) {
	f, err := Open(path, r)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	data, err = io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, wrap(path, err)
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("safefile: %q: longer than %d octets", path, limit)
	}
	return data, nil
}

// CheckDir says whether dir is a directory, not a link, that the rules allow as one.
func CheckDir(dir string, r Rules) error { return wrap(dir, checkDir(dir, &r)) }

// WriteAtomic makes data the content of the file at path, with exactly the permission bits of mode.
// When it returns nil the content is on the disk; when it fails, or the machine does, the file is as
// it was before or holds data.
func WriteAtomic(path string, data []byte, mode fs.FileMode) error {
	return place(path, mode, os.Rename, func(f *os.File) error {
		_, err := f.Write(data)
		return err
	})
}

// CreateNew makes the file at path with what write puts into it, whole or not at all, and on the disk
// when it returns nil. A file that is there already is fs.ErrExist and stays.
func CreateNew(path string, mode fs.FileMode, write func(*os.File) error) error {
	// link(2), unlike rename(2), does not replace.
	return place(path, mode, func(from, to string) error {
		if err := os.Link(from, to); err != nil {
			return err
		}
		return os.Remove(from)
	}, write)
}

// place writes a temporary file beside path and moves it there.
func place(path string, mode fs.FileMode, move func(from, to string) error, write func(*os.File) error) (err error) {
	if err := supported(); err != nil {
		return wrap(path, err)
	}
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+".new-*") // O_EXCL, 0600
	if err != nil {
		return wrap(path, err)
	}
	defer func() {
		if err != nil {
			// The first error is the one to tell; a file that is gone already is no fault.
			_ = os.Remove(f.Name())
		}
	}()
	if err := errors.Join(write(f), f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return wrap(path, err)
	}
	if err := move(f.Name(), path); err != nil {
		return wrap(path, err)
	}
	return SyncDir(dir)
}

// SyncDir puts the names in dir on the disk.
func SyncDir(dir string) error { return wrap(dir, syncDir(dir)) }

// Lock locks the directory against other processes, and other calls in this one, until the Closer is
// closed or the process ends. It never waits: ErrLocked reports that another has the lock.
func Lock(dir string) (io.Closer, error) {
	c, err := lock(dir)
	if err != nil {
		return nil, wrap(dir, err)
	}
	return c, nil
}

// wrap names the path once: what the os package says of it repeats it.
func wrap(path string, err error) error {
	if err == nil {
		return nil
	}
	if p, ok := errors.AsType[*fs.PathError](err); ok {
		return fmt.Errorf("safefile: %q: %s: %w", path, p.Op, p.Err)
	}
	if l, ok := errors.AsType[*os.LinkError](err); ok {
		return fmt.Errorf("safefile: %q: %s: %w", path, l.Op, l.Err)
	}
	return fmt.Errorf("safefile: %q: %w", path, err)
}
