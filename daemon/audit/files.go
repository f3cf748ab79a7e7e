package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"batchwarden/platform/safefile"
)

// names are those of the files of one log.
type names struct {
	dir, stem, ext string
}

// digits of the first record's number in the name of a full file, so that
// names sort as the files do.
const digits = 12

func namesOf(file string) (names, error) {
	// A link is followed once: what is renamed must be the file, not the link.
	if to, err := filepath.EvalSymlinks(file); err == nil {
		file = to
	} else if !errors.Is(err, fs.ErrNotExist) {
		return names{}, err
	}
	ext := filepath.Ext(file)
	return names{filepath.Dir(file), strings.TrimSuffix(filepath.Base(file), ext), ext}, nil
}

func (n names) current() string { return filepath.Join(n.dir, n.stem+n.ext) }
func (n names) next() string    { return filepath.Join(n.dir, n.stem+".next"+n.ext) }
func (n names) reserve() string { return filepath.Join(n.dir, n.stem+".reserve") }
func (n names) rotated(first uint64) string {
	return filepath.Join(n.dir, fmt.Sprintf("%s.%0*d%s", n.stem, digits, first, n.ext))
}

// firstOf is the number in the name of a full file.
func (n names) firstOf(name string) (first uint64, ok bool) {
	rest, ok := strings.CutPrefix(name, n.stem+".")
	number, is := strings.CutSuffix(rest, n.ext)
	if !ok || !is || len(number) != digits {
		return 0, false
	}
	first, err := strconv.ParseUint(number, 10, 64)
	return first, err == nil && first > 0
}

// full are the numbers in the names of the full files, in order.
func (n names) full() (firsts []uint64, err error) {
	entries, err := os.ReadDir(n.dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if first, ok := n.firstOf(e.Name()); ok {
			firsts = append(firsts, first)
		}
	}
	slices.Sort(firsts)
	return firsts, nil
}

// open finds the end of the chain in what is there. The file stays nil when
// the next record has to begin one.
func (l *Log) open() error {
	// What a crash left of a beginning: the record before it is still the last.
	if err := os.Remove(l.names.next()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.OpenFile(l.names.current(), os.O_RDWR|os.O_APPEND, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return l.openAfter()
	}
	if err != nil {
		return err
	}
	info, err := f.Stat()
	switch {
	case err != nil:
	case !info.Mode().IsRegular():
		err = fmt.Errorf("%q is not a regular file", f.Name())
	case info.Size() > 0:
		if l.first, l.end, l.torn, err = endOf(f, info.Size()); err == nil {
			l.file, l.size = f, info.Size()
			return nil
		}
	}
	if err := errors.Join(err, f.Close()); err != nil && !errors.Is(err, errNoLog) {
		return err
	}
	return l.openAfter()
}

// openAfter finds the end of the chain in the last full file.
func (l *Log) openAfter() error {
	firsts, err := l.names.full()
	if err != nil || len(firsts) == 0 {
		return err
	}
	f, err := os.Open(l.names.rotated(firsts[len(firsts)-1]))
	if err != nil {
		return err
	}
	defer f.Close() // read only
	info, err := f.Stat()
	if err != nil {
		return err
	}
	_, l.end, l.torn, err = endOf(f, info.Size())
	return err
}

// errNoLog reports a file that does not begin as ours do or has no record.
var errNoLog = errors.New("no audit log of this version")

// endOf finds the first record of a file and where the chain ends in it. torn
// is what stands behind the last record.
func endOf(f *os.File, size int64) (first uint64, end tail, torn *Torn, err error) {
	head := make([]byte, min(size, maxRecord))
	if _, err := f.ReadAt(head, 0); err != nil {
		return 0, tail{}, nil, err
	}
	k, ok := linkOf(head[:bytes.IndexByte(head, '\n')+1])
	if !ok || !k.is(Begun) {
		return 0, tail{}, nil, fmt.Errorf("%q: %w", f.Name(), errNoLog)
	}
	var r Record
	// Members are added without a new number: one that is higher says that our records have no place behind these.
	if err := json.Unmarshal(head[:bytes.IndexByte(head, '\n')+1], &r); err == nil && r.File != nil && r.File.Format > format {
		return 0, tail{}, nil, fmt.Errorf("%q: %w", f.Name(), newer(r.File.Format))
	}
	first = k.seq
	for at, line := range backwards(f, size, &err) {
		k, ok := linkOf(line)
		if !ok {
			continue
		}
		if end.seq == 0 {
			end = tail{seq: k.seq, sum: sha256.Sum256(line)}
			if err = tornAfter(f, at+int64(len(line)), size, &torn); err != nil {
				break
			}
		}
		if ends, is := endsIn(k, line); is {
			end.ends = ends
			break
		}
	}
	return first, end, torn, err
}

// endsIn is the highest job's end written so far, for the kinds of records
// that tell.
func endsIn(k link, line []byte) (uint64, bool) {
	if !k.is(JobEnded) && !k.is(Begun) {
		return 0, false
	}
	var r Record
	switch err := json.Unmarshal(line, &r); {
	case err != nil:
		return 0, false
	case r.File != nil:
		return r.File.Ends, true
	case r.Job != nil:
		return r.Job.EndSeq, true
	}
	return 0, false
}

// tornAfter describes what stands in f from at on.
func tornAfter(f io.ReaderAt, at, size int64, torn **Torn) error {
	if at == size {
		return nil
	}
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, at, size-at)); err != nil {
		return err
	}
	*torn = &Torn{Octets: size - at, SHA256: fmt.Sprintf("%x", h.Sum(nil))}
	return nil
}

// backwards yields the lines of a file from the last to the first, and where
// each begins. A line is good until the next one.
func backwards(f io.ReaderAt, size int64, err *error) func(yield func(int64, []byte) bool) {
	const chunk = 64 << 10
	return func(yield func(int64, []byte) bool) {
		var kept []byte // of the file, from at on, that was not yielded
		for at := size; at > 0; {
			n := min(at, chunk)
			at -= n
			grown := make([]byte, int(n)+len(kept))
			if _, *err = f.ReadAt(grown[:n], at); *err != nil {
				return
			}
			copy(grown[n:], kept)
			for kept = grown; ; {
				begin := bytes.LastIndexByte(kept[:max(len(kept)-1, 0)], '\n') + 1
				if begin == 0 && at > 0 {
					if len(kept) > 4*maxRecord { // no line of ours; what matters is where it ends
						kept = kept[:maxRecord]
					}
					break
				}
				if len(kept) > 0 && !yield(at+int64(begin), kept[begin:]) {
					return
				}
				if kept = kept[:begin]; begin == 0 {
					break
				}
			}
		}
	}
}

// ready makes sure that there is a file and that its end is told of. It needs
// l.mu.
func (l *Log) ready() error {
	if l.file == nil {
		return l.begin()
	}
	if l.torn == nil {
		return nil
	}
	if err := l.closeLine(); err != nil {
		return err
	}
	if err := l.append(&Record{Time: time.Now().UTC(), Kind: Cut, Torn: l.torn}); err != nil {
		return err
	}
	l.torn = nil
	return nil
}

// cutMark ends a line that a crash did not, so that nobody takes it for a
// record: it may have been cut anywhere, behind a brace too.
const cutMark = "#\n"

// closeLine ends the last line where a crash did not, so that the next record
// has one of its own.
func (l *Log) closeLine() error {
	last := make([]byte, 1)
	if _, err := l.file.ReadAt(last, l.size-1); err != nil {
		return err
	}
	if last[0] == '\n' {
		return nil
	}
	begin := l.size - l.torn.Octets
	if err := l.write([]byte(cutMark)); err != nil {
		return err
	}
	return tornAfter(l.file, begin, l.size, &l.torn) // as it stands now
}

// begin makes the first file, or the one after those that are full. What has
// the name of it and is no log of ours is kept under another.
func (l *Log) begin() error {
	aside := ""
	if info, err := os.Stat(l.names.current()); err == nil && info.Size() > 0 {
		aside = fmt.Sprintf("%s.aside-%d%s", l.names.stem, time.Now().UnixNano(), l.names.ext)
		if err := os.Rename(l.names.current(), filepath.Join(l.names.dir, aside)); err != nil {
			return err
		}
	}
	f, line, err := l.head(0, aside)
	if err != nil {
		return err
	}
	if err := os.Rename(l.names.next(), l.names.current()); err != nil {
		return errors.Join(err, f.Close())
	}
	if err := syncDir(l.names.dir); err != nil {
		l.broken = err
		return errors.Join(err, f.Close())
	}
	l.begun(f, line)
	l.torn = nil
	return nil
}

// begun makes f, which has one line, the file that is written.
func (l *Log) begun(f *os.File, line []byte) {
	l.end = l.end.after(line)
	l.file, l.first, l.size, l.full = f, l.end.seq, int64(len(line)), l.Rotate
	l.copy.offer(line)
}

// head makes the next file, under a name of its own and on the disk, with the
// record that a file begins with. filled is the first record of the file that
// is full with that, or 0. The line is good until the next record.
func (l *Log) head(filled uint64, aside string) (f *os.File, line []byte, err error) {
	firsts, err := l.names.full()
	if err != nil {
		return nil, nil, err
	}
	if filled > 0 {
		firsts = append(firsts, filled)
	}
	firsts = append(l.kept(firsts), l.end.seq+1)
	line, err = l.encode(&Record{Time: time.Now().UTC(), Kind: Begun, Torn: l.torn, File: &File{
		Format: format, Oldest: firsts[0], Ends: l.end.ends, Aside: aside,
	}})
	if err != nil {
		return nil, nil, err
	}
	for {
		f, err = create(l.names.next(), line)
		if err == nil || !l.room.release(l.names.reserve()) {
			return f, line, err
		}
	}
}

// create makes a file with a line in it, on the disk, or none.
func create(name string, line []byte) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	_, err = f.Write(line)
	if err = errors.Join(err, f.Sync()); err != nil {
		return nil, errors.Join(err, f.Close(), os.Remove(name))
	}
	return f, nil
}

// kept are the full files that stay.
func (l *Log) kept(firsts []uint64) []uint64 {
	if l.Keep > 0 && len(firsts) > l.Keep {
		return firsts[len(firsts)-l.Keep:]
	}
	return firsts
}

// rotate begins the next file. Whatever it was doing when the machine stopped,
// the last record is found again; when it fails, the old file goes on.
func (l *Log) rotate() error {
	if err := l.file.Sync(); err != nil {
		l.broken = err
		return err
	}
	f, line, err := l.head(l.first, "")
	if err != nil {
		return err
	}
	filled := l.names.rotated(l.first)
	if err := os.Rename(l.names.current(), filled); err != nil {
		return errors.Join(err, f.Close(), os.Remove(l.names.next()))
	}
	if err := os.Rename(l.names.next(), l.names.current()); err != nil {
		if back := os.Rename(filled, l.names.current()); back != nil {
			l.broken = back
		}
		return errors.Join(err, f.Close())
	}
	if err := syncDir(l.names.dir); err != nil {
		l.broken = err
		return errors.Join(err, f.Close())
	}
	_ = l.file.Close() // flushed above, and read by nobody
	l.begun(f, line)
	l.prune()
	return nil
}

// prune removes the oldest files. One that stays in the way is tried again at
// the next rotation.
func (l *Log) prune() {
	firsts, err := l.names.full()
	if err != nil {
		return
	}
	for _, first := range firsts[:len(firsts)-len(l.kept(firsts))] {
		_ = os.Remove(l.names.rotated(first))
	}
}

// syncDir puts names on the disk, where the platform has a way.
func syncDir(dir string) error {
	if err := safefile.SyncDir(dir); err != nil && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}
