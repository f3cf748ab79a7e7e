package heap

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// faults is how often this process had to wait for a page.
func faults(t *testing.T) int64 {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return u.Minflt
}

// kilobytes is a line of one of this process's files in /proc.
func kilobytes(t *testing.T, file, line string) (kib int) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/" + file)
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), line)
	if _, err := fmt.Sscan(after, &kib); err != nil {
		t.Fatal(err)
	}
	return kib
}

// TestForgottenProgram: most of it is not in memory then, and it goes on.
func TestForgottenProgram(t *testing.T) {
	resident := func() int { return kilobytes(t, "status", "RssFile:") }
	all, err := mappings()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range all { // as after a beginning
		if m.modes == "r-xp" && strings.HasPrefix(m.file, "/") {
			_, _, _ = unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_POPULATE_READ) // before 5.14 less is there
		}
	}
	before := resident()
	if err := ForgetProgram(); err != nil {
		t.Fatal(err)
	}
	after := resident()
	if after > before*3/4 {
		t.Errorf("%d KiB are there, %d before", after, before)
	}
	runtime.GC()
	Reserve(1 << 20)
}

// TestReservedMemoryIsThere: what is allocated after Reserve waits for no page.
func TestReservedMemoryIsThere(t *testing.T) {
	if err := unix.Madvise(make([]byte, 1<<20), unix.MADV_POPULATE_WRITE); err != nil {
		if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
			t.Fatal(err)
		}
		t.Skip("needs a kernel that fills memory at once (5.14): ", err)
	}
	defer debug.SetGCPercent(debug.SetGCPercent(1000))
	const size = 32 << 20
	use := func() int64 {
		before := faults(t)
		room := make([]byte, size)
		for i := 0; i < len(room); i += 4096 {
			room[i] = 1
		}
		runtime.KeepAlive(room)
		return faults(t) - before
	}
	Reserve(size + 1<<20)
	if n := use(); n > size/4096/10 {
		t.Errorf("%d faults in %d pages", n, size/4096)
	}
	debug.FreeOSMemory()
	if n := use(); n < size/4096/10 {
		t.Errorf("without it there are %d: this test shows nothing", n)
	}
}

// TestReservedMemoryIsOfHugePages: where the system has them for those who ask.
func TestReservedMemoryIsOfHugePages(t *testing.T) {
	enabled, err := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled")
	if err != nil || strings.Contains(string(enabled), "[never]") {
		if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
			t.Fatal(err, string(enabled))
		}
		t.Skip("needs transparent huge pages: ", err)
	}
	huge := func() int { return kilobytes(t, "smaps_rollup", "AnonHugePages:") }
	room, err := unix.Mmap(-1, 0, 8*hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON) // which nobody has used
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Munmap(room) }()
	before := huge()
	fill(room)
	if grown := huge() - before; grown < 7*hugePage/1024 {
		t.Errorf("%d KiB of %d are in huge pages", grown, len(room)/1024)
	}
}
