package documents

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

const (
	// MaxPolicy is how many octets a policy document may have, parts or not.
	MaxPolicy = 10 << 20
	// MaxParts is in how many parts it may lie.
	MaxParts = 1000
	// Encoding is what the head of a document in parts says they are: pieces of
	// the compressed document, each in base64.
	Encoding = "gzip+base64"
)

// policyHead is what is read here of a policy document; the daemon reads the rest, strictly.
type policyHead struct {
	Format   *int64          `json:"format"`
	Model    string          `json:"model"`
	Encoding string          `json:"encoding"`
	Parts    json.RawMessage `json:"parts"`
}

// A Part is one piece of a document in parts, as its head names it.
type Part struct {
	Version int64  `json:"version"`
	SHA256  string `json:"sha256"` // of its octets, in hex
}

// PartOf names the version of a part that holds the octets.
func PartOf(octets []byte, version int64) Part {
	sum := sha256.Sum256(octets)
	return Part{version, hex.EncodeToString(sum[:])}
}

// ParsePolicy reads the head of a policy document, and its parts if it lies in parts.
func ParsePolicy(text []byte) (model string, parts []Part, err error) {
	if len(text) > MaxPolicy {
		return "", nil, fmt.Errorf("longer than %d octets", MaxPolicy)
	}
	var h policyHead
	if text = bytes.TrimLeft(text, " \t\r\n"); len(text) == 0 || text[0] != '{' || json.Unmarshal(text, &h) != nil {
		return "", nil, errors.New("not a JSON object with format and model as they should be")
	}
	switch {
	case h.Format != nil && *h.Format > Newest:
		return "", nil, errNewer(*h.Format)
	case h.Format != nil && *h.Format < 1:
		return "", nil, errors.New("format: must be a number from 1")
	case !slices.Contains(Models, h.Model):
		return "", nil, fmt.Errorf("model: must be one of %s", strings.Join(Models, ", "))
	case h.Encoding == "" && h.Parts == nil:
		return h.Model, nil, nil
	case h.Encoding != Encoding:
		return "", nil, fmt.Errorf("encoding: must be %q", Encoding)
	}
	if err := json.Unmarshal(h.Parts, &parts); err != nil || len(parts) == 0 || len(parts) > MaxParts {
		return "", nil, fmt.Errorf("parts: must be a list of 1 to %d parts with version and sha256", MaxParts)
	}
	return h.Model, parts, nil
}

// Open reads the document of the part and returns its octets, if they are the
// ones that the head names.
func (p Part) Open(text []byte) ([]byte, error) {
	o, err := parseObject(text)
	if err != nil {
		return nil, err
	}
	f := newFields(o)
	if format := f.format(); format > Newest {
		return nil, errNewer(format)
	}
	data := f.text("data", len(text))
	if err := f.err(); err != nil {
		return nil, err
	}
	b, err := base64.StdEncoding.DecodeString(data)
	if err != nil || PartOf(b, p.Version) != p {
		return nil, errors.New("not the part that the head names")
	}
	return b, nil
}

// Join returns the document whose parts hold the pieces, in their order.
func Join(pieces [][]byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(bytes.Join(pieces, nil)))
	if err != nil {
		return nil, err
	}
	text, err := io.ReadAll(io.LimitReader(z, MaxPolicy+1))
	if err != nil {
		return nil, err
	}
	if len(text) > MaxPolicy {
		return nil, fmt.Errorf("longer than %d octets", MaxPolicy)
	}
	return text, nil
}
