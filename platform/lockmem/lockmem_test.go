//go:build linux

package lockmem

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/nacl/secretbox"

	"batchwarden/platform/secret"
)

const canary = "correct-horse-battery-staple"

func newArena(t testing.TB, slots int) *Arena {
	t.Helper()
	a, err := New(slots)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := a.Close(); err != nil {
			t.Error(err)
		}
	})
	return a
}

func TestBorrowWipes(t *testing.T) {
	a := newArena(t, 1)
	var kept []byte
	use := func(end func() error) func(*Buffer) error {
		return func(b *Buffer) error {
			if b.Len() != 0 || !bytes.Equal(b.all(), make([]byte, SlotSize)) {
				t.Error("the slot was not empty")
			}
			kept = append(b.Room(), canary...)
			kept = kept[:SlotSize]
			kept[SlotSize-1] = 'x'
			return end()
		}
	}
	broken := errors.New("broken")
	ends := map[string]func() error{
		"well":      func() error { return nil },
		"an error":  func() error { return broken },
		"a panic":   func() error { panic(broken) },
		"a goexit":  func() error { runtime.Goexit(); return nil },
		"well once": func() error { return nil },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			var err error
			var panicked any
			var wg sync.WaitGroup
			wg.Go(func() {
				defer func() { panicked = recover() }()
				err = a.Borrow(context.Background(), use(end))
			})
			wg.Wait()
			if !bytes.Equal(kept, make([]byte, SlotSize)) {
				t.Errorf("left in the slot: %q", bytes.Trim(kept, "\x00"))
			}
			if name == "an error" && !errors.Is(err, broken) {
				t.Errorf("got error %v", err)
			}
			if name == "a panic" && panicked != any(broken) {
				t.Errorf("got panic %v", panicked)
			}
		})
	}
}

func TestBorrowWaitIsBounded(t *testing.T) {
	a := newArena(t, 2)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	none := func(*Buffer) error { return nil }
	err := a.Borrow(context.Background(), func(*Buffer) error {
		return a.Borrow(context.Background(), func(*Buffer) error {
			if err := a.Close(); err == nil || !strings.Contains(err.Error(), "still in use") {
				t.Errorf("Close of an arena in use: %v", err)
			}
			return a.Borrow(ctx, none)
		})
	})
	if !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "one of 2 slots") {
		t.Errorf("got %v", err)
	}
	if u := a.Usage(); u != (Usage{Slots: 2, Waited: 1}) {
		t.Errorf("a caller who went away: %+v", u)
	}
	a.wait = time.Millisecond
	err = a.Borrow(context.Background(), func(*Buffer) error {
		if u := a.Usage(); u.InUse != 1 {
			t.Errorf("one slot is lent: %+v", u)
		}
		return a.Borrow(context.Background(), func(*Buffer) error { return a.Borrow(context.Background(), none) })
	})
	if u := a.Usage(); !errors.Is(err, ErrBusy) || u != (Usage{Slots: 2, Waited: 2, Refused: 1}) {
		t.Errorf("%v: %+v", err, u)
	}
	gone, cancel2 := context.WithCancel(context.Background())
	cancel2()
	if err := a.Borrow(gone, none); err != nil {
		t.Errorf("a free slot is there for a caller that would not wait: %v", err)
	}
}

func TestBorrowConcurrently(t *testing.T) {
	a := newArena(t, 3)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for range 200 {
				err := a.Borrow(context.Background(), func(b *Buffer) error {
					b.SetLen(SlotSize)
					for j := range b.Bytes() {
						b.Bytes()[j] = byte(i)
					}
					runtime.Gosched()
					for _, got := range b.Bytes() {
						if got != byte(i) {
							return fmt.Errorf("octet of %d in the slot of %d", got, i)
						}
					}
					return nil
				})
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func TestKeys(t *testing.T) {
	a := newArena(t, 1)
	var keys []*Buffer
	for range MaxKeys {
		k, err := a.Key()
		if err != nil {
			t.Fatal(err)
		}
		if k.Len() != 32 || *k.Key() != [32]byte{} {
			t.Fatalf("a new key is not 32 zeros")
		}
		if err := k.Random(32); err != nil {
			t.Fatal(err)
		}
		for _, other := range keys {
			if *other.Key() == *k.Key() {
				t.Fatal("two keys are the same")
			}
		}
		keys = append(keys, k)
	}
	if _, err := a.Key(); !errors.Is(err, ErrNoKeyRoom) {
		t.Errorf("one key too many: %v", err)
	}
	if err := a.Close(); err == nil {
		t.Error("closed while keys are in use")
	}
	for _, k := range keys {
		a.Drop(k)
		if *(*[32]byte)(k.p) != [32]byte{} {
			t.Error("a dropped key is not wiped")
		}
	}
}

func TestClosed(t *testing.T) {
	a, err := New(1)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	if err := a.Borrow(context.Background(), func(*Buffer) error { return nil }); err == nil {
		t.Error("borrowed from a closed arena")
	}
	if _, err := a.Key(); err == nil {
		t.Error("a key of a closed arena")
	}
	if err := a.Close(); err == nil {
		t.Error("closed twice")
	}
}

func TestReadFull(t *testing.T) {
	a := newArena(t, 1)
	path := filepath.Join(t.TempDir(), "x")
	if err := os.WriteFile(path, []byte("0123456789"), 0o600); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]string{10: "0123456789", 4: "0123", 11: ""} {
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		err = a.Borrow(context.Background(), func(b *Buffer) error {
			err := b.ReadFull(f, n)
			if string(b.Bytes()) != want || (err != nil) != (want == "") {
				t.Errorf("%d octets: got %q, %v", n, b.Bytes(), err)
			}
			if want == "" && !errors.Is(err, io.EOF) {
				t.Errorf("got %v, want EOF", err)
			}
			return nil
		})
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
	}
}

func TestRoom(t *testing.T) {
	a := newArena(t, 1)
	err := a.Borrow(context.Background(), func(b *Buffer) error {
		text := append(b.Room(), canary...)
		b.SetLen(7)
		if string(b.Bytes()) != canary[:7] || cap(b.Bytes()) != 7 || cap(b.Room()) != SlotSize {
			t.Errorf("got %q, cap %d of %d", b.Bytes(), cap(b.Bytes()), cap(b.Room()))
		}
		if !bytes.Equal(text[7:], make([]byte, len(canary)-7)) {
			t.Error("what SetLen cuts off is not wiped")
		}
		for name, f := range map[string]func(){
			"SetLen": func() { b.SetLen(SlotSize + 1) },
			"Key":    func() { b.Key() },
		} {
			func() {
				defer func() {
					if r := recover(); r == nil {
						t.Errorf("%s out of bounds does not panic", name)
					}
				}()
				f()
			}()
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestBufferRefusesToBeShown(t *testing.T) {
	a := newArena(t, 1)
	k, err := a.Key()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Drop(k)
	copy(k.Bytes(), canary)
	type holder struct {
		Ptr *Buffer
		Val Buffer
		ptr *Buffer
		val Buffer
	}
	h := holder{k, *k, k, *k}
	values := map[string]any{
		"pointer": k, "value": *k, "struct": h, "pointer to struct": &h, "slice": []*Buffer{k},
		"slice of values": []Buffer{*k}, "map": map[string]Buffer{"k": *k}, "error": fmt.Errorf("with %v: %w", k, io.EOF),
	}
	var out strings.Builder
	for _, v := range values {
		for verb := 'A'; verb <= 'z'; verb++ {
			for _, flags := range []string{"", "+", "#", " ", "0", "-40.3"} {
				fmt.Fprintf(&out, "%"+flags+string(verb)+"\n", v)
			}
		}
		fmt.Fprintln(&out, v)
		log := slog.New(slog.NewTextHandler(&out, nil))
		log.Info("x", "v", v)
		log = slog.New(slog.NewJSONHandler(&out, nil))
		log.Info("x", "v", v, slog.Group("g", "w", v))
	}
	leaks := out.String()
	for i := range len(canary) - 4 {
		part := canary[i : i+5]
		for _, form := range []string{part, fmt.Sprintf("%x", part), fmt.Sprintf("%X", part), fmt.Sprintf("%d", []byte(part)),
			strings.Trim(fmt.Sprintf("%d", []byte(part)), "[]")} {
			if strings.Contains(leaks, form) {
				t.Fatalf("%q was shown", form)
			}
		}
	}
	for _, v := range []any{k, *k, h} {
		if got, err := json.Marshal(v); err == nil {
			t.Errorf("json: %s", got)
		}
		if got, err := xml.Marshal(v); err == nil {
			t.Errorf("xml: %s", got)
		}
		if err := gob.NewEncoder(io.Discard).Encode(v); err == nil {
			t.Error("gob encodes a buffer")
		}
	}
	if _, err := k.MarshalText(); err == nil {
		t.Error("text encodes a buffer")
	}
	if got := fmt.Sprintf("%v %+v %#v %s %x", k, *k, k, k, k); got != strings.TrimSpace(strings.Repeat(secret.Shown+" ", 5)) {
		t.Errorf("got %q", got)
	}
}

// TestStackIsClean looks at its own stack, below its own frames, for what the borrower's left there.
func TestStackIsClean(t *testing.T) {
	a := newArena(t, 1)
	done := make(chan int)
	find := func(clean bool) int {
		go func() {
			f := func(b *Buffer) error { spill(); return nil }
			blank()
			if clean {
				if err := a.Borrow(context.Background(), f); err != nil {
					t.Error(err)
				}
			} else {
				if err := f(nil); err != nil {
					t.Error(err)
				}
			}
			done <- residue()
		}()
		return <-done
	}
	if n := find(false); n == 0 {
		t.Fatal("the test does not find what is left on a stack that nobody cleans")
	}
	if n := find(true); n != 0 {
		t.Errorf("%d copies are left on the stack", n)
	}
}

func TestLockedMemoryOfOneArena(t *testing.T) {
	a := newArena(t, 4)
	t.Log("backend:", a.Backend())
	switch a.Backend() {
	case MemfdSecret, Memguard:
		if a.Degraded() != "" {
			t.Errorf("degraded: %s", a.Degraded())
		}
	default:
		if a.Degraded() == "" {
			t.Error("not locked, and no reason given")
		}
	}
	for _, n := range []int{0, -1, MaxSlots + 1} {
		if _, err := New(n); err == nil {
			t.Errorf("an arena of %d slots", n)
		}
	}
}

func BenchmarkBorrowOpen(b *testing.B) {
	a := newArena(b, 8)
	var key [32]byte
	var nonce [24]byte
	box := secretbox.Seal(nil, []byte(canary), &nonce, &key)
	ctx := context.Background()
	b.Run("open", func(b *testing.B) {
		out := make([]byte, 0, SlotSize)
		b.ReportAllocs()
		for b.Loop() {
			if _, ok := secretbox.Open(out, box, &nonce, &key); !ok {
				b.Fatal("does not open")
			}
		}
	})
	b.Run("borrow+open", func(b *testing.B) {
		f := func(s *Buffer) error {
			if _, ok := secretbox.Open(s.Room(), box, &nonce, &key); !ok {
				return errors.New("does not open")
			}
			return nil
		}
		b.ReportAllocs()
		for b.Loop() {
			if err := a.Borrow(ctx, f); err != nil {
				b.Fatal(err)
			}
		}
	})
}
