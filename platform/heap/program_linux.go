package heap

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mapping is a part of a program's file in memory.
type mapping struct {
	from, to uintptr
	modes    string // as "r-xp"
	file     string
	own      int // KiB that are not the file's any more
}

// ForgetProgram gives back the parts of this program's file that lie in memory, which is most of it when it has begun,
// and only a beginning needs. What is needed again comes back from the system's cache of files when it is touched. Parts
// that can be written, or were, stay.
func ForgetProgram() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return err
	}
	all, err := mappings()
	if err != nil {
		return err
	}
	for _, m := range all {
		if m.file == program && !strings.Contains(m.modes, "w") && strings.HasSuffix(m.modes, "p") && m.own == 0 {
			if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED); errno != 0 {
				err = errors.Join(err, os.NewSyscallError("madvise", errno))
			}
		}
	}
	return err
}

// mappings are all of this process.
func mappings() (all []mapping, err error) {
	text, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		switch {
		case len(fields) < 2:
		case !strings.HasSuffix(fields[0], ":"):
			m := mapping{modes: fields[1]}
			if _, err := fmt.Sscanf(fields[0], "%x-%x", &m.from, &m.to); err != nil {
				return nil, fmt.Errorf("smaps: %q: %w", line, err)
			}
			if at := strings.Index(line, "/"); at >= 0 {
				m.file = strings.TrimSuffix(line[at:], "\n")
			}
			all = append(all, m)
		case fields[0] == "Anonymous:" && len(all) > 0:
			if all[len(all)-1].own, err = strconv.Atoi(fields[1]); err != nil {
				return nil, fmt.Errorf("smaps: %q: %w", line, err)
			}
		}
	}
	return all, nil
}
