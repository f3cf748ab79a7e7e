package kernel

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// What is tried agrees with what the kernel's version promises, and leaves no descriptor open.
func TestAbilities(t *testing.T) {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	release := unix.ByteSliceToString(u.Release[:])
	parts := strings.SplitN(release, ".", 3)
	major, _ := strconv.Atoi(parts[0]) // 0 promises nothing
	minor, _ := strconv.Atoi(parts[1])
	since := func(a, b int) bool { return major > a || major == a && minor >= b }
	before := descriptors(t)
	for _, a := range Abilities() {
		promised := map[string]bool{Pidfd: since(5, 3), PeerPidfd: since(6, 5), MadvPopulate: since(5, 14)}[a.Name]
		if promised && a.Err != nil {
			t.Errorf("%s on %s: %v", a.Name, release, a.Err)
		}
		t.Logf("%s: %v", a.Name, a.Err)
	}
	if after := descriptors(t); after != before {
		t.Errorf("%d descriptors are open, before there were %d", after, before)
	}
	if _, err := os.Stat("/sys/fs/cgroup/cgroup.procs"); err == nil && cgroup2() != nil {
		t.Errorf("cgroup v2 is there: %v", cgroup2())
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}
