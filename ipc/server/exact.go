package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"batchwarden/ipc/wire"
)

// free are the members whose own members have names of the caller's choice.
var free = map[string]bool{"object": true, "env": true, "labels": true, "limits": true}

// level is one object that the scanner of exact is in.
type level struct {
	free  bool
	first int             // of its names, after those of the objects around it
	many  map[string]bool // its names, once there are more than few
}

// few is how many names of an object are looked through one by one.
const few = 16

// again takes a name in and reports whether the object has it already. names ends with the object's own.
func (l *level) again(name []byte, names [][]byte) bool {
	own := names[l.first:]
	if len(own) <= few {
		return slices.ContainsFunc(own, func(other []byte) bool { return bytes.Equal(name, other) })
	}
	if l.many == nil {
		l.many = map[string]bool{}
		for _, other := range own {
			l.many[string(other)] = true
		}
	}
	had := l.many[string(name)]
	l.many[string(name)] = true
	return had
}

// exact refuses what Go's decoder takes for the same: a member that is given twice, of which the last one would win, and
// one whose name is written with other letters. The text is known to be one JSON value whose members are known.
func exact(text []byte) *wire.Problem {
	if first := bytes.TrimLeft(text, " \t\r\n"); first[0] != '{' {
		return wire.Invalid("", "the body is not a JSON object")
	}
	levels, names := make([]level, 0, 8), make([][]byte, 0, 2*few) // of most requests, on the stack
	freely := false                                                // what the next object's members may be called
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '{':
			levels = append(levels, level{free: freely, first: len(names)})
		case '}':
			last := len(levels) - 1
			names, levels = names[:levels[last].first], levels[:last]
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
			name := text[begin+1 : i]
			if bytes.IndexByte(name, '\\') >= 0 {
				var meant string
				if err := json.Unmarshal(text[begin:i+1], &meant); err != nil {
					return wire.Invalid("", "the body is not JSON")
				}
				name = []byte(meant)
			}
			in := &levels[len(levels)-1]
			if in.again(name, names) {
				return wire.Invalid(string(name), fmt.Sprintf("%q is given twice", name))
			}
			names = append(names, name)
			if !in.free && !plain(name) {
				return wire.Invalid(string(name), fmt.Sprintf("%q is not a member of this request", name))
			}
			freely = in.free || free[string(name)]
		}
	}
	return nil
}

// plain reports whether a name has the letters that all names of ours have. Without regard to case, ſ is s to the
// decoder, and the Kelvin sign is k.
func plain(name []byte) bool {
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' {
			return false
		}
	}
	return true
}
