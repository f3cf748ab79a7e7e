package peer

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// maxStatus bounds a file of /proc; with as many groups as there can be, status has about 700 KiB.
const maxStatus = 1 << 20

// process is a process held by its directory in /proc: what is read there is never another's, whatever happens to its
// number. pidfd is the kernel's hold on it since it connected, -1 on kernels before 6.5.
type process struct {
	dir   int
	pidfd int
}

// hold takes hold of the process that made the connection fd and had the number pid then. If it still runs later, the
// number was its own when its directory was opened: ask runs when everything was read.
func hold(fd, pid int, older bool) (process, error) {
	p := process{dir: -1, pidfd: -1}
	if !older {
		pidfd, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PEERPIDFD)
		switch {
		case err == nil:
			p.pidfd = pidfd
		case !errors.Is(err, unix.ENOPROTOOPT):
			return p, fmt.Errorf("%w: SO_PEERPIDFD: %w", ErrGone, err)
		}
	}
	dir, err := unix.Open("/proc/"+strconv.Itoa(pid), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		p.close()
		return p, fmt.Errorf("%w: /proc/%d: %w", ErrGone, pid, err)
	}
	p.dir = dir
	return p, nil
}

func (p process) close() {
	for _, fd := range []int{p.dir, p.pidfd} {
		if fd >= 0 {
			_ = unix.Close(fd) // it refers to a process or a directory: there is nothing to lose
		}
	}
}

// runs is ErrGone once the process has ended; a pidfd becomes readable then. Without one the process has to be the one
// that began at started.
func (p process) runs(started uint64) error {
	if p.pidfd < 0 {
		now, err := p.started()
		if err == nil && now != started {
			err = ErrGone
		}
		return err
	}
	for {
		fds := []unix.PollFd{{Fd: int32(p.pidfd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return os.NewSyscallError("poll", err)
		case n != 0:
			return ErrGone
		}
		return nil
	}
}

// started is when the process began, in clock ticks since the system booted.
func (p process) started() (uint64, error) {
	stat, err := p.read("stat")
	if err != nil {
		return 0, err
	}
	// After the name, which may have anything in it: the state is field 3, the start time field 22.
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) < 20 {
		return 0, fmt.Errorf("/proc/PID/stat has %d fields", len(fields))
	}
	if state := fields[0][0]; state == 'Z' || state == 'X' || state == 'x' {
		return 0, ErrGone
	}
	started, err := strconv.ParseUint(string(fields[19]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("/proc/PID/stat: start time: %w", err)
	}
	return started, nil
}

// read returns one of the process's files in /proc, of those that are written in one piece: a read that does not fill
// the room it had has seen all of it.
func (p process) read(name string) ([]byte, error) {
	fd, err := unix.Openat(p.dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, gone("open "+name, err)
	}
	defer unix.Close(fd)
	text := make([]byte, 0, 2048)
	for {
		n, err := unix.Read(fd, text[len(text):cap(text)])
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, gone("read "+name, err)
		}
		switch text = text[:len(text)+n]; {
		case len(text) < cap(text):
			return text, nil
		case len(text) > maxStatus:
			return nil, fmt.Errorf("/proc/PID/%s is longer than %d octets", name, maxStatus)
		}
		text = slices.Grow(text, len(text))
	}
}

// link returns where one of the process's links in /proc leads.
func (p process) link(name string) (string, error) {
	target := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(p.dir, name, target)
	switch {
	case err != nil:
		return "", gone("readlink "+name, err)
	case n == len(target):
		return "", fmt.Errorf("/proc/PID/%s: %w", name, unix.ENAMETOOLONG)
	}
	return string(target[:n]), nil
}

// gone is ErrGone for what /proc answers about a process that has ended.
func gone(what string, err error) error {
	switch {
	case errors.Is(err, unix.ESRCH) || errors.Is(err, unix.ENOENT):
		return fmt.Errorf("%w: %s: %w", ErrGone, what, err)
	case errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM):
		return fmt.Errorf("%s: %w (to look at other users' processes needs root with CAP_SYS_PTRACE)", what, err)
	}
	return os.NewSyscallError(what, err)
}

// numbers returns those that follow key in a file like /proc/PID/status, nil when something else is there.
func numbers(status []byte, key string) []uint32 {
	for line := range bytes.Lines(status) {
		rest, ok := bytes.CutPrefix(line, []byte(key))
		if !ok {
			continue
		}
		list := []uint32{}
		for field := range bytes.FieldsSeq(rest) {
			n, err := strconv.ParseUint(string(field), 10, 32)
			if err != nil {
				return nil
			}
			list = append(list, uint32(n))
		}
		return list
	}
	return nil
}
