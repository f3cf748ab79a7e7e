package peer

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxLooks = 4    // at files at one time for one user; a hung file system keeps a thread with each
	maxReads = 1    // of whole files, likewise
	maxQueue = 256  // that wait for one user's turn
	maxSums  = 1024 // that are remembered
	// sumLimit ends the summing up of a file that SumWait was too short for, and which nobody waits for any more.
	sumLimit = 2 * time.Minute
	// settled is how long a file must have been left alone for its sum to be remembered: a change within one tick of
	// the file system's clock does not show.
	settled = 2 * time.Second
)

var (
	errSlow = errors.New("the file system did not tell about the executable file in time")
	errBusy = errors.New("too many executable files of this user are being looked at")
)

// identity is one state of one file's content.
type identity struct {
	device, inode, size uint64
	changed             int64 // ctime in nanoseconds, which only the clock's owner can set
}

// identityOf asks with what the file system has at hand: on a network the answer of a moment ago.
func identityOf(dir int, path string, flags int) (identity, error) {
	var st unix.Statx_t
	err := unix.Statx(dir, path, flags|unix.AT_STATX_DONT_SYNC|unix.AT_NO_AUTOMOUNT, unix.STATX_BASIC_STATS, &st)
	if err != nil {
		return identity{}, os.NewSyscallError("statx", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return identity{}, errors.New("the executable is not a regular file")
	}
	return identity{
		device: unix.Mkdev(st.Dev_major, st.Dev_minor), inode: st.Ino, size: st.Size,
		changed: st.Ctime.Sec*int64(time.Second) + int64(st.Ctime.Nsec),
	}, nil
}

// turns lets a bounded number at a time do something on behalf of one user, so that nobody waits for what another
// user's files keep waiting.
type turns struct {
	most int // for one user

	mu    sync.Mutex // guards users and the counts in it
	users map[uint32]*turn
}

type turn struct {
	slots chan struct{}
	count int // those that have a slot or wait for one
}

func (t *turns) take(ctx context.Context, uid uint32) (release func(), err error) {
	t.mu.Lock()
	u := t.users[uid]
	if u == nil {
		if t.users == nil {
			t.users = map[uint32]*turn{}
		}
		u = &turn{slots: make(chan struct{}, t.most)}
		t.users[uid] = u
	}
	if u.count >= maxQueue {
		t.mu.Unlock()
		return nil, errBusy
	}
	u.count++
	t.mu.Unlock()

	leave := func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		if u.count--; u.count == 0 {
			delete(t.users, uid)
		}
	}
	select {
	case u.slots <- struct{}{}:
		return func() { <-u.slots; leave() }, nil
	case <-ctx.Done():
		leave()
		return nil, errSlow
	}
}

// sums remembers what files' contents sum up to.
type sums struct {
	reads turns

	mu      sync.Mutex // guards what follows
	known   map[identity]string
	running map[identity]*summing
	done    uint64 // how many files were read, for tests
}

type summing struct {
	over chan struct{} // closed when the rest is set
	sum  string
	err  error
}

// of returns the sum of the file's content, reading it unless it is known. Those who ask for the same file at the same
// time share the work, which goes on when they cannot wait for it.
func (s *sums) of(ctx context.Context, held process, id identity, uid uint32) (string, error) {
	if id.size > MaxExe {
		return "", fmt.Errorf("the executable file has %d octets; at most %d are summed up", id.size, MaxExe)
	}
	s.mu.Lock()
	if sum, ok := s.known[id]; ok {
		s.mu.Unlock()
		return sum, nil
	}
	r := s.running[id]
	if r == nil {
		exe, err := unix.Openat(held.dir, "exe", unix.O_PATH|unix.O_CLOEXEC, 0) // no file system is asked
		if err != nil {
			s.mu.Unlock()
			return "", gone("open exe", err)
		}
		if s.running == nil {
			s.known, s.running = map[identity]string{}, map[identity]*summing{}
		}
		r = &summing{over: make(chan struct{})}
		s.running[id] = r
		go s.run(r, exe, id, uid) // ends with the file, or after sumLimit, or when a hung file system answers
	}
	s.mu.Unlock()

	timer := time.NewTimer(SumWait)
	defer timer.Stop()
	select {
	case <-r.over:
		return r.sum, r.err
	case <-timer.C:
	case <-ctx.Done():
	}
	return "", errors.New("the executable file could not be summed up in time")
}

// run sums one file up and remembers the sum.
func (s *sums) run(r *summing, exe int, id identity, uid uint32) {
	defer unix.Close(exe)
	ctx, cancel := context.WithTimeout(context.Background(), sumLimit)
	defer cancel()
	release, err := s.reads.take(ctx, uid)
	if err == nil {
		r.sum, err = sum(ctx, exe, id)
		release()
	}
	r.err = err

	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, id)
	s.done++
	if err == nil && time.Since(time.Unix(0, id.changed)) > settled {
		if len(s.known) >= maxSums {
			for old := range s.known {
				delete(s.known, old)
				break
			}
		}
		s.known[id] = r.sum
	}
	close(r.over)
}

// sum reads the file that exe refers to and wants it to be the same before and after.
func sum(ctx context.Context, exe int, id identity) (string, error) {
	fd, err := unix.Open("/proc/self/fd/"+strconv.Itoa(exe), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("the executable file cannot be read: %w", err)
	}
	f := os.NewFile(uintptr(fd), "executable")
	defer f.Close() // only read
	digest := sha256.New()
	n, err := io.CopyBuffer(digest, io.LimitReader(until{ctx, f}, int64(id.size)+1), make([]byte, 256<<10))
	if err != nil {
		return "", fmt.Errorf("the executable file cannot be read: %w", err)
	}
	if now, err := identityOf(fd, "", unix.AT_EMPTY_PATH); err != nil || now != id || uint64(n) != id.size {
		return "", errors.New("the executable file changed while it was read")
	}
	return hex.EncodeToString(digest.Sum(nil)), nil
}

// until reads until the context ends.
type until struct {
	ctx context.Context
	io.Reader
}

func (u until) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.Reader.Read(p)
}
