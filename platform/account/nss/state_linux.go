package nss

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// stamp names one state of a file or directory, or that there is none.
type stamp struct {
	there        bool
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

func stampOf(path string) (stamp, error) {
	var st unix.Stat_t
	switch err := unix.Stat(path, &st); err {
	case nil:
		return stamp{true, uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}, nil
	case unix.ENOENT, unix.ENOTDIR:
		return stamp{}, nil
	default:
		return stamp{}, &os.PathError{Op: "stat", Path: path, Err: err}
	}
}

// tick is more than the clock of a file system is coarse.
const tick = time.Second

// settled reports whether a change from now on gives another stamp: ctime cannot be set, and is in another tick.
func (s stamp) settled(now time.Time) bool {
	return !s.there || now.Sub(time.Unix(s.ctime.Unix())) > tick
}

// state is what a file or directory says, read anew when that may have changed.
type state[T any] struct {
	path string
	read func(path string, there bool) (T, error)

	mu    sync.Mutex // guards what follows
	at    stamp
	known bool
	value T
}

// now returns what the file says now and the stamp of that.
func (s *state[T]) now() (T, stamp, error) {
	before, err := stampOf(s.path)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil && s.known && before == s.at {
		return s.value, before, nil
	}
	s.known = false
	for range 10 {
		var value T
		var after stamp
		if err == nil {
			value, err = s.read(s.path, before.there)
		}
		if err == nil {
			after, err = stampOf(s.path)
		}
		if err != nil {
			return value, stamp{}, err
		}
		if after == before {
			s.at, s.value, s.known = before, value, before.settled(time.Now())
			return value, before, nil
		}
		before = after
	}
	var none T
	return none, stamp{}, fmt.Errorf("%s: it changes while it is read", s.path)
}

// entries reads a directory; one that is not there has none.
func entries(path string, there bool) ([]string, error) {
	if !there {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	names, err := f.Readdirnames(-1)
	return names, errors.Join(err, f.Close())
}
