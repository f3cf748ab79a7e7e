//go:build linux

package lockmem

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// whole is the size of an arena of 64 slots, as the daemon has it.
const whole = SlotSize * (1 + 64)

// limited gives up root and sets the limit that LOCKMEM_LIMIT says.
func limited() error {
	n, err := strconv.ParseUint(os.Getenv("LOCKMEM_LIMIT"), 10, 64)
	if err != nil {
		return err
	}
	return errors.Join(unix.Setrlimit(unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: n, Max: n}), asNobody())
}

// childLimit uses all that an arena has under a limit, on a kernel with memfd_secret and on one
// without.
func childLimit() error {
	if err := limited(); err != nil {
		return err
	}
	a, err := New(64)
	if err != nil {
		return err
	}
	fmt.Println(a.Backend(), "because", a.Degraded())
	for range MaxKeys {
		k, err := a.Key()
		if err != nil {
			return err
		}
		defer a.Drop(k)
	}
	var fill func(n int) error
	fill = func(n int) error {
		if n == 0 {
			return nil
		}
		return a.Borrow(context.Background(), func(b *Buffer) error {
			return errors.Join(b.Random(SlotSize), fill(n-1))
		})
	}
	if err := fill(64); err != nil {
		return err
	}
	if a.Backend() == MemfdSecret { // which counts against the limit: nothing is left for a second one
		b, err := New(64)
		if err != nil {
			return err
		}
		fmt.Println("second:", b.Backend())
		return nil
	}
	r, err := allocateLocked(whole, unix.ENOSYS)
	if err != nil {
		return err
	}
	clear(r.mem)
	fmt.Println("without memfd_secret:", r.backend)
	return r.release()
}

// TestLimits: where memory cannot be locked there is one sentence, and all works without it, and
// nothing hangs. As any user: root is exempt.
func TestLimits(t *testing.T) {
	page := os.Getpagesize()
	for _, limit := range []int{0, page, 64 << 10, whole - page, whole, whole + page} {
		t.Run(fmt.Sprintf("%d KiB", limit>>10), func(t *testing.T) {
			got := lines(child(t, "limit", "LOCKMEM_LIMIT="+strconv.Itoa(limit)))
			if len(got) != 2 {
				t.Fatalf("got %q", got)
			}
			backend, why, _ := strings.Cut(got[0], " because ")
			if limit < whole {
				sentence := fmt.Sprintf("260 KiB of memory for secrets cannot be locked and may reach swap: RLIMIT_MEMLOCK is %d KiB", limit>>10)
				if backend != Unlocked || !strings.HasPrefix(why, sentence) || got[1] != "without memfd_secret: unlocked" {
					t.Errorf("got %q", got)
				}
				return
			}
			switch backend {
			case MemfdSecret:
				if why != "" || got[1] != "second: unlocked" {
					t.Errorf("got %q", got)
				}
			case Memguard: // it has it all, so that a second one has not
				if why != "" || got[1] != "without memfd_secret: unlocked" {
					t.Errorf("got %q", got)
				}
			default:
				t.Errorf("got %q", got)
			}
		})
	}
}

func lines(text string) []string { return strings.Split(text, "\n") }

// childRefused asks memguard for more than it can lock, which allocateLocked never does unless
// something else locks memory at the same moment.
func childRefused() error {
	if err := limited(); err != nil {
		return err
	}
	begin := time.Now()
	r, err := within(500*time.Millisecond, func() (region, error) { return guarded(whole) })
	fmt.Println("error:", err != nil, "memory:", len(r.mem), "late:", time.Since(begin) > 5*time.Second)
	return nil
}

// TestMemguardRefused: memguard 0.23 panics or waits for ever at the limit; we do neither.
func TestMemguardRefused(t *testing.T) {
	got := child(t, "refused", "LOCKMEM_LIMIT="+strconv.Itoa(whole-os.Getpagesize()))
	if want := "error: true memory: 0 late: false"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// childHole has memory refused again and again while others of the process map theirs and write to it.
func childHole() error {
	if err := limited(); err != nil {
		return err
	}
	done := make(chan struct{})
	var others sync.WaitGroup
	var failed atomic.Value
	for range 4 {
		others.Go(func() { // ends with done
			for {
				select {
				case <-done:
					return
				default:
				}
				mem, err := unix.Mmap(-1, 0, 2*os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
				if err != nil {
					failed.Store(err)
					return
				}
				for i := range 20 {
					mem[i%2*os.Getpagesize()] = byte(i)
					runtime.Gosched()
				}
				if err := unix.Munmap(mem); err != nil {
					failed.Store(err)
					return
				}
			}
		})
	}
	for range 2000 {
		if _, err := allocateSecret(whole); err == nil {
			return errors.New("allocated over the limit")
		}
	}
	close(done)
	others.Wait()
	if err, _ := failed.Load().(error); err != nil {
		return err
	}
	fmt.Println("nobody lost memory")
	return nil
}

// TestRefusedMemoryTakesNobodysAway: an arena that cannot be had unmaps nothing that somebody else mapped meanwhile.
func TestRefusedMemoryTakesNobodysAway(t *testing.T) {
	if got := child(t, "hole", "LOCKMEM_LIMIT="+strconv.Itoa(64<<10)); got != "nobody lost memory" {
		t.Errorf("got %q", got)
	}
}

// TestWaitWithoutDeadline: a caller that would wait for ever does not.
func TestWaitWithoutDeadline(t *testing.T) {
	a := newArena(t, 1)
	a.wait = 10 * time.Millisecond
	none := func(*Buffer) error { return nil }
	err := a.Borrow(context.Background(), func(*Buffer) error { return a.Borrow(context.Background(), none) })
	if !errors.Is(err, ErrBusy) || !strings.Contains(err.Error(), "one of 1 slots") {
		t.Errorf("got %v", err)
	}
	if err := a.Borrow(context.Background(), none); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}
