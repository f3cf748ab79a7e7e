package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

func TestTail(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	l := fill(t, file, Options{Rotate: 2000}, 50)
	all := func([]byte) (bool, bool) { return true, false }
	seqs := func(n int, wanted func([]byte) (bool, bool)) (got []uint64) {
		t.Helper()
		if err := Tail(t.Context(), file, n, false, wanted, func(line []byte) error {
			k, _ := linkOf(line)
			got = append(got, k.seq)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return got
	}
	last := l.end.seq
	if got := seqs(3, all); fmt.Sprint(got) != fmt.Sprint([]uint64{last - 2, last - 1, last}) {
		t.Errorf("the last three: %v", got)
	}
	if got := seqs(1000, all); uint64(len(got)) != last || got[0] != 1 {
		t.Errorf("everything, over all files: %v", got)
	}
	if got := seqs(5, func(line []byte) (bool, bool) { k, _ := linkOf(line); return k.seq%20 == 0, k.seq < 30 }); fmt.Sprint(got) != fmt.Sprint(twenties(40, last)) {
		t.Errorf("some, and none before 30: %v", got)
	}
	if got := seqs(-1, all); uint64(len(got)) != last || got[0] != 1 || got[last-1] != last {
		t.Errorf("all: %v", got)
	}
	if got := seqs(-1, func(line []byte) (bool, bool) { k, _ := linkOf(line); return k.seq%20 == 0, k.seq < 30 }); fmt.Sprint(got) != fmt.Sprint(twenties(40, last)) {
		t.Errorf("all of some since 30: %v", got)
	}
	if got := seqs(0, all); len(got) != 0 {
		t.Errorf("none: %v", got)
	}
	if err := Tail(t.Context(), filepath.Join(t.TempDir(), "none"), 3, false, all, nil); err == nil {
		t.Error("no file and no error")
	}
}

// twenties are the multiples of 20 from one to another.
func twenties(from, to uint64) (list []uint64) {
	for n := from; n <= to; n += 20 {
		list = append(list, n)
	}
	return list
}

// Whoever follows sees each record once, over rotations too.
func TestFollow(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	l := fill(t, file, Options{Rotate: 2000}, 5)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	const want = 300
	next := uint64(4)
	begun := make(chan struct{})
	done := errors.New("done")
	ended := make(chan error, 1)
	go func() {
		ended <- Tail(ctx, file, 3, true, func([]byte) (bool, bool) { return true, false }, func(line []byte) error {
			var r Line
			if err := json.Unmarshal(line, &r); err != nil {
				return err
			}
			if r.Seq != next {
				return fmt.Errorf("record %d, want %d", r.Seq, next)
			}
			if next++; r.Seq == 6 {
				close(begun)
			}
			if r.DecisionID == "last" {
				return done
			}
			return nil
		})
	}()
	<-begun
	for range want {
		if err := l.Append(&Record{Kind: Launch}); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Append(&Record{Kind: Launch, DecisionID: "last"}); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; !errors.Is(err, done) {
		t.Errorf("followed to %d of %d: %v", next, l.end.seq, err)
	}
	if len(files(t, l.names.dir)) < 5 {
		t.Error("there were no rotations")
	}
}
