// Package secret keeps values from being shown where nobody meant to show them: in a log, an error, a dump.
//
// A struct that holds octets of a password, a token or a key embeds Mute, and so does every struct that holds such a
// struct itself, not a pointer to it: fmt looks into members that are not exported without asking them.
//
//	type session struct {
//		secret.Mute
//		token string
//	}
//
// Only %p and %w of such a struct, which go vet refuses, show it all the same: fmt does not ask the value then.
//
// What has to be encoded on purpose, as to be sealed, embeds Quiet. daemon/secrets_test.go lists all of them, and finds
// those that are missing.
package secret

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"log/slog"
)

// Shown is all that a printed secret shows. Not even its length.
const Shown = "(secret)"

// ErrRefused answers every encoder.
var ErrRefused = errors.New("a secret is not encoded")

// Quiet refuses to be printed and logged. Its methods have value receivers, so that what embeds it and a pointer to
// that refuse alike.
type Quiet struct{}

// Mute refuses to be printed, logged and encoded in any way.
type Mute struct{}

var (
	_ fmt.Formatter  = Mute{}
	_ fmt.GoStringer = Mute{}
	_ slog.LogValuer = Mute{}
	_ xml.Marshaler  = Mute{}
)

// String is Shown.
func (Quiet) String() string { return Shown }

// GoString is Shown.
func (Quiet) GoString() string { return Shown }

// Format writes Shown for every verb.
func (Quiet) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, Shown) // a Formatter has nobody to report an error to
}

// LogValue is Shown.
func (Quiet) LogValue() slog.Value { return slog.StringValue(Shown) }

// String is Shown.
func (Mute) String() string { return Shown }

// GoString is Shown.
func (Mute) GoString() string { return Shown }

// Format writes Shown for every verb.
func (Mute) Format(f fmt.State, verb rune) { Quiet{}.Format(f, verb) }

// LogValue is Shown.
func (Mute) LogValue() slog.Value { return slog.StringValue(Shown) }

// MarshalJSON is always an error.
func (Mute) MarshalJSON() ([]byte, error) { return nil, ErrRefused }

// MarshalText is always an error.
func (Mute) MarshalText() ([]byte, error) { return nil, ErrRefused }

// MarshalBinary is always an error.
func (Mute) MarshalBinary() ([]byte, error) { return nil, ErrRefused }

// MarshalXML is always an error.
func (Mute) MarshalXML(*xml.Encoder, xml.StartElement) error { return ErrRefused }

// GobEncode is always an error.
func (Mute) GobEncode() ([]byte, error) { return nil, ErrRefused }
