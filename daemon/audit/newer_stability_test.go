package audit

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestGoldenLogGoesOn: an upgrade goes on with the chain of the version before.
func TestGoldenLogGoesOn(t *testing.T) {
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS("testdata/log")); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "audit.jsonl")
	l := fill(t, file, Options{}, 1)
	if err := l.closeFile(); err != nil {
		t.Fatal(err)
	}
	if v := sound(t, file); v.First != 1 || v.Last != 6 || len(v.Files) != 2 || len(v.Notes) != 0 {
		t.Errorf("%+v", v)
	}
}

// TestNewerLogIsRefused: nothing is appended to it or put in its place, and the sentence says which file, why and what
// to do.
func TestNewerLogIsRefused(t *testing.T) {
	for _, name := range []string{"audit.jsonl", "audit.000000000001.jsonl"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			text, err := os.ReadFile("testdata/log/" + name)
			if err != nil {
				t.Fatal(err)
			}
			newer := bytes.Replace(text, []byte(`"format":1`), []byte(`"format":2`), 1)
			file := filepath.Join(dir, name)
			if err := os.WriteFile(file, newer, 0o600); err != nil {
				t.Fatal(err)
			}
			says := func(err string) {
				t.Helper()
				for _, part := range []string{file, "format 2", "understands up to 1", "install the newer version again", "move the log's files away"} {
					if !strings.Contains(err, part) || strings.Contains(err, "\n") {
						t.Errorf("%q is not in one sentence %q", part, err)
					}
				}
			}
			log := filepath.Join(dir, "audit.jsonl")
			if _, err := Open(log, Options{}); !errors.Is(err, ErrNewer) {
				t.Errorf("got %v", err)
			} else {
				says(err.Error())
			}
			if now, err := os.ReadFile(file); err != nil || !slices.Equal(now, newer) {
				t.Errorf("the log was changed: %v", err)
			}
			if left := files(t, dir); !slices.Equal(left, []string{name}) {
				t.Errorf("there are %v", left)
			}
			v, err := Verify(log, nil)
			if err != nil || v.Fault == nil {
				t.Fatalf("verify: %+v, %v", v, err)
			}
			says(v.Fault.File + ": " + v.Fault.Why)
		})
	}
}
