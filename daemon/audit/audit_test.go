package audit

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// lines reads the file back as records.
func lines(t *testing.T, file string) []Record {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all []Record
	for s := bufio.NewScanner(f); s.Scan(); {
		var r Record
		if err := json.Unmarshal(s.Bytes(), &r); err != nil {
			t.Fatalf("line %d %q: %v", len(all)+1, s.Text(), err)
		}
		all = append(all, r)
	}
	return all
}

func TestAppend(t *testing.T) {
	t.Run("a record is in the file when Append returns", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "audit.jsonl")
		l, err := Open(file, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Append(&Record{Kind: Launch, DecisionID: "d1", Verdict: Deny, Code: "policy.denied"}); err != nil {
			t.Fatal(err)
		}
		got := lines(t, file)
		if len(got) != 1 || got[0].DecisionID != "d1" || got[0].Time.IsZero() {
			t.Errorf("got %+v, want one record d1 with a time", got)
		}
	})
	t.Run("records of many goroutines do not mix", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "audit.jsonl")
		l, err := Open(file, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for i := range 8 {
			all.Go(func() {
				for j := range 100 {
					if err := l.Append(&Record{Kind: Launch, DecisionID: fmt.Sprint(i, "-", j), Reason: strings.Repeat("x", 3000)}); err != nil {
						t.Error(err)
					}
				}
			})
		}
		all.Wait()
		if got := len(lines(t, file)); got != 800 {
			t.Errorf("got %d records, want 800", got)
		}
	})
	t.Run("a line cut short by a crash does not spoil the next", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "audit.jsonl")
		if err := os.WriteFile(file, []byte(`{"time":"2026-`), 0o600); err != nil {
			t.Fatal(err)
		}
		l, err := Open(file, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Append(&Record{Kind: Launch, DecisionID: "after"}); err != nil {
			t.Fatal(err)
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, second, _ := strings.Cut(string(text), "\n"); !strings.Contains(second, `"after"`) || !json.Valid([]byte(second)) {
			t.Errorf("second line is %q, want the whole record", second)
		}
	})
	t.Run("a record that is too long is refused, and leaves nothing", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "audit.jsonl")
		l, err := Open(file, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Append(&Record{Kind: Launch, Reason: strings.Repeat("x", maxRecord)}); !errors.Is(err, ErrUnavailable) {
			t.Errorf("got %v, want ErrUnavailable", err)
		}
		if got := lines(t, file); len(got) != 0 {
			t.Errorf("got %d records, want none", len(got))
		}
	})
}

// A disk that is full is what an attacker makes, or a forgotten core file: no
// record, so no launch, and the file still ends in a whole line.
func TestFullDisk(t *testing.T) {
	l, err := Open("/dev/full", time.Hour)
	if err != nil && os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
		t.Fatalf("no /dev/full here: %v", err)
	} else if err != nil {
		t.Skipf("no /dev/full here: %v", err)
	}
	if err := l.Append(&Record{Kind: Launch}); !errors.Is(err, ErrUnavailable) {
		t.Errorf("got %v, want ErrUnavailable", err)
	}
	if l.Err() == nil {
		t.Error("Err is nil: health would not tell")
	}
}

func TestAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "audit.jsonl")
		l, err := Open(file, 100*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		for i := range 3 {
			if err := l.Append(&Record{Kind: Launch, DecisionID: fmt.Sprint(i)}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(200 * time.Millisecond) // the bubble's clock
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		if err := l.Append(&Record{Kind: Launch}); !errors.Is(err, ErrUnavailable) {
			t.Errorf("Append after the end: got %v, want ErrUnavailable", err)
		}
		if l.Err() == nil {
			t.Error("Err after the end is nil")
		}
	})
}
