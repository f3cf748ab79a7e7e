package keeper

import (
	"os"
	"path/filepath"
	"testing"
)

// TestWitness: the highest number stays the highest, whatever the daemon says later, also when both start anew.
func TestWitness(t *testing.T) {
	b := newBed(t)
	file := filepath.Join(b.config.StateDir, witnessName)
	restart := func() {
		t.Helper()
		b.stopDaemon()
		b.stopKeeper()
		b.runKeeper()
		b.runDaemon()
	}
	for _, step := range []struct {
		tell   uint64
		settle bool
		want   uint64
		before func()
	}{
		{tell: 0, want: 0},
		{tell: 7, want: 7},
		{tell: 3, want: 7},
		{tell: 7, want: 7},
		{tell: 3, want: 7, before: restart},
		{tell: 8, want: 8},
		{tell: 5, settle: true, want: 5},
		{tell: 4, want: 5, before: restart},
		{tell: 2, want: 2, before: func() {
			if err := os.WriteFile(file, []byte("not a number\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			restart()
		}},
		{tell: 1, want: 2, before: restart},
	} {
		if step.before != nil {
			step.before()
		}
		got, err := b.launcher.Witness(b.ctx(), step.tell, step.settle)
		if err != nil || got != step.want {
			t.Errorf("told %d (settle %v): got %d, %v, want %d", step.tell, step.settle, got, err, step.want)
		}
	}
	info, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if left, err := filepath.Glob(filepath.Join(b.config.StateDir, "witness.*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(file, 0o700); err != nil { // stands in the way of the next one
		t.Fatal(err)
	}
	if got, err := b.launcher.Witness(b.ctx(), 9, false); err == nil {
		t.Errorf("told 9, which cannot be kept: %d and no error", got)
	}
	if got, err := b.launcher.Witness(b.ctx(), 1, false); err != nil || got != 2 {
		t.Errorf("afterwards: %d, %v, want what was kept last", got, err)
	}
}
