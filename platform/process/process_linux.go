package process

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// commLength is how much of a program's name the kernel keeps.
const commLength = 15

func find(name string) ([]Process, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var list []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if p, ok := look(pid, name); ok {
			list = append(list, p)
		}
	}
	return list, nil
}

func look(pid int, name string) (Process, bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	comm, err := os.ReadFile(dir + "/comm")
	if err != nil || strings.TrimSuffix(string(comm), "\n") != name[:min(len(name), commLength)] {
		return Process{}, false
	}
	status, err := os.ReadFile(dir + "/status")
	if err != nil || bytes.Contains(status, []byte("\nState:\tZ")) {
		return Process{}, false
	}
	p := Process{PID: pid, MemLock: limit(dir, "Max locked memory")}
	ids := strings.Fields(field(status, "Uid:"))
	if len(ids) < 2 {
		return Process{}, false
	}
	uid, err := strconv.ParseUint(ids[1], 10, 32)
	if err != nil {
		return Process{}, false
	}
	p.UID = uint32(uid)
	if text, err := os.ReadFile(dir + "/cmdline"); err == nil && len(text) > 0 {
		p.Args = strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00")
	}
	if p.Exe, err = os.Readlink(dir + "/exe"); err == nil {
		p.Exe = strings.TrimSuffix(p.Exe, " (deleted)")
		p.Replaced = !sameFile(dir+"/exe", p.Exe)
		return p, filepath.Base(p.Exe) == name
	}
	p.Exe = ""
	return p, len(p.Args) > 0 && filepath.Base(p.Args[0]) == name
}

// sameFile reports whether both names lead to the same file.
func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	y, err2 := os.Stat(b)
	return err == nil && err2 == nil && os.SameFile(x, y)
}

// field is what follows a name at the beginning of a line.
func field(text []byte, name string) string {
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// limit reads a soft limit; what cannot be read is none.
func limit(dir, name string) uint64 {
	text, err := os.ReadFile(dir + "/limits")
	if err != nil {
		return Unlimited
	}
	values := strings.Fields(field(text, name))
	if len(values) == 0 {
		return Unlimited
	}
	n, err := strconv.ParseUint(values[0], 10, 64)
	if err != nil {
		return Unlimited
	}
	return n
}
