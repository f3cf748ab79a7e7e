// Package disk tells how much room a file system has, and takes room ahead of
// its use.
package disk

import (
	"fmt"
	"os"
)

// Room is how much a file system has and can still take, for users without
// privileges.
type Room struct {
	Total, Free int64 // octets
	Files       int64 // that can still be made; -1 where there is no such limit
	ReadOnly    bool  // nothing on it can be changed
}

// Of is the room of the file system that path lies on. An error wraps
// errors.ErrUnsupported where the platform does not tell.
func Of(path string) (Room, error) {
	r, err := of(path)
	if err != nil {
		return Room{}, fmt.Errorf("disk: room of %q: %w", path, err)
	}
	return r, nil
}

// Allocate makes f n octets long, and what is in them is taken from the file
// system now, not when it is written. After an error the file may have any
// length up to n.
func Allocate(f *os.File, n int64) error {
	if err := allocate(f, n); err != nil {
		return fmt.Errorf("disk: take %d octets for %q: %w", n, f.Name(), err)
	}
	return nil
}
