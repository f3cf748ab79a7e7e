package audit

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"time"
)

// Fault is the first thing that is wrong with a log.
type Fault struct {
	File string `json:"file"`
	Line int    `json:"line,omitempty"`
	Seq  uint64 `json:"seq,omitempty"` // of the record that is bad or missing; 0: not known
	Why  string `json:"why"`
}

// Findings are what Verify has found.
type Findings struct {
	Files     []string  `json:"files"` // in order
	Records   uint64    `json:"records"`
	First     uint64    `json:"first,omitempty"` // numbers of the records that were read
	Last      uint64    `json:"last,omitempty"`
	FirstTime time.Time `json:"first_time,omitzero"`
	LastTime  time.Time `json:"last_time,omitzero"`
	Notes     []string  `json:"notes,omitempty"` // what a person should know, and is no fault
	Fault     *Fault    `json:"fault,omitempty"`
}

// Verify reads the log whose records are written to file, with the full files
// beside it, and looks whether every record is there and is what it was when
// the next one was written. The name of a full file means that file alone. It
// ends at the first fault. each, if not nil, is given every record's line,
// which is good until it returns.
//
// That records are missing at the very end, or that the last one was changed,
// the files alone do not show.
//
// An error means that it could not be read.
func Verify(file string, each func(line []byte) error) (*Findings, error) {
	files, err := openAll(file)
	if err != nil {
		return nil, err
	}
	defer func() {
		for _, f := range files {
			_ = f.Close() // read only
		}
	}()
	_, alone := fullName(file)
	v := verifier{each: each, alone: alone}
	for _, f := range files {
		v.file, v.lineNo = f.Name(), 0
		v.report.Files = append(v.report.Files, f.Name())
		if err := v.read(f); err != nil {
			return nil, fmt.Errorf("audit: %w", err)
		}
		if v.report.Fault != nil {
			return &v.report, nil
		}
	}
	v.finish()
	return &v.report, nil
}

// openAll opens the files of a log in order. The current one comes first into
// our hands: one that is full meanwhile is found again among the full ones.
func openAll(file string) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range files {
				_ = f.Close() // read only
			}
			files, err = nil, fmt.Errorf("audit: %w", err)
		}
	}()
	if _, full := fullName(file); full {
		f, err := os.Open(file)
		return []*os.File{f}, err
	}
	n, err := namesOf(file)
	if err != nil {
		return nil, err
	}
	current, missing := os.Open(n.current())
	firsts, err := n.full()
	if missing != nil && (err != nil || len(firsts) == 0 || !errors.Is(missing, os.ErrNotExist)) {
		return nil, missing
	}
	if err != nil {
		return []*os.File{current}, err
	}
	for _, first := range firsts {
		f, err := os.Open(n.rotated(first))
		if err != nil {
			return append(files, current), err
		}
		if files = append(files, f); same(f, current) {
			return files, current.Close()
		}
	}
	if current != nil {
		files = append(files, current)
	}
	return files, nil
}

func same(a, b *os.File) bool {
	if a == nil || b == nil {
		return false
	}
	x, err := a.Stat()
	y, err2 := b.Stat()
	return err == nil && err2 == nil && os.SameFile(x, y)
}

// fullName is the number in the name of a full file, and whether it is one.
func fullName(file string) (first uint64, full bool) {
	ext := filepath.Ext(file)
	whole := file[:len(file)-len(ext)]
	number := filepath.Ext(whole)
	n := names{filepath.Dir(file), filepath.Base(whole[:len(whole)-len(number)]), ext}
	return n.firstOf(filepath.Base(file))
}

// verifier follows the chain.
type verifier struct {
	report Findings
	each   func([]byte) error
	file   string
	lineNo int
	alone  bool // one full file, without those before it
	end    tail
	oldest uint64 // as the newest file says
	when   []byte // the beginning of the last record, where its time is

	// What is no record, until one says that a crash left it.
	torn   int64
	sum    hash.Hash
	tornAt Fault
	open   bool // the last line has no end
}

func (v *verifier) fault(line int, seq uint64, format string, args ...any) {
	v.report.Fault = &Fault{v.file, line, seq, fmt.Sprintf(format, args...)}
}

func (v *verifier) read(f io.Reader) error {
	r := bufio.NewReaderSize(f, 1<<20)
	for {
		line, err := r.ReadSlice('\n')
		if len(line) > 0 {
			v.lineNo++
			v.take(line)
		}
		for errors.Is(err, bufio.ErrBufferFull) { // the rest of a line that is none of ours
			if line, err = r.ReadSlice('\n'); v.report.Fault == nil {
				v.tear(line)
			}
		}
		switch {
		case v.report.Fault != nil || errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if v.each != nil && v.torn == 0 {
			if err := v.each(line); err != nil {
				return err
			}
		}
	}
}

// take looks at one line.
func (v *verifier) take(line []byte) {
	k, ok := linkOf(line)
	if !ok {
		if v.torn == 0 {
			v.tornAt = Fault{v.file, v.lineNo, v.end.seq + 1, "the line is no record, and no record says that a crash left it"}
		}
		v.tear(line)
		return
	}
	head := v.lineNo == 1
	if head != k.is(Begun) {
		v.fault(v.lineNo, k.seq, "a file has to begin with a record %q, and no other line is one", Begun)
		return
	}
	if named, full := fullName(v.file); head && full && named != k.seq {
		v.fault(v.lineNo, k.seq, "the file's first record is %d, its name says %d", k.seq, named)
		return
	}
	if v.report.Records == 0 && v.torn == 0 {
		v.begin(k)
	}
	switch {
	case v.torn > 0 && !k.follows(v.end):
		v.report.Fault = &v.tornAt
		return
	case k.seq > v.end.seq+1:
		v.fault(v.lineNo, v.end.seq+1, "%s missing between this line and the one before", counted(v.end.seq+1, k.seq-1))
		return
	case k.seq <= v.end.seq:
		v.fault(v.lineNo, k.seq, "record %d comes after record %d", k.seq, v.end.seq)
		return
	case !k.follows(v.end):
		v.fault(v.lineNo, v.end.seq, "record %d is not what it was when record %d, which has its hash, was written: one of the two was changed", v.end.seq, k.seq)
		return
	}
	if (head || k.is(Cut) || v.torn > 0) && !v.about(k, line) {
		return
	}
	v.report.Records++
	v.end = v.end.after(line)
	v.report.Last = k.seq
	v.when = append(v.when[:0], k.rest[:min(len(k.rest), 64)]...)
}

// begin takes what the first record says of those before it, which are gone.
func (v *verifier) begin(k link) {
	v.report.First, v.report.FirstTime = k.seq, timeIn(k.rest)
	if v.end.seq = k.seq - 1; v.end.seq > 0 {
		_, _ = hex.Decode(v.end.sum[:], k.prev) // what is no hash is not equal to one
	}
}

// about reads a record that tells of its file or of what a crash left.
func (v *verifier) about(k link, line []byte) bool {
	var r Line
	if err := json.Unmarshal(line, &r); err != nil {
		v.fault(v.lineNo, k.seq, "the record is not JSON: %v", err)
		return false
	}
	if r.File != nil && k.is(Begun) {
		if r.File.Format != format {
			v.fault(v.lineNo, k.seq, "%v", newer(r.File.Format))
			return false
		}
		v.oldest = r.File.Oldest
		if r.File.Aside != "" {
			v.report.Notes = append(v.report.Notes, fmt.Sprintf("%s: line %d: what had the name of this file before was no log and is called %s now", v.file, v.lineNo, r.File.Aside))
		}
	}
	switch told := r.Torn; {
	case told == nil && v.torn == 0:
		return true
	case told == nil:
		v.report.Fault = &v.tornAt
		return false
	case told.Octets != v.torn || v.sum == nil || told.SHA256 != fmt.Sprintf("%x", v.sum.Sum(nil)):
		v.fault(v.lineNo, k.seq, "it tells of %d octets before it that are no record, and they are not what is there", told.Octets)
		return false
	}
	v.report.Notes = append(v.report.Notes, fmt.Sprintf("%s: line %d: %d octets that are no record, left by a crash, as record %d says",
		v.tornAt.File, v.tornAt.Line, v.torn, k.seq))
	v.torn, v.sum = 0, nil
	return true
}

// tear takes up what is no record.
func (v *verifier) tear(text []byte) {
	if v.sum == nil {
		v.sum = sha256.New()
	}
	v.sum.Write(text)
	v.torn += int64(len(text))
	v.open = !bytes.HasSuffix(text, []byte("\n"))
}

// finish judges what is only seen at the end.
func (v *verifier) finish() {
	v.report.LastTime = timeIn(v.when)
	switch {
	case v.torn > 0 && v.open && v.tornAt.File == v.file && v.tornAt.Line == v.lineNo:
		v.report.Notes = append(v.report.Notes, fmt.Sprintf(
			"%s: line %d is not finished: it is being written, or a crash cut it short, which the next record will say", v.file, v.lineNo))
	case v.torn > 0:
		v.report.Fault = &v.tornAt
	}
	switch first := v.report.First; {
	case v.report.Fault != nil || first <= 1 || v.alone:
	case first > v.oldest:
		v.file = v.report.Files[0]
		v.fault(1, v.oldest, "%s missing before this file, and it was not yet time to remove them", counted(v.oldest, first-1))
	default:
		v.report.Notes = append(v.report.Notes, fmt.Sprintf("%s not here any more: so many files are kept, and no more", counted(1, first-1)))
	}
}

func counted(from, to uint64) string {
	if from == to {
		return fmt.Sprintf("record %d is", from)
	}
	return fmt.Sprintf("records %d to %d are", from, to)
}

// timeIn is the time at the beginning of a record.
func timeIn(rest []byte) (t time.Time) {
	text, ok := bytes.CutPrefix(rest, []byte(`"time":"`))
	n := bytes.IndexByte(text, '"')
	if !ok || n < 0 || t.UnmarshalText(text[:n]) != nil {
		return time.Time{}
	}
	return t
}
