package heap

import (
	"os"
	"runtime"
	"runtime/debug"
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
