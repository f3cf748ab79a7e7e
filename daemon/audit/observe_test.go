package audit

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// seen is an observer that remembers.
type seen struct {
	kinds  []string
	failed int
	waited []time.Duration
}

func (s *seen) Recorded(r *Record, err error) {
	s.kinds = append(s.kinds, r.Kind)
	if err != nil {
		s.failed++
	}
}
func (s *seen) Flushed(waited time.Duration) { s.waited = append(s.waited, waited) }

func TestObserver(t *testing.T) {
	t.Run("every refusal is seen, also those that are only counted", func(t *testing.T) {
		s := &seen{}
		l, err := Open(filepath.Join(t.TempDir(), "audit.jsonl"), Options{Observer: s})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if err := l.AppendRefusal(&Record{Kind: Launch, Verdict: Deny, Peer: &Peer{UID: 7}}); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.Append(&Record{Kind: Retrieve}); err != nil {
			t.Fatal(err)
		}
		if len(s.kinds) != 4 || s.kinds[3] != Retrieve || s.failed != 0 || len(s.waited) != 2 {
			t.Errorf("%+v", s)
		}
		if n := l.Stats(); n.Records != 3 || n.Unsynced != 0 {
			t.Errorf("%+v, want two records after the first of the file, all on the disk", n)
		}
		if err := l.close(); err != nil {
			t.Fatal(err)
		}
		if err := l.Append(&Record{Kind: Retrieve}); !errors.Is(err, ErrUnavailable) || s.failed != 1 {
			t.Errorf("closed: %v, %+v", err, s)
		}
	})
	t.Run("the lag is that of the oldest record", func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "audit.jsonl")
		synctest.Test(t, func(t *testing.T) {
			s := &seen{}
			l, err := Open(file, Options{Sync: 100 * time.Millisecond, Observer: s})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- l.Run(ctx) }()
			for range 2 {
				if err := l.Append(&Record{Kind: Launch}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(60 * time.Millisecond)
				synctest.Wait()
			}
			time.Sleep(20 * time.Millisecond)
			synctest.Wait()
			if len(s.waited) != 1 || s.waited[0] != 100*time.Millisecond {
				t.Errorf("waited %v, want one flush after 100 ms", s.waited)
			}
			if n := l.Stats(); n.Unsynced != 0 {
				t.Errorf("%v not on the disk", n.Unsynced)
			}
			if err := l.Append(&Record{Kind: Launch}); err != nil {
				t.Fatal(err)
			}
			time.Sleep(30 * time.Millisecond)
			if n := l.Stats(); n.Unsynced != 30*time.Millisecond {
				t.Errorf("%v not on the disk, want 30 ms", n.Unsynced)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	})
}
