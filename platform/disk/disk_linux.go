package disk

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

func of(path string) (Room, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(path, &s); err != nil {
		return Room{}, err
	}
	r := Room{Total: int64(s.Blocks) * int64(s.Bsize), Free: int64(s.Bavail) * int64(s.Bsize), Files: -1,
		ReadOnly: s.Flags&unix.ST_RDONLY != 0}
	if s.Files > 0 { // btrfs and others make inodes as they need them
		r.Files = int64(s.Ffree)
	}
	return r, nil
}

func allocate(f *os.File, n int64) error {
	for {
		switch err := unix.Fallocate(int(f.Fd()), 0, 0, n); {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENOSYS):
			return fill(f, n)
		default:
			return err
		}
	}
}
