package opcon

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A platform is one of the platform types of OC2.
type platform uint8

const (
	windows platform = iota
	sql
	unix
	ibmi
	mcp
	openvms
	zos
	platforms // how many there are
)

var platformNames = [platforms]string{"windows", "sql", "unix", "ibmi", "mcp", "openvms", "zos"}

func (p platform) String() string { return platformNames[p] }

func platformOf(name string) (platform, bool) {
	for p := range platforms {
		if platformNames[p] == name {
			return p, true
		}
	}
	return 0, false
}

// folds reports whether logins of p compare without regard to case (OC13):
// DOMAIN\user is a Windows login also where it logs in to SQL Server.
func (p platform) folds() bool { return p == windows || p == sql }

const (
	maxLogin   = 61 // characters (OC2)
	maxOpenVMS = 12
	maxZOS     = 8

	serviceAccount = "USE SERVICE ACCOUNT"
)

// reserved reports whether login always exists and cannot be changed (OC3).
func (p platform) reserved(login string) bool {
	switch p {
	case windows, sql:
		var b [maxKey]byte
		return string(key(b[:0], p, login)) == serviceAccount
	case ibmi, mcp:
		return login == "*"
	}
	return false
}

// fault says what OC2 has against login on p; "" is nothing.
func (p platform) fault(login string) string {
	if p.reserved(login) {
		return ""
	}
	if text := plain(login); text != "" {
		return text
	}
	n := utf8.RuneCountInString(login)
	left, right, two := "", "", false
	switch p {
	case windows, sql:
		left, right, two = strings.Cut(login, `\`)
		if !two || left == "" || right == "" || strings.Contains(right, `\`) {
			return fmt.Sprintf(`%q is not DOMAIN\user`, login)
		}
	case unix:
		left, right, two = strings.Cut(login, "/")
		if !two || !unixName(left) || !unixName(right) {
			return fmt.Sprintf("%q is not group/user (letters, digits, - and _ in both)", login)
		}
	case openvms:
		if n > maxOpenVMS {
			return fmt.Sprintf("%q has %d characters, at most %d on openvms", login, n, maxOpenVMS)
		}
	case zos:
		if n > maxZOS {
			return fmt.Sprintf("%q has %d characters, at most %d on zos", login, n, maxZOS)
		}
		if strings.ContainsFunc(login, unicode.IsLower) {
			return fmt.Sprintf("%q is not in upper case, as zos wants it", login)
		}
	}
	return ""
}

// plain says what OC2 has against login on every platform.
func plain(login string) string {
	n := utf8.RuneCountInString(login)
	switch {
	case login == "":
		return "is empty"
	case n > maxLogin:
		return fmt.Sprintf("has %d characters, at most %d", n, maxLogin)
	case strings.TrimSpace(login) != login:
		return fmt.Sprintf("%q begins or ends with a blank", login)
	case strings.ContainsFunc(login, func(r rune) bool { return !unicode.IsPrint(r) }):
		return fmt.Sprintf("%q contains what cannot be printed", login)
	}
	return ""
}

func unixName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
	})
}

// maxKey bytes hold every login that OC2 permits. A longer one in a request
// has no key, and no list has the empty key.
const maxKey = maxLogin * utf8.UTFMax

// key appends to b the form in which logins of p are compared (OC13). Where
// case does not matter that is upper case, except that a letter outside
// ASCII never becomes one inside it: "admın" is not ADMIN.
func key(b []byte, p platform, login string) []byte {
	if len(login) > maxKey {
		return b
	}
	if !p.folds() {
		return append(b, login...)
	}
	for _, r := range login {
		up := unicode.ToUpper(r)
		if r >= utf8.RuneSelf && up < utf8.RuneSelf {
			up = r
		}
		if len(b)+utf8.UTFMax > maxKey {
			return b[:0]
		}
		b = utf8.AppendRune(b, up)
	}
	return b
}
