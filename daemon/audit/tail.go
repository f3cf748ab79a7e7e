package audit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"slices"
	"time"
)

// pollEvery is how often a follower looks for more.
const pollEvery = 200 * time.Millisecond

// Tail gives the lines of a log to tell, in order: the last n of those that
// wanted lets through, all of them where n is negative, then, if follow, what is written from there on, over
// rotations, until ctx ends. wanted says with stop that nothing older has to
// be looked at. What is no record is left out; Verify is for that. Lines are
// good until the call returns.
func Tail(ctx context.Context, file string, n int, follow bool, wanted func(line []byte) (yes, stop bool), tell func(line []byte) error) error {
	files, err := openAll(file)
	if err != nil {
		return err
	}
	t := tailer{wanted: wanted, tell: tell, files: files}
	defer t.closeAll()
	last := func() error { return t.last(n) }
	if n < 0 {
		last = t.all
	}
	if err := last(); err != nil || !follow || len(files) == 0 {
		return err
	}
	names, err := namesOf(file)
	if err != nil {
		return err
	}
	return t.follow(ctx, names)
}

type tailer struct {
	wanted func([]byte) (yes, stop bool)
	tell   func([]byte) error
	files  []*os.File // the last one is read on
	at     int64      // where, in that one
	seq    uint64     // of the last record seen
}

func (t *tailer) closeAll() {
	for _, f := range t.files {
		_ = f.Close() // read only
	}
}

// last tells of the newest n records that are wanted.
func (t *tailer) last(n int) error {
	var found [][]byte
	for i, f := range slices.Backward(t.files) {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		stop := false
		for at, line := range backwards(f, info.Size(), &err) {
			k, ok := linkOf(line)
			if !ok {
				continue
			}
			if t.seq == 0 {
				t.seq = k.seq
			}
			if i == len(t.files)-1 && t.at == 0 {
				t.at = at + int64(len(line))
			}
			if len(found) >= n {
				stop = true
				break
			}
			yes := false
			if yes, stop = t.wanted(line); yes {
				found = append(found, bytes.Clone(line))
			}
			if stop {
				break
			}
		}
		if err != nil {
			return err
		}
		if stop {
			break
		}
	}
	for _, line := range slices.Backward(found) {
		if err := t.tell(line); err != nil {
			return err
		}
	}
	return nil
}

// all tells of everything that is wanted, after the newest record at which
// wanted would stop.
func (t *tailer) all() error {
	from, err := t.begin()
	if err != nil {
		return err
	}
	for _, f := range t.files[from:] {
		if err := t.more(f); err != nil {
			return err
		}
		if f != t.files[len(t.files)-1] {
			t.at = 0
		}
	}
	return nil
}

// begin finds the file, and sets the place in it, where all begins.
func (t *tailer) begin() (from int, err error) {
	for i, f := range slices.Backward(t.files) {
		info, err := f.Stat()
		if err != nil {
			return 0, err
		}
		for at, line := range backwards(f, info.Size(), &err) {
			if _, ok := linkOf(line); !ok {
				continue
			}
			if _, stop := t.wanted(line); stop {
				t.at = at + int64(len(line))
				return i, nil
			}
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// follow reads on, and opens the next file when there is one.
func (t *tailer) follow(ctx context.Context, n names) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		// Another file is looked for first: what is written to this one after that, there is none.
		next, err := t.next(n)
		if err != nil {
			return err
		}
		if err := t.more(t.files[len(t.files)-1]); err != nil {
			return err
		}
		if next != nil {
			t.closeAll()
			t.files, t.at = []*os.File{next}, 0
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// next opens the file after the one that is read, nil when there is none.
func (t *tailer) next(n names) (*os.File, error) {
	reading := t.files[len(t.files)-1]
	current, err := os.Open(n.current())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil // it is being renamed
	}
	if err != nil {
		return nil, err
	}
	if same(reading, current) {
		return nil, current.Close()
	}
	firsts, err := n.full()
	if err != nil {
		return nil, errors.Join(err, current.Close())
	}
	for _, first := range firsts {
		if first <= t.seq {
			continue
		}
		f, err := os.Open(n.rotated(first))
		if errors.Is(err, fs.ErrNotExist) {
			continue // too old by now
		}
		if err != nil || !same(f, reading) {
			return f, errors.Join(err, current.Close())
		}
		_ = f.Close() // read only
	}
	return current, nil
}

// more tells of the whole lines of f from the place on that was reached.
func (t *tailer) more(f *os.File) error {
	r := bufio.NewReaderSize(io.NewSectionReader(f, t.at, 1<<62), 4*maxRecord)
	for {
		line, err := r.ReadSlice('\n')
		switch {
		case errors.Is(err, io.EOF):
			return nil // what has no end yet is read again
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
		t.at += int64(len(line))
		k, ok := linkOf(line)
		if !ok {
			continue
		}
		t.seq = k.seq
		if yes, _ := t.wanted(line); yes {
			if err := t.tell(line); err != nil {
				return err
			}
		}
	}
}
