// Package audit writes what was decided and done, one JSON line each, before
// it is done.
//
// A record is in the file when Append returns nil, and on the disk within the
// log's sync time (or before Append returns, when that is zero). A record that
// cannot be written is an error, and the caller must then not act: no audit,
// no launch. Records hold no secret and no argument of a command.
package audit

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"
)

// maxRecord bounds a record; a longer one is our own bug and is refused.
const maxRecord = 64 << 10

// ErrUnavailable reports that the log cannot take records. Once a flush to the
// disk has failed nobody can say what the file holds, so it stays that way
// until the log is opened anew.
var ErrUnavailable = errors.New("audit: the log cannot be written")

// Log is an open audit file. Its methods may be called from any goroutine.
type Log struct {
	always bool          // flush before Append returns
	every  time.Duration // else within this time
	wake   chan struct{} // a record waits for the flusher; never closed

	// Guards what is below.
	mu      sync.Mutex
	line    bytes.Buffer // of the record that is being written
	encoder *json.Encoder
	file    *os.File
	size    int64
	broken  error // for good
	failing error // the last record could not be written; the next one may
}

// Open opens file for appending, and makes it when there is none (0600). With
// every zero each record is flushed to the disk before Append returns. A last
// line that a crash cut short is ended, so that the next record stands alone.
func Open(file string, every time.Duration) (*Log, error) {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	size, err := endLine(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("audit: %w", err), f.Close())
	}
	l := &Log{always: every == 0, every: every, wake: make(chan struct{}, 1), file: f, size: size}
	l.encoder = json.NewEncoder(&l.line)
	return l, nil
}

// endLine appends a newline when the file does not end in one, and returns
// the file's size.
func endLine(f *os.File) (int64, error) {
	info, err := f.Stat()
	if err != nil || info.Size() == 0 {
		return 0, err
	}
	last := make([]byte, 1)
	if _, err := f.ReadAt(last, info.Size()-1); err != nil {
		return 0, err
	}
	if last[0] == '\n' {
		return info.Size(), nil
	}
	if _, err := f.Write([]byte("\n")); err != nil {
		return 0, err
	}
	return info.Size() + 1, nil
}

// Append writes one record. Its Time is set when it is zero. An error wraps
// ErrUnavailable, and then the file is as it was before.
func (l *Log) Append(r *Record) error {
	if r.Time.IsZero() {
		r.Time = time.Now().UTC()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.line.Reset()
	if err := l.encoder.Encode(r); err != nil {
		return fmt.Errorf("%w: record %q: %w", ErrUnavailable, r.Kind, err)
	}
	if n := l.line.Len() - len("\n"); n > maxRecord {
		l.line = bytes.Buffer{}
		return fmt.Errorf("%w: record %q of %d octets, at most %d", ErrUnavailable, r.Kind, n, maxRecord)
	}
	return l.write(l.line.Bytes())
}

// write puts a whole line into the file or nothing. It needs l.mu. This is
// where records will be chained to one another.
func (l *Log) write(line []byte) error {
	if l.broken != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, l.broken)
	}
	n, err := l.file.Write(line)
	if err != nil {
		// Half a record must not stay, or the next one is not readable either.
		if cut := l.file.Truncate(l.size); n > 0 && cut != nil {
			l.broken = cut
		}
		l.failing = err
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	l.size, l.failing = l.size+int64(n), nil
	if !l.always {
		select {
		case l.wake <- struct{}{}:
		default: // the flusher knows already
		}
		return nil
	}
	return l.flush()
}

// flush needs l.mu.
func (l *Log) flush() error {
	if err := l.file.Sync(); err != nil {
		l.broken = err
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// Run flushes what Append wrote, once per sync time, until ctx ends; then a
// last time, and closes the file.
func (l *Log) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return l.close()
		case <-l.wake:
		}
		select {
		case <-ctx.Done():
			return l.close()
		case <-time.After(l.every):
		}
		if f := l.opened(); f != nil {
			if err := f.Sync(); err != nil { // not under the lock: nobody waits for the disk
				l.fail(err)
			}
		}
	}
}

// opened is the file, or nil when the log is broken.
func (l *Log) opened() *os.File {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return nil
	}
	return l.file
}

func (l *Log) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broken = err
}

func (l *Log) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.file.Sync()
	l.broken = errors.New("closed")
	return errors.Join(err, l.file.Close())
}

// Err is why the log cannot take records, or could not take the last one; nil
// when all is well.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return cmp.Or(l.broken, l.failing)
}
