package remote

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"batchwarden/vault/sealed"
	"batchwarden/vault/snapshot"
)

// newest is the newest format of documents that this program knows.
const newest = 1

var (
	platforms = []string{"unix", "windows", "zos"}
	models    = []string{"automic", "stonebranch", "opcon"}
)

// errNewer is a document of a format to come: the last good one stays.
func errNewer(format int64) error {
	return fmt.Errorf("format.newer: the document has format %d, this program knows %d", format, newest)
}

// parseBatchUser reads a batch user's document. platform is the default. The
// password is nil when the batch user has none. No error quotes a value.
func parseBatchUser(text []byte, platform string) (*snapshot.BatchUser, []byte, error) {
	o, err := parseObject(text)
	if err != nil {
		return nil, nil, err
	}
	f := newFields(o)
	if format := f.format(); format > newest {
		return nil, nil, errNewer(format)
	}
	u := &snapshot.BatchUser{
		Username: f.text("username", 256),
		Domain:   f.text("domain", 256),
		Group:    f.text("group", 256),
		Platform: f.word("platform", platform, platforms...),
		Kind:     f.word("kind", "password", "password", "none"),
		PAM:      f.text("pam", 256),
		Names:    snapshot.NamesOf(f.texts("names")),
		Services: f.lists("services"),
		Launch:   f.flag("launch", true),
		Retrieve: f.flag("retrieve", false),
		MaxStale: f.duration("max_stale"),
		Expires:  f.moment("expires"),
	}
	if u.Username == "" {
		f.fault("username", "is required")
	}
	if src := f.inner("source"); src != nil {
		u.Source = src.text("path", maxSource)
		src.rest()
	}
	password := f.password(u.Kind == "password" && u.Source == "")
	if err := f.err(); err != nil {
		return nil, nil, err
	}
	switch {
	case u.Kind != "password":
		password, u.Source = nil, ""
	case u.Source != "":
		password = nil // what lies at the source is the password, whatever was left here
	}
	return u, password, nil
}

func (f *fields) password(required bool) []byte {
	v, given := f.take("password")
	s, ok := v.(string)
	switch {
	case given && !ok:
		f.fault("password", "must be a string")
	case required && s == "":
		f.fault("password", "is required")
	case len(s) > sealed.MaxSecret:
		f.fault("password", "longer than %d octets", sealed.MaxSecret)
	case unfit(s):
		f.fault("password", "contains a character that no password can have")
	}
	return []byte(s)
}

// unfit reports a password that no system takes, or that was damaged on its way.
func unfit(s string) bool {
	return strings.ContainsRune(s, 0) || strings.ContainsRune(s, utf8.RuneError)
}

// policyHead is what is read here of a policy document; the daemon reads the rest, strictly.
type policyHead struct {
	Format   *int64          `json:"format"`
	Model    string          `json:"model"`
	Encoding string          `json:"encoding"`
	Parts    json.RawMessage `json:"parts"`
}

// part is one piece of a document in parts.
type part struct {
	Version int64  `json:"version"`
	SHA256  string `json:"sha256"`
}

// parsePolicy reads the head of a policy document, and its parts if it lies in parts.
func parsePolicy(text []byte) (model string, parts []part, err error) {
	if len(text) > sealed.MaxDocument {
		return "", nil, fmt.Errorf("longer than %d octets", sealed.MaxDocument)
	}
	var h policyHead
	if text = bytes.TrimLeft(text, " \t\r\n"); len(text) == 0 || text[0] != '{' || json.Unmarshal(text, &h) != nil {
		return "", nil, errors.New("not a JSON object with format and model as they should be")
	}
	switch {
	case h.Format != nil && *h.Format > newest:
		return "", nil, errNewer(*h.Format)
	case h.Format != nil && *h.Format < 1:
		return "", nil, errors.New("format: must be a number from 1")
	case !slices.Contains(models, h.Model):
		return "", nil, fmt.Errorf("model: must be one of %s", strings.Join(models, ", "))
	case h.Encoding == "" && h.Parts == nil:
		return h.Model, nil, nil
	case h.Encoding != "gzip+base64":
		return "", nil, errors.New(`encoding: must be "gzip+base64"`)
	}
	if err := json.Unmarshal(h.Parts, &parts); err != nil || len(parts) == 0 || len(parts) > most {
		return "", nil, fmt.Errorf("parts: must be a list of 1 to %d parts with version and sha256", most)
	}
	return h.Model, parts, nil
}
