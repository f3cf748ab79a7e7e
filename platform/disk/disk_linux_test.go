package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestAllocateTakesTheRoom(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const n = 1 << 20
	for name, take := range map[string]func(*os.File, int64) error{"allocate": Allocate, "fill": fill} {
		if err := f.Truncate(0); err != nil {
			t.Fatal(err)
		}
		if err := take(f, n); err != nil {
			t.Fatal(name, err)
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		if s := info.Sys().(*syscall.Stat_t); info.Size() != n || s.Blocks*512 < n {
			t.Errorf("%s: %d octets in %d blocks, want %d octets that are all there", name, info.Size(), s.Blocks, n)
		}
	}
	if err := Allocate(f, 1<<60); err == nil {
		t.Error("took 2^60 octets")
	}
}

func TestOf(t *testing.T) {
	r, err := Of(t.TempDir())
	if err != nil || r.Total <= 0 || r.Free < 0 || r.Free > r.Total || r.Files < -1 {
		t.Errorf("got %+v, %v", r, err)
	}
	if _, err := Of(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("of nothing: %v", err)
	}
}
