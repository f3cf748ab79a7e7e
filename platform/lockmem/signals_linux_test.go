package lockmem

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSignalsLeaveNothing: a signal in the middle of work with a secret used to leave 16 octets of it on the thread's
// signal stack, where the kernel keeps the registers.
func TestSignalsLeaveNothing(t *testing.T) {
	a, err := New(1)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	}()
	const n = 16
	size := 256 // a variable, so that it is not copied piece by piece
	inverse := make([]byte, n)
	work := func(b *Buffer) error {
		if err := b.Random(n); err != nil {
			return err
		}
		for i, c := range b.Bytes() {
			inverse[i] = ^c
		}
		room := b.Room()[:512]
		for i := n; i < 256; i += n {
			copy(room[i:], room[:n])
		}
		process, thread := os.Getpid(), unix.Gettid()
		for range 100 {
			copy(room[256:], room[:size]) // through every vector register
			if err := unix.Tgkill(process, thread, unix.SIGURG); err != nil {
				return err
			}
		}
		return nil
	}
	found := aside(t, inverse, func() error { return a.Borrow(t.Context(), work) })
	if found != "" {
		t.Errorf("a part of the secret lies in %s", found)
	}
	found = aside(t, inverse, func() error {
		b := newBuffer(make([]byte, SlotSize))
		defer b.wipe()
		return work(b)
	})
	if found == "" {
		t.Error("the search does not find what is left where signals are let through")
	}
}

// aside calls f on a thread that does nothing else afterwards, whose next signal would overwrite what the last one
// left, and searches meanwhile.
func aside(t *testing.T, inverse []byte, f func() error) (found string) {
	t.Helper()
	done, searched := make(chan error), make(chan struct{})
	defer close(searched)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this
		done <- f()
		<-searched
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	return search(t, inverse)
}

// search says in which mapping of this process the text lies whose complement is given.
func search(t *testing.T, inverse []byte) string {
	t.Helper()
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	flipped := make([]byte, 1<<20)
	for lines := bufio.NewScanner(bytes.NewReader(maps)); lines.Scan(); {
		var from, to int64
		var mode string
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); n != 3 || !strings.HasPrefix(mode, "rw") {
			continue
		}
		for at := from; at < to; at += int64(len(flipped)) {
			n, _ := mem.ReadAt(flipped[:min(int64(len(flipped)), to-at)], at) // what cannot be read nobody reads
			for i := range flipped[:n] {
				flipped[i] = ^flipped[i]
			}
			found := bytes.Contains(flipped[:n], inverse)
			clear(flipped)
			if found {
				return lines.Text()
			}
		}
	}
	return ""
}
