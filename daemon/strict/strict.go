// Package strict reads a JSON or YAML document into Go values and names every
// fault in it with its line, its column and its place.
//
// JSON and YAML of the same content give the same values: a YAML scalar
// is a number or a boolean only where it is written as JSON would write it,
// and a field that wants a text refuses both. Whatever two readers could
// understand differently is a fault: duplicate members, null, anchors,
// aliases, tags, several documents, bytes after the end, invalid UTF-8.
package strict

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// MaxDepth is how deep lists and objects may be nested.
	MaxDepth = 64
	// MaxValues is how many values and member names a document may hold.
	// It bounds the memory that a document of nothing but "[0,0,0" costs.
	MaxValues = 4_000_000
	// MaxYAML is the size of the largest YAML document. A YAML parser needs
	// a few hundred bytes for each byte of a hostile text; larger documents
	// are written as JSON.
	MaxYAML = 4 << 20
	// maxFaults is how many faults are kept; the rest is counted.
	maxFaults = 1000
)

// A Fault is one thing that is wrong in a document.
type Fault struct {
	File         string
	Line, Column int    // from 1, the column in characters; 0 when unknown
	Place        string // "clients[0].may[1]"; "" for the document as a whole
	Text         string
}

func (f Fault) String() string {
	var b strings.Builder
	b.WriteString(f.File)
	if f.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", f.Line, f.Column)
	}
	if b.Len() > 0 {
		b.WriteString(": ")
	}
	if f.Place != "" {
		b.WriteString(f.Place)
		b.WriteString(": ")
	}
	b.WriteString(f.Text)
	return b.String()
}

// Faults are all faults of a document, in the order of its lines. As an
// error they read as one fault per line.
type Faults []Fault

func (fs Faults) Error() string {
	lines := make([]string, len(fs))
	for i, f := range fs {
		lines[i] = f.String()
	}
	return strings.Join(lines, "\n")
}

// A Document is a text that was understood, and the faults found in it so
// far. It is not for use by several goroutines at once.
type Document struct {
	// IgnoreX says that members of objects whose names begin with "x_" are
	// somebody's notes and are passed over. The names of a map's entries are
	// data and are never passed over.
	IgnoreX bool

	file    string
	limit   int // of nodes
	nodes   []node
	faults  Faults
	dropped int // faults beyond maxFaults
	interns map[string]string
	structs structs
}

// Parse reads data, which is JSON when its first byte that is not blank is
// '{' or '[', and YAML otherwise. File is the name that faults carry.
//
// The error is Faults: the text could not be understood as a whole. Faults
// that leave the rest readable, such as a duplicate member, wait in the
// document for Err, so that they are reported together with what Decode
// finds.
func Parse(file string, data []byte) (*Document, error) {
	return parse(file, data, MaxValues)
}

func parse(file string, data []byte, values int) (*Document, error) {
	d := &Document{file: file, limit: values, interns: map[string]string{}, structs: structs{}}
	if !d.sound(data) {
		return nil, d.Err()
	}
	ok := false
	if trimmed := bytes.TrimLeft(data, " \t\r\n"); len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[') {
		ok = d.parseJSON(data)
	} else {
		ok = d.parseYAML(data)
	}
	if !ok {
		return nil, d.Err()
	}
	for i := range d.nodes {
		if d.nodes[i].kind == object {
			d.duplicates(uint32(i))
		}
	}
	return d, nil
}

// sound checks the bytes before any parser sees them.
func (d *Document) sound(data []byte) bool {
	if bytes.HasPrefix(data, []byte("\xef\xbb\xbf")) {
		d.add(1, 1, "", "begins with a byte order mark; save it as UTF-8 without one")
		return false
	}
	if i := bytes.IndexByte(data, 0); i >= 0 {
		line, col := position(data, i)
		d.add(line, col, "", "contains a NUL byte")
		return false
	}
	if utf8.Valid(data) {
		return true
	}
	for i := 0; i < len(data); {
		r, n := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && n == 1 {
			line, col := position(data, i)
			d.add(line, col, "", "is not valid UTF-8")
			break
		}
		i += n
	}
	return false
}

// position says on which line and in which column data[i] is.
func position(data []byte, i int) (line, col uint32) {
	before := data[:i]
	start := bytes.LastIndexByte(before, '\n') + 1
	return uint32(bytes.Count(before, []byte{'\n'}) + 1), uint32(utf8.RuneCount(before[start:]) + 1)
}

// Has reports whether the document gives a value at place.
func (d *Document) Has(place string) bool {
	_, ok := d.find(place)
	return ok
}

// Line is the line of the value at place, or of the nearest part of it that
// the document has; 0 when there is none.
func (d *Document) Line(place string) int {
	i, _ := d.find(place)
	if int(i) >= len(d.nodes) {
		return 0
	}
	return int(d.nodes[i].line)
}

// Fault adds a fault at place, which is written as "users.JDOE/DEPT.rows[3].name".
// Where the document has no such place the fault carries the position of the
// nearest part of it that exists.
func (d *Document) Fault(place, format string, args ...any) {
	if len(d.faults) >= maxFaults { // before the search, which costs
		d.dropped++
		return
	}
	var line, col uint32
	if i, _ := d.find(place); int(i) < len(d.nodes) {
		line, col = d.nodes[i].line, d.nodes[i].col
	}
	d.add(line, col, place, fmt.Sprintf(format, args...))
}

// Err returns all faults found so far as Faults, or nil when there is none.
func (d *Document) Err() error {
	if len(d.faults) == 0 {
		return nil
	}
	fs := slices.Clone(d.faults)
	slices.SortStableFunc(fs, func(a, b Fault) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if d.dropped > 0 {
		fs = append(fs, Fault{File: d.file, Text: fmt.Sprintf("and %d more faults", d.dropped)})
	}
	return fs
}

func (d *Document) add(line, col uint32, place, text string) {
	if len(d.faults) >= maxFaults {
		d.dropped++
		return
	}
	d.faults = append(d.faults, Fault{File: d.file, Line: int(line), Column: int(col), Place: place, Text: text})
}
