// Package audit writes what was decided and done, one JSON line each, before
// it is done.
//
// A record is in the file when Append returns nil, and on the disk within the
// log's sync time (or before Append returns, when that is zero). A record that
// cannot be written is an error, and the caller must then not act: no audit,
// no launch. Records hold no secret, and no argument of a command unless the
// configuration wants them.
//
// Each line names the hash of the one before it, over all files of the log;
// FORMAT.md says how, Verify looks whether it is so.
package audit

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// maxRecord bounds a record; a longer one is our own bug and is refused.
const maxRecord = 64 << 10

// lookEvery is between two looks at the room on the disk and at strangers.
const lookEvery = 5 * time.Second

// ErrUnavailable reports that the log cannot take records. Once a flush to the
// disk has failed nobody can say what the file holds, so it stays that way
// until the log is opened anew.
var ErrUnavailable = errors.New("audit: the log cannot be written")

// Options say how a log is kept.
type Options struct {
	Sync     time.Duration // until a record is on the disk; 0: before Append returns
	Rotate   int64         // octets after which a file is full; a last record may go beyond; 0: never full
	Keep     int           // full files that are kept beside the one that is written; 0: all
	Journald bool          // a copy of each record to the system's journal, as well as it can
	Observer Observer      // nil: nobody
}

// Log is an open audit log. Its methods may be called from any goroutine.
type Log struct {
	Options
	names names
	wake  chan struct{} // a record waits for the flusher; never closed
	copy  *copier       // nil: no copies

	// Guards what is below.
	mu      sync.Mutex
	line    []byte   // of the record that is being written
	file    *os.File // nil until the first record could be written
	first   uint64   // number of the file's first record
	size    int64    // where the next record begins
	end     tail     // of the chain
	torn    *Torn    // what stands after the last record, and no record says so yet
	full    int64    // size at which rotating is tried
	stuck   error    // why that failed the last time
	waiting waiting  // for the disk
	room    room
	guests  guests
	broken  error // for good
	failing error // the last record could not be written; the next one may
}

// Open opens the log whose records are written to file, and begins it when
// there is none (0600). The directory has to be writable: full files are kept
// there beside it. What a crash left at the end that is no record stays where
// it is, and the next record tells of it. A full disk is no error here.
func Open(file string, o Options) (*Log, error) {
	n, err := namesOf(file)
	if err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	l := &Log{Options: o, names: n, wake: make(chan struct{}, 1), full: o.Rotate}
	if o.Journald {
		l.copy = newCopier(journalSocket)
	}
	if err := l.open(); err != nil {
		return nil, fmt.Errorf("audit: %w", err)
	}
	l.room.look(n.dir)
	l.room.hold(n.reserve())
	if err := l.ready(); err != nil && !isFull(n.dir) {
		return nil, fmt.Errorf("audit: %w", errors.Join(err, l.closeFile()))
	}
	return l, nil
}

// Append writes one record. Its Time is set when it is zero. An error wraps
// ErrUnavailable, and then the file is as it was before.
func (l *Log) Append(r *Record) error {
	if r.Time.IsZero() {
		r.Time = time.Now().UTC()
	}
	err := l.put(r)
	l.tell(r, err)
	return err
}

func (l *Log) put(r *Record) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.broken != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, l.broken)
	}
	err := l.add(r)
	if errors.Is(err, errRecord) {
		return fmt.Errorf("%w: %w", ErrUnavailable, err) // the next one is another
	}
	if l.failing = err; err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}

// errRecord reports that it is the record's own fault.
var errRecord = errors.New("record")

// add writes a record and sees to it that it comes onto the disk in time. It
// needs l.mu.
func (l *Log) add(r *Record) error {
	if err := l.ready(); err != nil {
		return err
	}
	if l.full > 0 && l.size >= l.full && l.end.seq > l.first {
		if l.stuck = l.rotate(); l.stuck != nil {
			if l.broken != nil {
				return l.stuck
			}
			l.full = l.size + l.Rotate/16 + maxRecord // rather a long file than none; and not another try at once
		}
	}
	if err := l.append(r); err != nil {
		return err
	}
	l.waiting.begin()
	if l.Sync > 0 {
		select {
		case l.wake <- struct{}{}:
		default: // the flusher knows already
		}
		return nil
	}
	since := l.waiting.take()
	if err := l.file.Sync(); err != nil {
		l.broken = err
		return err
	}
	l.flushed(since)
	return nil
}

// append puts a record at the end of the chain. It needs l.mu and a log that
// is ready.
func (l *Log) append(r *Record) error {
	line, err := l.encode(r)
	if err != nil {
		return err
	}
	if err := l.write(line); err != nil {
		return err
	}
	if l.end = l.end.after(line); r.Kind == JobEnded && r.Job != nil {
		l.end.ends = max(l.end.ends, r.Job.EndSeq)
	}
	l.copy.offer(line)
	return nil
}

// encode makes the line of the next record; it is good until the next call.
// What chains it comes first, as in a Line.
func (l *Log) encode(r *Record) ([]byte, error) {
	line := strconv.AppendUint(append(l.line[:0], beforeSeq...), l.end.seq+1, 10)
	line = hex.AppendEncode(append(line, beforePrev...), l.end.sum[:])
	line, err := r.appendTo(append(line, '"'))
	if err != nil {
		return nil, fmt.Errorf("%w %q: %w", errRecord, r.Kind, err)
	}
	line = append(line, "}\n"...)
	if n := len(line); n > maxRecord {
		return nil, fmt.Errorf("%w %q of %d octets, at most %d", errRecord, r.Kind, n, maxRecord)
	}
	l.line = line
	return line, nil
}

// write puts a whole line into the file or nothing, with one write(2).
func (l *Log) write(line []byte) error {
	for {
		n, err := l.file.Write(line)
		if err == nil {
			l.size += int64(n)
			return nil
		}
		// Half a record must not stay, or the next one is not readable either.
		if n > 0 {
			if cut := l.file.Truncate(l.size); cut != nil {
				l.broken = cut
				return errors.Join(err, cut)
			}
		}
		if !l.room.release(l.names.reserve()) {
			return err
		}
	}
}

// Run flushes what Append wrote, once per sync time, until ctx ends; then a
// last time, and closes the file. Meanwhile it looks after the room on the
// disk and writes down how often strangers came.
func (l *Log) Run(ctx context.Context) error {
	var copying sync.WaitGroup
	defer copying.Wait()
	if l.copy != nil {
		copying.Go(func() { l.copy.run(ctx) }) // ends with ctx
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	wake, due := l.wake, (<-chan time.Time)(nil)
	for {
		select {
		case <-ctx.Done():
			return l.close()
		case <-tick.C:
			l.look()
		case <-wake:
			wake, due = nil, time.After(l.Sync)
		case <-due:
			wake, due = l.wake, nil
			l.flush()
		}
	}
}

// flush puts what was written on the disk, and not under the lock: nobody
// waits for that.
func (l *Log) flush() {
	l.mu.Lock()
	f, broken := l.file, l.broken
	if f == nil || broken != nil {
		l.mu.Unlock()
		return
	}
	since := l.waiting.take()
	l.mu.Unlock()
	// A file that was closed meanwhile was full, and was flushed before that.
	err := f.Sync()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil && !errors.Is(err, os.ErrClosed) {
		l.broken = err
		return
	}
	l.flushed(since)
}

// look sees how much room there is, and ends the counts of strangers that are
// a minute old.
func (l *Log) look() {
	var now room
	now.look(l.names.dir) // not under the lock: a disk may not answer
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.room.take(now); l.room.roomy() {
		l.room.hold(l.names.reserve())
	}
	l.tellVisits(time.Now())
}

func (l *Log) close() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tellVisits(time.Time{})
	l.broken = cmp.Or(l.broken, errors.New("closed"))
	return l.closeFile()
}

func (l *Log) closeFile() error {
	if l.file == nil {
		return nil
	}
	return errors.Join(l.file.Sync(), l.file.Close())
}

// Resize changes how long a file gets and how many full ones are kept, from the next record on.
func (l *Log) Resize(rotate int64, keep int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.Rotate, l.full, l.Keep = rotate, rotate, keep
}

// Err is why the log cannot take records, or could not take the last one; nil
// when all is well.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return cmp.Or(l.broken, l.failing)
}

// Low says in words why records may soon not be writable any more; "" while
// there is room.
func (l *Log) Low() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stuck != nil {
		return fmt.Sprintf("the file of the audit log is full and stays, as the next one cannot be begun: %v", l.stuck)
	}
	return l.room.low()
}

// LastEnd is the highest number of a job's end, in the launcher's journal,
// that the log has a record of; 0 for none. What came after it is not written
// down yet, whatever happened since.
func (l *Log) LastEnd() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end.ends
}

// Lost is how many records the system's journal did not take; the log itself
// has them.
func (l *Log) Lost() uint64 { return l.copy.lostSoFar() }
