//go:build linux

package lockmem

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Children of this test binary, by the value of LOCKMEM_CHILD.
var children = map[string]func() error{
	"limit":    childLimit,
	"refused":  childRefused,
	"hole":     childHole,
	"memguard": childMemguard,
	"harden":   childHarden,
	"watch":    childWatch,
}

func TestMain(m *testing.M) {
	if run, ok := children[os.Getenv("LOCKMEM_CHILD")]; ok {
		if err := run(); err != nil {
			fmt.Println("error:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child runs one to its end. One that hangs fails the test.
func child(t *testing.T, name string, env ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(append(os.Environ(), "LOCKMEM_CHILD="+name), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("child %q: %v, %s", name, err, out)
	}
	return strings.TrimSpace(string(out))
}

// asNobody gives up root, which is exempt from the limit on locked memory.
func asNobody() error {
	if os.Geteuid() != 0 {
		return nil
	}
	return syscall.Setresuid(65534, 65534, 65534)
}

func childMemguard() error {
	if err := asNobody(); err != nil {
		return err
	}
	r, err := allocateLocked(SlotSize*9, unix.ENOSYS)
	if err != nil {
		return err
	}
	if n := copy(r.mem, canary); n != len(canary) || len(r.mem) != SlotSize*9 {
		return fmt.Errorf("a region of %d octets", len(r.mem))
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return err
	}
	start := []byte(fmt.Sprintf("%x-", uintptr(unsafe.Pointer(unsafe.SliceData(r.mem)))))
	_, entry, ok := bytes.Cut(smaps, start)
	_, flags, ok2 := bytes.Cut(entry, []byte("VmFlags:"))
	line, _, _ := strings.Cut(string(flags), "\n")
	if !ok || !ok2 || !strings.Contains(line, " lo") || !strings.Contains(line, " dd") {
		return fmt.Errorf("not locked or not left out of dumps: %q", line)
	}
	fmt.Print(r.backend, r.degraded)
	return r.release()
}

func TestMemguardRegion(t *testing.T) {
	if got := child(t, "memguard"); got != Memguard {
		t.Errorf("got %q", got)
	}
}

func childHarden() error {
	fmt.Println("before:", Hardened() != nil)
	if err := Harden(); err != nil {
		return err
	}
	fmt.Println("after:", Hardened())
	return undo()
}

// undo makes the process dumpable again, as a library or a debugger might.
func undo() error {
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return err
	}
	fmt.Println("undone:", Hardened())
	return nil
}

func TestHarden(t *testing.T) {
	want := "before: true\nafter: <nil>\nundone: lockmem: the process can be dumped and traced (PR_GET_DUMPABLE is 1)"
	if got := child(t, "harden"); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func childWatch() error {
	if err := Harden(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	told, ended := make(chan error, 10), make(chan struct{})
	go func() {
		defer close(ended)
		Watch(ctx, time.Millisecond, func(err error) { told <- err })
	}()
	if err := undo(); err != nil {
		return err
	}
	fmt.Println("told:", <-told)
	fmt.Println("mended:", Hardened())
	cancel()
	<-ended
	fmt.Println("said again:", len(told))
	return nil
}

// TestWatch: what was undone is noticed, said once, and put right.
func TestWatch(t *testing.T) {
	const reason = "lockmem: the process can be dumped and traced (PR_GET_DUMPABLE is 1)"
	got := child(t, "watch")
	_, got, _ = strings.Cut(got, "\n") // Watch may have mended it before it is looked at
	if want := "told: " + reason + "\nmended: <nil>\nsaid again: 0"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// spill leaves the canary in a frame of its own.
//
//go:noinline
func spill() {
	var frame [8192]byte
	for i := range len(frame) / len(canary) {
		copy(frame[i*len(canary):], canary)
	}
	runtime.KeepAlive(&frame)
}

// blank makes the stack as large as grow does, and clears it: it may have been that of another goroutine.
//
//go:noinline
func blank() {
	var room [2*reach + 1024]byte
	runtime.KeepAlive(&room)
}

// residue counts canaries in all of the stack below its own frame that blank has cleared.
//
//go:noinline
func residue() int {
	var here byte
	// The octets below this frame belong to nobody now; the stack holds them since blank.
	below := unsafe.Slice((*byte)(unsafe.Pointer(uintptr(unsafe.Pointer(&here))-2*reach)), 2*reach-1024)
	n := 0
	for i := range below[:len(below)-8] {
		if below[i] == canary[0] && below[i+1] == canary[1] && below[i+2] == canary[2] && below[i+3] == canary[3] {
			n++
		}
	}
	return n
}
