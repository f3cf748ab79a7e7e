package audit

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"strconv"
)

// A Line is a record as it stands in the log.
type Line struct {
	Seq  uint64 `json:"seq"`  // 1 and up, over all files
	Prev string `json:"prev"` // SHA-256 of the line before, its end included, in hex
	*Record
}

// tail is where a chain ends.
type tail struct {
	seq  uint64            // of the last record; 0: there is none
	sum  [sha256.Size]byte // of its line
	ends uint64            // highest Job.EndSeq of a JobEnded so far
}

func (t tail) after(line []byte) tail {
	return tail{t.seq + 1, sha256.Sum256(line), t.ends}
}

// link is what a line says of its place in the chain.
type link struct {
	seq  uint64
	prev []byte // hex, part of the line
	rest []byte // what follows, from the next member on
}

const (
	beforeSeq  = `{"seq":`
	beforePrev = `,"prev":"`
	afterPrev  = `",`
)

// linkOf reads the beginning of a line, which has to be exactly as Append
// writes it, and looks that the line is a whole one.
func linkOf(line []byte) (k link, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte(beforeSeq))
	if !ok || len(line) > maxRecord || !bytes.HasSuffix(line, []byte("}\n")) {
		return link{}, false
	}
	n := bytes.IndexByte(rest, ',')
	if n < 1 || n > 20 || rest[0] == '0' {
		return link{}, false
	}
	seq, err := strconv.ParseUint(string(rest[:n]), 10, 64)
	if err != nil {
		return link{}, false
	}
	rest, ok = bytes.CutPrefix(rest[n:], []byte(beforePrev))
	const digits = 2 * sha256.Size
	if !ok || len(rest) < digits+len(afterPrev) || string(rest[digits:digits+len(afterPrev)]) != afterPrev {
		return link{}, false
	}
	return link{seq, rest[:digits], rest[digits+len(afterPrev):]}, true
}

// follows reports whether the line is the one after t.
func (k link) follows(t tail) bool {
	var want [2 * sha256.Size]byte
	hex.Encode(want[:], t.sum[:])
	return k.seq == t.seq+1 && bytes.Equal(k.prev, want[:])
}

// is reports whether the line is a record of the kind.
func (k link) is(kind string) bool {
	_, after, ok := bytes.Cut(k.rest[:min(len(k.rest), 128)], []byte(`"kind":"`))
	return ok && bytes.HasPrefix(after, []byte(kind+`"`))
}
