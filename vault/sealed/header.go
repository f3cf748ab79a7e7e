package sealed

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
)

const (
	magic        = "BWSEALED"
	formatNumber = 2
	formatOld    = 1 // names no host and has one box

	prefixSize   = len(magic) + 4 + 4
	checksumSize = 8
	maxBody      = 4096
	maxHeader    = prefixSize + maxBody + checksumSize
	storeIDSize  = 16
	storeKeyBox  = boxed + 32
	maxBoxes     = 4
)

// header begins the file. It says which keys open it and on which host.
type header struct {
	storeID [storeIDSize]byte
	host    string
	boxes   []keyBox // at least one; the newest last
}

// keyBox is the store key, boxed with one KEK.
type keyBox struct {
	kind, id string
	box      []byte
}

// ErrDamaged reports that the vault's header is not what was written.
var ErrDamaged = errors.New("the header is damaged")

func (h *header) encode() ([]byte, error) {
	body := bytes.Clone(h.storeID[:])
	texts := []string{h.host}
	for _, b := range h.boxes {
		texts = append(texts, b.kind, b.id)
	}
	for _, s := range texts {
		if len(s) > 255 {
			return nil, fmt.Errorf("sealed: %.20q is too long for a header", s)
		}
	}
	if len(h.boxes) == 0 || len(h.boxes) > maxBoxes {
		return nil, fmt.Errorf("sealed: a header holds 1 to %d keys, not %d", maxBoxes, len(h.boxes))
	}
	body = appendText(body, h.host)
	body = append(body, byte(len(h.boxes)))
	for _, b := range h.boxes {
		body = append(appendText(appendText(body, b.kind), b.id), b.box...)
	}
	out := binary.BigEndian.AppendUint32([]byte(magic), formatNumber)
	out = append(binary.BigEndian.AppendUint32(out, uint32(len(body))), body...)
	sum := sha256.Sum256(out)
	return append(out, sum[:checksumSize]...), nil
}

func appendText(out []byte, s string) []byte { return append(append(out, byte(len(s))), s...) }

// parseHeader returns the header and its length. The error is ErrDamaged or ErrNewer.
func parseHeader(data []byte) (*header, int, error) {
	if len(data) < prefixSize || string(data[:len(magic)]) != magic {
		return nil, 0, ErrDamaged
	}
	format := binary.BigEndian.Uint32(data[len(magic):])
	n := binary.BigEndian.Uint32(data[len(magic)+4:])
	if n > maxBody || len(data) < prefixSize+int(n)+checksumSize {
		return nil, 0, ErrDamaged
	}
	end := prefixSize + int(n)
	// The checksum is where it is in every format to come, so that damage is told from newness.
	if sum := sha256.Sum256(data[:end]); !bytes.Equal(sum[:checksumSize], data[end:end+checksumSize]) {
		return nil, 0, ErrDamaged
	}
	body := cursor{data[prefixSize:end], true}
	var h *header
	switch format {
	case formatNumber:
		h = parseBody(&body)
	case formatOld:
		h = parseOldBody(&body)
	default:
		return nil, 0, fmt.Errorf("%w: format %d, this version understands up to %d; install the newer version again, or move the vault away: everything is read from Vault anew",
			ErrNewer, format, formatNumber)
	}
	if !body.done() || len(h.boxes) == 0 {
		return nil, 0, ErrDamaged
	}
	return h, end + checksumSize, nil
}

func parseBody(c *cursor) *header {
	h := &header{}
	copy(h.storeID[:], c.take(storeIDSize))
	h.host = c.text()
	n := int(c.uint8())
	if n > maxBoxes {
		c.good = false
	}
	for range n {
		b := keyBox{kind: c.text(), id: c.text()}
		b.box = bytes.Clone(c.take(storeKeyBox))
		h.boxes = append(h.boxes, b)
	}
	return h
}

func parseOldBody(c *cursor) *header {
	h := &header{}
	copy(h.storeID[:], c.take(storeIDSize))
	b := keyBox{box: bytes.Clone(c.take(storeKeyBox))}
	b.kind, b.id = c.text(), c.text()
	h.boxes = []keyBox{b}
	return h
}

// find returns the box of the key of that kind and id.
func (h *header) find(kind, id string) (keyBox, bool) {
	i := slices.IndexFunc(h.boxes, func(b keyBox) bool { return b.kind == kind && b.id == id })
	if i < 0 {
		return keyBox{}, false
	}
	return h.boxes[i], true
}

// Header is what the begin of a vault tells without any key.
type Header struct {
	KeyKind string // of the newest key that opens it
	KeyID   string
	Host    string   // that it was made on; "" when it does not say
	Older   []string // kinds and ids of other keys that open it too
}

// Foreign says whether the vault was made on another host than that. Of one that names none it cannot
// be said, and is not.
func (h Header) Foreign(host string) bool { return h.Host != "" && h.Host != host }

// Peek returns the header of the vault in dir without opening it: fs.ErrNotExist when there is none,
// ErrDamaged, ErrNewer.
func Peek(dir string) (Header, error) {
	data, err := directory(dir).read(logName, int64(maxHeader))
	if err != nil {
		return Header{}, fmt.Errorf("sealed: %w", err)
	}
	h, _, err := parseHeader(data)
	if err != nil {
		return Header{}, fmt.Errorf("sealed: %q: %w", filepath.Join(dir, logName), err)
	}
	return h.public(), nil
}

func (h *header) public() Header {
	last := len(h.boxes) - 1
	p := Header{KeyKind: h.boxes[last].kind, KeyID: h.boxes[last].id, Host: h.host}
	for _, b := range h.boxes[:last] {
		p.Older = append(p.Older, b.kind+" "+b.id)
	}
	return p
}
