package audit

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// onDisk runs the test again, by its name, in a mount namespace where dir is a
// file system of that size, and reports whether this is that run.
func onDisk(t *testing.T, size string) (dir string) {
	t.Helper()
	const env = "BATCHWARDEN_AUDIT_TEST_DISK"
	if dir := os.Getenv(env); dir != "" {
		return dir
	}
	if os.Geteuid() != 0 {
		if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
			t.Fatal("needs root; run: sudo make test")
		}
		t.Skip("needs root; run: sudo make test")
	}
	dir = t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("unshare", "--mount", "sh", "-c", `mount -t tmpfs -o "size=$0" none "$1" && shift && exec "$@"`,
		size, dir, self, "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), env+"="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "PASS: "+t.Name()) {
		t.Fatalf("%v\n%s", err, out)
	}
	return ""
}

// fillDisk leaves no room, and returns how to make some.
func fillDisk(t *testing.T, dir string, but int64) (empty func()) {
	t.Helper()
	filler, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer filler.Close()
	var r room
	r.look(dir)
	if _, err := filler.Write(make([]byte, max(0, r.disk.Free-but))); err != nil {
		t.Fatal(err)
	}
	return func() {
		if err := os.Remove(filler.Name()); err != nil {
			t.Fatal(err)
		}
	}
}

// On a disk that fills, health says so while there is room, the reserve takes
// the records that come then, and what does not fit is refused and leaves
// nothing. With room again all is as it was.
func TestDiskFills(t *testing.T) {
	dir := onDisk(t, "16m")
	if dir == "" {
		return
	}
	file := filepath.Join(dir, "audit.jsonl")
	l := fill(t, file, Options{Rotate: 64 << 10}, 10)
	if l.Low() != "" || l.room.held != 1<<20 {
		t.Fatalf("on an empty disk: %q, reserve %d", l.Low(), l.room.held)
	}
	empty := fillDisk(t, dir, 2<<20)
	l.look()
	if low := l.Low(); !strings.Contains(low, "octets are free") || l.room.used {
		t.Errorf("with 2 MiB free: %q", low)
	}
	written, err := uint64(0), error(nil)
	inReserve := uint64(0)
	for err == nil {
		if err = l.Append(&Record{Kind: Launch, Reason: strings.Repeat("x", 4000)}); err == nil {
			written++
		}
		if inReserve == 0 && l.room.used {
			inReserve = written
		}
		if written > 5000 {
			t.Fatal("the disk does not fill")
		}
	}
	if !errors.Is(err, ErrUnavailable) || !errors.Is(err, syscall.ENOSPC) || l.Err() == nil {
		t.Errorf("got %v", err)
	}
	if inReserve == 0 || written-inReserve < 10 || !strings.Contains(l.Low(), "is full") {
		t.Errorf("%d records, %d before the reserve; %q", written, inReserve, l.Low())
	}
	if v := sound(t, file); v.Last != l.end.seq {
		t.Errorf("%+v, want up to %d", v, l.end.seq)
	}
	// A start now is no fault, and changes nothing.
	again, err := Open(file, Options{Sync: time.Hour})
	if err != nil {
		t.Fatalf("start on a full disk: %v", err)
	}
	if err := again.Append(&Record{Kind: Launch, Reason: strings.Repeat("x", 8000)}); !errors.Is(err, ErrUnavailable) || again.Low() == "" {
		t.Errorf("after a start on a full disk: %v, %q", err, again.Low())
	}
	empty()
	if err := l.Append(&Record{Kind: Launch}); err != nil || l.Err() != nil {
		t.Errorf("with room again: %v", err)
	}
	if l.look(); l.Low() != "" || l.room.held == 0 {
		t.Errorf("with room again: %q, reserve %d", l.Low(), l.room.held)
	}
	if v := sound(t, file); v.Last != l.end.seq {
		t.Errorf("%+v, want up to %d", v, l.end.seq)
	}
}

// Wherever the disk is full in the middle of a write, a rotation or a
// beginning, the chain holds.
func TestDiskFullAnywhere(t *testing.T) {
	dir := onDisk(t, "1m")
	if dir == "" {
		return
	}
	refused := 0
	for pages := range int64(24) {
		at := filepath.Join(dir, fmt.Sprint(pages))
		if err := os.Mkdir(at, 0o700); err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(at, "audit.jsonl")
		empty := fillDisk(t, dir, pages*4096)
		add := func(l *Log, n int) {
			for i := range n {
				if err := l.Append(&Record{Kind: Launch, Reason: strings.Repeat("x", 100*i%3000)}); err != nil {
					refused++
				}
			}
		}
		l, err := Open(file, Options{Sync: time.Hour, Rotate: 9000})
		if err == nil {
			add(l, 40)
			if l.file != nil {
				if v := sound(t, file); v.Last != l.end.seq {
					t.Fatalf("%d pages: %+v, want up to %d", pages, v, l.end.seq)
				}
			}
		} else if pages > 0 {
			t.Fatalf("%d pages: %v", pages, err)
		}
		empty()
		if err == nil {
			add(l, 40)
			if v := sound(t, file); v.Last != l.end.seq || v.First != 1 {
				t.Fatalf("%d pages, with room again: %+v, want up to %d", pages, v, l.end.seq)
			}
			_ = l.closeFile() // its content was looked at
		}
		if err := os.RemoveAll(at); err != nil {
			t.Fatal(err)
		}
	}
	if refused == 0 {
		t.Error("the disk was never full")
	}
}

// A process that is killed at any moment leaves a chain that holds, and loses
// no record that it had said was written.
func TestKilled(t *testing.T) {
	const env = "BATCHWARDEN_AUDIT_TEST_WRITER"
	if file := os.Getenv(env); file != "" {
		l, err := Open(file, Options{Sync: time.Hour, Rotate: 3000, Keep: 1000})
		if err != nil {
			t.Fatal(err)
		}
		for {
			if err := l.Append(&Record{Kind: Launch, Reason: strings.Repeat("x", int(l.end.seq*37%500))}); err != nil {
				t.Fatal(err)
			}
			fmt.Printf("wrote %d\n", l.end.seq)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	for i := range 12 {
		cmd := exec.Command(self, "-test.run=^TestKilled$")
		cmd.Env = append(os.Environ(), env+"="+file)
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		said := uint64(0)
		for n := 0; n < 5+i*3; n++ {
			if _, err := fmt.Fscanf(out, "wrote %d\n", &said); err != nil {
				t.Fatal(err)
			}
		}
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()                           // killed
		if _, err := os.Stat(file); err != nil { // in the middle of a rotation
			t.Log("killed between two names")
			continue
		}
		if v := sound(t, file); v.First != 1 || v.Last < said {
			t.Fatalf("kill %d: %+v; it said that it wrote %d", i, v, said)
		}
	}
	fill(t, file, Options{}, 1)
	sound(t, file)
}
