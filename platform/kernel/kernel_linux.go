package kernel

import (
	"bufio"
	"errors"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

func abilities() []Ability {
	return []Ability{
		{MemfdSecret, memfdSecret()}, {PeerPidfd, peerPidfd()}, {Pidfd, pidfd()},
		{Landlock, landlock()}, {Cgroup2, cgroup2()}, {MadvPopulate, madvPopulate()},
	}
}

// failed is the error of a raw system call, nil for none.
func failed(errno unix.Errno) error {
	if errno == 0 {
		return nil
	}
	return errno
}

func memfdSecret() error {
	fd, _, errno := unix.Syscall(unix.SYS_MEMFD_SECRET, unix.O_CLOEXEC, 0, 0)
	if errno != 0 {
		return errno
	}
	return unix.Close(int(fd))
}

func peerPidfd() error {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	fd, err := unix.GetsockoptInt(pair[0], unix.SOL_SOCKET, unix.SO_PEERPIDFD)
	if err == nil {
		err = unix.Close(fd)
	}
	return errors.Join(err, unix.Close(pair[0]), unix.Close(pair[1]))
}

func pidfd() error {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

func landlock() error {
	_, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	return failed(errno)
}

// cgroup2 wants the file system mounted somewhere; whether we may use it is another question.
func cgroup2() error {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer f.Close() // only read
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if _, kind, _ := strings.Cut(lines.Text(), " - "); strings.HasPrefix(kind, "cgroup2 ") {
			return nil
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return errors.New("it is not mounted")
}

func madvPopulate() error {
	mem, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	return errors.Join(unix.Madvise(mem, unix.MADV_POPULATE_WRITE), unix.Munmap(mem))
}
