// Package memscan looks for secrets in the memory of a process and in files. It is for tests and the
// demonstration, which show with it that none are there.
package memscan

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf16"
)

// MinSecret is the length of the shortest secret that can be looked for. Secrets should be random:
// every 8 octets of one are looked for, and words are everywhere.
const MinSecret = 8

// maxHits bounds what a scan returns: more says nothing new.
const maxHits = 1000

// Needle is one form of a secret.
type Needle struct {
	Form string
	text []byte
}

// Hit is a place where a needle was found. It does not show the secret.
type Hit struct {
	Form    string
	Mapping string // the mapping's name, or the file's
	Offset  int64  // from its begin
}

func (h Hit) String() string { return fmt.Sprintf("%s in %s at %#x", h.Form, h.Mapping, h.Offset) }

// Needles returns the forms in which a secret may turn up: as it is, JSON-escaped, UTF-16 of both
// orders, hexadecimal, base64 at each of three alignments, and every 8 octets of it.
func Needles(secret []byte) []Needle {
	if len(secret) < MinSecret {
		panic("memscan: a secret of less than 8 octets")
	}
	var all []Needle
	add := func(form string, text []byte) {
		if len(text) >= MinSecret && !slices.ContainsFunc(all, func(n Needle) bool { return string(n.text) == string(text) }) {
			all = append(all, Needle{form, slices.Clone(text)})
		}
	}
	add("raw", secret)
	for _, form := range jsonForms(secret) {
		add("json", form)
	}
	var le, be []byte
	for _, u := range utf16.Encode([]rune(string(secret))) {
		le = binary.LittleEndian.AppendUint16(le, u)
		be = binary.BigEndian.AppendUint16(be, u)
	}
	add("utf-16le", le)
	add("utf-16be", be)
	lower := hex.EncodeToString(secret)
	add("hex", []byte(lower))
	add("HEX", []byte(strings.ToUpper(lower)))
	for shift := range 3 {
		// Only characters that the secret alone decides.
		from, to := (shift*8+5)/6, (shift+len(secret))*8/6
		shifted := append(make([]byte, shift), secret...)
		add(fmt.Sprintf("base64+%d", shift), []byte(base64.RawStdEncoding.EncodeToString(shifted)[from:to]))
		add(fmt.Sprintf("base64url+%d", shift), []byte(base64.RawURLEncoding.EncodeToString(shifted)[from:to]))
	}
	for i := range len(secret) - MinSecret + 1 {
		add("fragment", secret[i:i+MinSecret])
	}
	return all
}

// jsonForms are the secret as JSON encoders write it.
func jsonForms(secret []byte) [][]byte {
	var out [][]byte
	for _, html := range []bool{true, false} {
		var b strings.Builder
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(html)
		if err := e.Encode(string(secret)); err != nil {
			continue // a string always encodes
		}
		text := strings.TrimSuffix(b.String(), "\n")
		out = append(out, []byte(text[1:len(text)-1]))
	}
	return out
}

// Scan reads every readable mapping of the process and returns where needles were found. Memory that
// the kernel shows to nobody, as that of memfd_secret, is left out. It needs the right to trace the
// process.
func Scan(pid int, needles []Needle) ([]Hit, error) {
	hits, err := scan(pid, newIndex(needles))
	if err != nil {
		return hits, fmt.Errorf("memscan: process %d: %w", pid, err)
	}
	return hits, nil
}

// ScanFiles reads every regular file among and below paths.
func ScanFiles(needles []Needle, paths ...string) ([]Hit, error) {
	x := newIndex(needles)
	var hits []Hit
	for _, path := range paths {
		err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			found, err := x.file(name)
			hits = append(hits, found...)
			return err
		})
		if err != nil {
			return hits, fmt.Errorf("memscan: %w", err)
		}
	}
	return hits, nil
}

func (x *index) file(name string) (hits []Hit, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	s := x.stream(name)
	for {
		n, err := f.Read(s.room())
		s.advance(n)
		if errors.Is(err, io.EOF) {
			s.finish()
			return s.hits, nil
		}
		if err != nil {
			return s.hits, err
		}
	}
}
