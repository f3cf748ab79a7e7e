package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The formatter has nothing to complain about.
func TestManFormats(t *testing.T) {
	groff, err := exec.LookPath("groff")
	if err != nil {
		t.Skip("needs groff; run: apt-get install groff-base")
	}
	dir := t.TempDir()
	args := []string{"-man", "-ww", "-z", "-Tutf8"}
	for name, text := range pages(t) {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		args = append(args, file)
	}
	if out, err := exec.Command(groff, args...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}
