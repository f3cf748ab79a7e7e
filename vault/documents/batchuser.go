package documents

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"batchwarden/vault/snapshot"
)

const (
	// MaxPassword is how many octets a password may have.
	MaxPassword = 1024
	// MaxSource is how many octets the path of a source may have: every known
	// one goes into a task of the worker.
	MaxSource = 256
)

// reserved are the mounts that no source may lie in.
var reserved = []string{"sys", "auth", "identity", "cubbyhole"}

// ParseBatchUser reads a batch user's document. platform is what one is of
// that names none. The password is nil when the batch user has none. The error
// says everything that is wrong, by the names of members; it quotes no value,
// for any of them may be the password. Whether the source can be one, SourcePath
// says.
func ParseBatchUser(text []byte, platform string) (*snapshot.BatchUser, []byte, error) {
	o, err := parseObject(text)
	if err != nil {
		return nil, nil, err
	}
	f := newFields(o)
	if format := f.format(); format > Newest {
		return nil, nil, errNewer(format)
	}
	u := &snapshot.BatchUser{
		Username: f.text("username", maxText),
		Domain:   f.text("domain", maxText),
		Group:    f.text("group", maxText),
		Platform: f.word("platform", platform, Platforms...),
		Kind:     f.word("kind", "password", "password", "none"),
		PAM:      f.text("pam", maxText),
		Names:    snapshot.NamesOf(f.texts("names")),
		Services: f.lists("services"),
		Launch:   f.flag("launch", true),
		Retrieve: f.flag("retrieve", false),
		MaxStale: f.duration("max_stale"),
		Expires:  f.moment("expires"),
		Source:   f.source(),
	}
	if u.Username == "" {
		f.fault("username", "is required")
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

func (f *fields) source() string {
	in := f.inner("source")
	if in == nil {
		return ""
	}
	defer in.rest()
	return in.text("path", MaxSource)
}

// SourcePath takes the path of a source apart and refuses what none can be. The
// error does not quote it.
func SourcePath(path string) ([]string, error) {
	if len(path) > MaxSource {
		return nil, fmt.Errorf("is longer than %d octets", MaxSource)
	}
	if strings.ContainsAny(path, `?#%\*`) || strings.ContainsFunc(path, func(r rune) bool { return !unicode.IsPrint(r) }) {
		return nil, errors.New("contains a character that a source's path cannot have")
	}
	components := strings.Split(path, "/")
	for _, c := range components {
		if c == "" || c == "." || c == ".." {
			return nil, errors.New("has an empty component, or one of dots")
		}
	}
	for _, r := range reserved {
		if strings.EqualFold(components[0], r) {
			return nil, fmt.Errorf("lies in %s, where no source may lie", r)
		}
	}
	return components, nil
}

func (f *fields) password(required bool) []byte {
	v, given := f.take("password")
	s, ok := v.(string)
	password := []byte(s)
	switch {
	case given && !ok:
		f.fault("password", "must be a string")
	case s == "" && !required:
	case s == "":
		f.fault("password", "is required")
	default:
		if err := CheckPassword(password); err != nil {
			f.fault("password", "%v", err)
		}
	}
	return password
}

// CheckPassword refuses a password that no system takes, or that was damaged on
// its way. The error does not quote it.
func CheckPassword(password []byte) error {
	switch {
	case len(password) == 0:
		return errors.New("is empty")
	case len(password) > MaxPassword:
		return fmt.Errorf("longer than %d octets", MaxPassword)
	case bytes.IndexByte(password, 0) >= 0, bytes.ContainsRune(password, utf8.RuneError): // also where it is not UTF-8
		return errors.New("contains a character that no password can have")
	}
	return nil
}
