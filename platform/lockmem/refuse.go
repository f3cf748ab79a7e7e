package lockmem

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// shown is all that a printed Buffer shows. Not even its length.
const shown = "(secret)"

// errRefused answers every encoder.
var errRefused = errors.New("lockmem: a secret is not encoded")

// These have value receivers so that a Buffer and a pointer to one refuse alike.
var (
	_ fmt.Formatter  = Buffer{}
	_ fmt.GoStringer = Buffer{}
	_ slog.LogValuer = Buffer{}
	_ xml.Marshaler  = Buffer{}
)

// String is "(secret)".
func (b Buffer) String() string { return shown }

// GoString is "(secret)".
func (b Buffer) GoString() string { return shown }

// Format writes "(secret)" for every verb.
func (b Buffer) Format(f fmt.State, _ rune) {
	// A Formatter has nobody to report an error to.
	_, _ = io.WriteString(f, shown)
}

// LogValue is "(secret)".
func (b Buffer) LogValue() slog.Value { return slog.StringValue(shown) }

// MarshalJSON is always an error.
func (b Buffer) MarshalJSON() ([]byte, error) { return nil, errRefused }

// MarshalText is always an error.
func (b Buffer) MarshalText() ([]byte, error) { return nil, errRefused }

// MarshalBinary is always an error.
func (b Buffer) MarshalBinary() ([]byte, error) { return nil, errRefused }

// MarshalXML is always an error.
func (b Buffer) MarshalXML(*xml.Encoder, xml.StartElement) error { return errRefused }

// GobEncode is always an error.
func (b Buffer) GobEncode() ([]byte, error) { return nil, errRefused }
