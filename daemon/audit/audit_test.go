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

// lines reads the file back as records, without the log's own.
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
		if r.Kind != Begun && r.Kind != Cut {
			all = append(all, r)
		}
	}
	return all
}

func TestAppend(t *testing.T) {
	t.Run("a record is in the file when Append returns", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "audit.jsonl")
		l, err := Open(file, Options{Sync: time.Hour})
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
		l, err := Open(file, Options{Sync: time.Hour})
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
	t.Run("a record that is too long is refused, and leaves nothing", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "audit.jsonl")
		l, err := Open(file, Options{})
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

func TestAfterClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "audit.jsonl")
		l, err := Open(file, Options{Sync: 100 * time.Millisecond})
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
