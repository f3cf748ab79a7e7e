package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"

	"batchwarden/ipc/wire"
)

// read parses the request's body into v: one JSON object, no unknown member,
// nothing after it. The problem names the member at fault.
func (c *call) read(v any) error {
	if err := parse(c.r.Body, v); err != nil {
		return err
	}
	return nil
}

// readSoon is read for a call that is answered in no time: nobody looks
// meanwhile whether the caller has gone, which costs as much as the answer.
func (c *call) readSoon(v any) error {
	if c.requests != nil {
		c.requests.Soon()
	}
	return c.read(v)
}

// parse reads one JSON object, no unknown member and none twice, nothing after it.
func parse(from io.Reader, v any) *wire.Problem {
	text, err := io.ReadAll(from)
	if err != nil {
		return badBody(err)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return badBody(err)
	}
	if n := d.InputOffset(); len(bytes.TrimLeft(text[n:], " \t\r\n")) > 0 {
		return wire.Invalid("", "something follows the JSON object")
	}
	return exact(text)
}

var unknownField = regexp.MustCompile(`^json: unknown field "(.*)"$`)

// badBody says what is wrong with a body, never what is in it.
func badBody(err error) *wire.Problem {
	var (
		large  *http.MaxBytesError
		kind   *json.UnmarshalTypeError
		syntax *json.SyntaxError
	)
	switch unknown := unknownField.FindStringSubmatch(err.Error()); {
	case errors.As(err, &large):
		return wire.NewProblem(wire.RequestTooLarge, fmt.Sprintf("the body has more than %d octets", large.Limit))
	case errors.As(err, &kind):
		return wire.Invalid(kind.Field, fmt.Sprintf("%s is a JSON %s and should be a %s", orBody(kind.Field), kind.Value, kind.Type))
	case errors.As(err, &syntax):
		return wire.Invalid("", fmt.Sprintf("the body is not JSON: octet %d", syntax.Offset))
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return wire.Invalid("", "the body is missing or cut short")
	case unknown != nil:
		return wire.Invalid(unknown[1], fmt.Sprintf("%q is not a member of this request", unknown[1]))
	case strings.Contains(err.Error(), "is not a duration"):
		return wire.Invalid("timeout", err.Error())
	}
	return wire.Invalid("", "the body could not be read")
}

func orBody(field string) string {
	if field == "" {
		return "the body"
	}
	return field
}

// write answers with JSON.
func (c *call) write(status int, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	h := c.w.Header()
	if h.Get("Content-Type") == "" {
		h.Set("Content-Type", "application/json")
	}
	h.Set("Cache-Control", "no-store")
	c.w.WriteHeader(status)
	_, _ = c.w.Write(append(text, '\n')) // a caller that has gone cannot be told that he has
	return nil
}
