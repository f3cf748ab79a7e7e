package memscan

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// mapping is a line of /proc/PID/maps.
type mapping struct {
	start, end uint64
	name       string
}

func mappings(pid int) ([]mapping, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid))
	if err != nil {
		return nil, err
	}
	var all []mapping
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) < 5 || !strings.HasPrefix(fields[1], "r") {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		start, err1 := strconv.ParseUint(from, 16, 64)
		end, err2 := strconv.ParseUint(to, 16, 64)
		if err := errors.Join(err1, err2); err != nil {
			return nil, err
		}
		name := strings.Join(fields[5:], " ")
		switch name {
		case "[vvar]", "[vvar_vclock]", "[vsyscall]": // the kernel's own
			continue
		case "":
			name = "anonymous"
		}
		all = append(all, mapping{start, end, name + " " + fields[0]})
	}
	if len(all) == 0 {
		return nil, errors.New("no readable mapping; the process has ended, or may not be looked at")
	}
	return all, nil
}

func scan(pid int, x *index) (hits []Hit, err error) {
	maps, err := mappings(pid)
	if err != nil {
		return nil, err
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, mem.Close()) }()
	read := int64(0)
	for _, m := range maps {
		s := x.stream(m.name)
		page := uint64(os.Getpagesize())
		for at := m.start; at < m.end; {
			room := s.room()
			n, err := mem.ReadAt(room[:min(uint64(len(room)), m.end-at)], int64(at))
			if n > 0 {
				s.advance(n)
				at += uint64(n)
				read += int64(n)
				continue
			}
			// Pages that cannot be read, as those of memfd_secret or behind a file's end, or that
			// are gone since.
			if err != nil && !errors.Is(err, unix.EIO) && !errors.Is(err, unix.EFAULT) && !errors.Is(err, io.EOF) {
				return hits, err
			}
			next := min((at/page+1)*page, m.end)
			s.skip(int64(next - at))
			at = next
		}
		s.finish()
		hits = append(hits, s.hits...)
	}
	if read == 0 {
		return hits, errors.New("nothing of its memory could be read")
	}
	return hits, nil
}

// skip leaves n octets out.
func (s *stream) skip(n int64) {
	s.finish()
	s.base += n
}
