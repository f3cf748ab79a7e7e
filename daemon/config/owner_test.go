package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// needRoot is for tests that give files away.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	const why = "needs root; run: sudo make test"
	if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
		t.Fatal(why)
	}
	t.Skip(why)
}

// TestOwners: what others could have written is refused by Load, accepted with a warning by Check.
func TestOwners(t *testing.T) {
	needRoot(t)
	for _, c := range []struct {
		name  string
		spoil func(t *testing.T, main, more string) error
		file  string // the one that is refused
		want  string
	}{
		{"root's", func(t *testing.T, main, more string) error { return nil }, "", ""},
		{"main file of another", func(t *testing.T, main, more string) error { return os.Chown(main, 1, 0) }, "batchwarden.yaml", "owned by uid 1"},
		{"main file writable by a group", func(t *testing.T, main, more string) error { return os.Chmod(main, 0o664) }, "batchwarden.yaml", "mode 0664"},
		{"client file of another", func(t *testing.T, main, more string) error { return os.Chown(more, 1, 0) }, "clients.d/a.yaml", "owned by uid 1"},
		{"client file writable by all", func(t *testing.T, main, more string) error { return os.Chmod(more, 0o646) }, "clients.d/a.yaml", "mode 0646"},
		{"clients.d of another", func(t *testing.T, main, more string) error { return os.Chown(filepath.Dir(more), 1, 0) }, "clients.d/a.yaml", "owned by uid 1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			main := host(t, least, "a.yaml", "clients: []\n")
			dir := filepath.Dir(main)
			if err := c.spoil(t, main, filepath.Join(dir, "clients.d", "a.yaml")); err != nil {
				t.Fatal(err)
			}
			_, warnings, err := Check(main)
			if err != nil {
				t.Fatalf("Check: got %v, want warnings at most", err)
			}
			_, err = Load(main)
			if c.want == "" {
				if err != nil || len(warnings) > 0 {
					t.Errorf("got %v and warnings %q, want none", err, warnings)
				}
				return
			}
			file := filepath.Join(dir, c.file)
			if err == nil || !strings.HasPrefix(err.Error(), file+": ") || !strings.Contains(err.Error(), c.want) {
				t.Errorf("Load: got %v, want %s: …%s", err, file, c.want)
			}
			if len(warnings) != 1 || !strings.HasPrefix(warnings[0], file+": ") || !strings.Contains(warnings[0], c.want) {
				t.Errorf("Check: got warnings %q, want one of %s: …%s", warnings, file, c.want)
			}
		})
	}
}

func TestLoadLimits(t *testing.T) {
	needRoot(t)
	file := filepath.Join(t.TempDir(), "limits.yaml")
	if err := os.WriteFile(file, []byte("requesters: [opcon]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := LoadLimits(file)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.Requesters) != 1 || l.Requesters[0] != "opcon" {
		t.Errorf("got requesters %q, want opcon", l.Requesters)
	}
	for _, mode := range []os.FileMode{0o644, 0o640, 0o602} {
		if err := os.Chmod(file, mode); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadLimits(file); err == nil || !strings.HasPrefix(err.Error(), file+": mode ") {
			t.Errorf("mode %04o: got %v, want it refused", mode, err)
		}
	}
	if err := os.Chmod(file, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(file, 1, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := LoadLimits(file); err == nil || !strings.Contains(err.Error(), "owned by uid 1") {
		t.Errorf("another's: got %v, want it refused", err)
	}
}

// TestCheckLimits: anybody may check a file that only root's launcher would read.
func TestCheckLimits(t *testing.T) {
	file := filepath.Join(t.TempDir(), "limits.yaml")
	if err := os.WriteFile(file, []byte("requesters: [opcon]\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	l, warnings, err := CheckLimits(file)
	if err != nil || len(l.Requesters) != 1 || len(warnings) != 1 || !strings.HasPrefix(warnings[0], file+": the services would refuse this file: ") {
		t.Errorf("got %v, %q, %v; want the limits and one warning", l, warnings, err)
	}
	if _, _, err := CheckLimits(file + "x"); err == nil || err.Error() != file+"x: does not exist" {
		t.Errorf("got %v, want that it does not exist", err)
	}
}
