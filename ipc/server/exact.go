package server

import (
	"bytes"
	"encoding/json"
	"fmt"

	"batchwarden/ipc/wire"
)

// free are the members whose own members have names of the caller's choice.
var free = map[string]bool{"object": true, "env": true, "labels": true, "limits": true}

// level is one object that the scanner of exact is in.
type level struct {
	free  bool
	names map[string]bool
}

// exact refuses what Go's decoder takes for the same: a member that is given twice, of which the last one would win, and
// one whose name is written with other letters. The text is known to be one JSON value whose members are known.
func exact(text []byte) *wire.Problem {
	if first := bytes.TrimLeft(text, " \t\r\n"); first[0] != '{' {
		return wire.Invalid("", "the body is not a JSON object")
	}
	var levels []level
	freely := false // what the next object's members may be called
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '{':
			levels = append(levels, level{freely, map[string]bool{}})
		case '}':
			levels = levels[:len(levels)-1]
		case '"':
			begin := i
			for i++; text[i] != '"'; i++ {
				if text[i] == '\\' {
					i++
				}
			}
			if rest := bytes.TrimLeft(text[i+1:], " \t\r\n"); len(rest) == 0 || rest[0] != ':' {
				continue // a value
			}
			name := string(text[begin+1 : i])
			if bytes.IndexByte(text[begin:i], '\\') >= 0 {
				if err := json.Unmarshal(text[begin:i+1], &name); err != nil {
					return wire.Invalid("", "the body is not JSON")
				}
			}
			in := &levels[len(levels)-1]
			if in.names[name] {
				return wire.Invalid(name, fmt.Sprintf("%q is given twice", name))
			}
			in.names[name] = true
			if !in.free && !plain(name) {
				return wire.Invalid(name, fmt.Sprintf("%q is not a member of this request", name))
			}
			freely = in.free || free[name]
		}
	}
	return nil
}

// plain reports whether a name has the letters that all names of ours have. Without regard to case, ſ is s to the
// decoder, and the Kelvin sign is k.
func plain(name string) bool {
	for _, c := range []byte(name) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}
