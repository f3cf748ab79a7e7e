package process

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// A program with a name longer than the kernel keeps is found, and that its file was replaced is seen.
func TestFind(t *testing.T) {
	sleep, err := exec.LookPath("sleep")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(sleep)
	if err != nil {
		t.Fatal(err)
	}
	const name = "a-sleep-that-has-a-long-name"
	file := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(file, text, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(file, "300")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Kill() // it ran until now
		_ = cmd.Wait()         // killed, as we wanted
	}()
	if err := unix.Prlimit(cmd.Process.Pid, unix.RLIMIT_MEMLOCK, &unix.Rlimit{Cur: 65536, Max: 65536}, nil); err != nil {
		t.Fatal(err)
	}
	one := func() Process {
		t.Helper()
		list, err := Find(name)
		if err != nil || len(list) != 1 {
			t.Fatalf("got %+v, %v; want the one", list, err)
		}
		return list[0]
	}
	p := one()
	if p.PID != cmd.Process.Pid || int(p.UID) != os.Geteuid() || !slices.Equal(p.Args, []string{file, "300"}) ||
		p.Exe != file || p.Replaced || p.MemLock != 65536 {
		t.Errorf("got %+v", p)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if p := one(); !p.Replaced || p.Exe != file {
		t.Errorf("without its file: %+v", p)
	}
	if err := os.WriteFile(file, text, 0o755); err != nil {
		t.Fatal(err)
	}
	if p := one(); !p.Replaced {
		t.Errorf("with another file: %+v", p)
	}
	if list, err := Find("a-sleep-that-has-a-l"); err != nil || len(list) != 0 {
		t.Errorf("another of the same beginning: %+v, %v", list, err)
	}
}
