package account

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// remembering is a resolver whose files have rested long enough to be remembered.
func remembering(t *testing.T) Files {
	t.Helper()
	dir := t.TempDir()
	f := Files{Passwd: filepath.Join(dir, "passwd"), Group: filepath.Join(dir, "group"), known: &texts{files: map[string]text{}, settled: time.Nanosecond}}
	if err := errors.Join(os.WriteFile(f.Passwd, []byte("a:x:1001:1001::/:/bin/sh\n"), 0o600), os.WriteFile(f.Group, []byte("a:x:1001:\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Millisecond) // nothing to wait for: the clock
	if a, err := f.Lookup("a"); err != nil || a.UID != 1001 || len(f.known.files) != 2 {
		t.Fatalf("%+v, %v; %d files are remembered", a, err, len(f.known.files))
	}
	return f
}

// TestChangesAreSeen: whatever way a file was changed, the next answer is about what it says now.
func TestChangesAreSeen(t *testing.T) {
	const text = "a:x:1002:1001::/:/bin/sh\n" // as long as the first one
	for name, change := range map[string]func(path string) error{
		"written in place": func(path string) error { return os.WriteFile(path, []byte(text), 0o600) },
		"replaced": func(path string) error {
			return errors.Join(os.WriteFile(path+"+", []byte(text), 0o600), os.Rename(path+"+", path))
		},
		"written in place, with its old times": func(path string) error {
			info, err := os.Stat(path)
			if err != nil {
				return err
			}
			return errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chtimes(path, info.ModTime(), info.ModTime()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			f := remembering(t)
			if err := change(f.Passwd); err != nil {
				t.Fatal(err)
			}
			if a, err := f.Lookup("a"); err != nil || a.UID != 1002 {
				t.Errorf("%+v, %v", a, err)
			}
		})
	}
}

// TestDeletedIsSeen: an account that was deleted is missing at once, and a file that is gone is not "missing".
func TestDeletedIsSeen(t *testing.T) {
	f := remembering(t)
	if err := os.WriteFile(f.Passwd, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Lookup("a"); !errors.Is(err, ErrMissing) {
		t.Errorf("got %v", err)
	}
	if err := os.Remove(f.Passwd); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Lookup("a"); err == nil || errors.Is(err, ErrMissing) {
		t.Errorf("got %v", err)
	}
}

// TestFreshIsNotRemembered: a file that changed a moment ago could do so again and look the same.
func TestFreshIsNotRemembered(t *testing.T) {
	f := remembering(t)
	f.known = &texts{files: map[string]text{}, settled: time.Hour}
	if _, err := f.Lookup("a"); err != nil || len(f.known.files) != 0 {
		t.Errorf("%v, %d files are remembered", err, len(f.known.files))
	}
}
