package automic

import (
	"bytes"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A filter is one column of a row as it is compared: its elements without
// blanks around them and without empty ones, joined by commas. The empty
// filter does not restrict (AU15), and neither does one that contains a bare
// "*". The filter "," has no elements and matches nothing (AU12).
type filter string

const never filter = ","

// compile reads a column. Fold says how its elements are compared (AU14).
func compile(column string, fold func(string) string) filter {
	if column == "" {
		return ""
	}
	var kept []string
	for element := range strings.SplitSeq(column, ",") {
		element = strings.TrimSpace(element)
		if element == "*" {
			return ""
		}
		if element != "" {
			kept = append(kept, fold(element))
		}
	}
	if kept == nil {
		return never
	}
	if len(kept) == 1 && kept[0] == column {
		return filter(column) // the document's own text
	}
	return filter(strings.Join(kept, ","))
}

// next cuts the first element off.
func (f filter) next() (element string, rest filter) {
	if i := strings.IndexByte(string(f), ','); i >= 0 {
		return string(f[:i]), f[i+1:]
	}
	return string(f), ""
}

// matches reports whether an element matches text. An empty text is an
// attribute that the object does not have, and that matches (AU16).
func (f filter) matches(text []byte) bool {
	if f == "" || len(text) == 0 {
		return true
	}
	return f.some(text)
}

// matchesName is matches for the column Name, which every object has.
func (f filter) matchesName(text []byte) bool { return f == "" || f.some(text) }

func (f filter) some(text []byte) bool {
	for f != "" {
		var element string
		if element, f = f.next(); element != "" && match(element, text) {
			return true
		}
	}
	return false
}

// matchesFolder is matchesName for the paths of folders (AU17 to AU19).
func (f filter) matchesFolder(path []byte) bool {
	if f == "" {
		return true
	}
	for f != "" {
		var element string
		if element, f = f.next(); element != "" && matchFolder(element, path) {
			return true
		}
	}
	return false
}

func matchFolder(element string, path []byte) bool {
	if element[0] != '\\' {
		return false // AU17; a bare * never comes here
	}
	if base, ok := strings.CutSuffix(element, `\*`); ok { // AU18: the folder itself, too
		return match(element, path) || match(base, path)
	}
	if base, ok := strings.CutSuffix(element, `\`); ok { // AU19: its direct children
		i := bytes.LastIndexByte(path, '\\')
		return i >= 0 && i+1 < len(path) && match(base, path[:i])
	}
	return match(element, path)
}

// match reports whether all of text matches pattern: '?' is one character,
// '*' any number (AU11). It compares at most len(pattern)*len(text) times.
func match(pattern string, text []byte) bool {
	p, t := 0, 0
	star, mark := -1, 0
	for t < len(text) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			p++
			if tail := pattern[p:]; strings.IndexByte(tail, '*') < 0 && strings.IndexByte(tail, '?') < 0 {
				return len(text)-t >= len(tail) && string(text[len(text)-len(tail):]) == tail
			}
			star, mark = p, t
		case p < len(pattern) && pattern[p] == '?':
			p++
			t += width(text[t:])
		case p < len(pattern) && pattern[p] == text[t]:
			p, t = p+1, t+1
		case star < 0:
			return false
		default:
			mark += width(text[mark:])
			p, t = star, mark
		}
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

func width(text []byte) int {
	if text[0] < utf8.RuneSelf {
		return 1
	}
	_, n := utf8.DecodeRune(text)
	return n
}

// upper is how a filter is compared that knows no case (AU14). Text is
// upper-cased letter by letter; upperTo does the same for requests.
func upper(s string) string {
	return strings.Map(unicode.ToUpper, s)
}

// upperTo appends s in upper case.
func upperTo(b []byte, s string) []byte {
	n := len(b)
	b = append(b, s...)
	for i := n; i < len(b); i++ {
		c := b[i]
		if c >= utf8.RuneSelf {
			b = b[:i]
			for _, r := range s[i-n:] {
				b = utf8.AppendRune(b, unicode.ToUpper(r))
			}
			return b
		}
		if c >= 'a' && c <= 'z' {
			b[i] = c - ('a' - 'A')
		}
	}
	return b
}

// asIs is how the filter of a file name is compared that is not one of Windows.
func asIs(s string) string { return s }

// likeWindows is how a filter is compared with a file name of Windows: without
// regard to case, and / is \ (AU14).
func likeWindows(s string) string { return strings.ReplaceAll(upper(s), "/", `\`) }

// isWindows reports whether a file name begins with a drive letter or with \\.
func isWindows(name string) bool {
	if strings.HasPrefix(name, `\\`) {
		return true
	}
	return len(name) > 1 && name[1] == ':' && (name[0]|0x20 >= 'a' && name[0]|0x20 <= 'z')
}

// badFile says why a file name is not compared at all (AU14): "*" crosses
// separators, and /data/* must not match /data/../etc/shadow. Both separators
// count on every system, because the agent's system is not known here.
func badFile(name string) string {
	windows := isWindows(name)
	rest := name
	switch {
	case strings.IndexByte(name, 0) >= 0:
		return "contains a NUL"
	case strings.HasPrefix(name, `\\`):
		rest = name[2:]
		if rest != "" && (rest[0] == '\\' || rest[0] == '/') {
			return "contains a doubled separator"
		}
	case windows:
		rest = name[2:] // C:..\x has the component ..
	}
	for i, start := 0, 0; i <= len(rest); i++ {
		if i < len(rest) && rest[i] != '/' && rest[i] != '\\' {
			continue
		}
		part := rest[start:i]
		if part == "" && start > 0 && i < len(rest) {
			return "contains a doubled separator"
		}
		if part == "." || part == ".." || windows && part != "" && strings.Trim(part, ". ") == "" {
			return "has the component " + part
		}
		start = i + 1
	}
	return ""
}

// badFolder says why a folder's path is none: it begins with \ and has no
// empty part, so that no second way of writing it slips past a NOT row.
func badFolder(path string) string {
	switch {
	case !strings.HasPrefix(path, `\`):
		return `does not begin with \`
	case strings.Contains(path, `\\`):
		return "contains a doubled separator"
	}
	return ""
}
