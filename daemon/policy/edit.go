package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// A Text is a JSON document that is changed where it stands: every octet that
// a change does not need to touch stays as it was written, and what is added looks
// like what is beside it.
//
// Places are paths of members' names (string) and places in lists (int). The
// text must be one that a Model has parsed; what is asked of any other one is
// answered as if it were not there.
type Text struct{ data []byte }

// NewText makes a Text of a document. Its octets are not changed.
func NewText(data []byte) *Text { return &Text{data} }

// Bytes returns the document as it is now.
func (t *Text) Bytes() []byte { return t.data }

// A value is where in the text a value stands; its end is behind it. The
// zero value is none.
type value struct{ start, end int }

func (v value) is() bool { return v.end > v.start }

// Has reports whether there is a value at the place.
func (t *Text) Has(path ...any) bool { return t.at(path...).is() }

// Decode reads the value at the place, as encoding/json does. False: there is none.
func (t *Text) Decode(into any, path ...any) bool {
	v := t.at(path...)
	return v.is() && json.Unmarshal(t.data[v.start:v.end], into) == nil
}

// Append appends to the list at the place, which is made where there is none,
// with all that it lies in.
func (t *Text) Append(add any, path ...any) error {
	if list := t.at(path...); list.is() {
		return t.insert(list, encode(add))
	}
	return t.make([]any{add}, path)
}

// Set puts a value in the place of the one that is there, or makes it.
func (t *Text) Set(put any, path ...any) error {
	if old := t.at(path...); old.is() {
		t.splice(old.start, old.end, encode(put))
		return nil
	}
	return t.make(put, path)
}

// make makes the member at the place, and the objects around it that are not there.
func (t *Text) make(put any, path []any) error {
	for depth := len(path) - 1; depth >= 0; depth-- {
		name, is := path[depth].(string)
		if !is {
			return fmt.Errorf("policy: no element %v in the document", path[:depth+1])
		}
		if in := t.at(path[:depth]...); in.is() {
			return t.insert(in, encode(name), ':', encode(put))
		}
		put = map[string]any{name: put}
	}
	return fmt.Errorf("policy: the document is not an object")
}

// Remove removes the element or the member at the place.
func (t *Text) Remove(path ...any) error {
	if len(path) == 0 || !t.at(path...).is() {
		return fmt.Errorf("policy: nothing at %v in the document", path)
	}
	in := t.at(path[:len(path)-1]...)
	all := t.parts(in)
	for i, p := range all {
		if p.is(path[len(path)-1], i) {
			switch {
			case i > 0: // with the comma before it
				t.splice(all[i-1].value.end, p.value.end, nil)
			case len(all) > 1:
				t.splice(p.start, all[1].start, nil)
			default:
				t.splice(in.start+1, in.end-1, nil)
			}
			return nil
		}
	}
	return nil // not reached: the value was found a moment ago
}

// insert appends an element, or a member of a name, ':' and a value, to a list or an object.
func (t *Text) insert(in value, parts ...any) error {
	if open := t.data[in.start]; open != '[' && open != '{' || (open == '{') != (len(parts) == 3) {
		return fmt.Errorf("policy: the document has something else where a list or an object is meant")
	}
	var b []byte
	all := t.parts(in)
	colon := []byte{':'}
	if len(all) > 0 {
		last := all[len(all)-1]
		before := in.start + 1
		if len(all) > 1 {
			before = all[len(all)-2].value.end
		}
		b = append(b, ',')
		b = append(b, bytes.ReplaceAll(t.data[before:last.start], []byte{','}, nil)...) // the blanks around the comma
		if last.name.is() {
			colon = t.data[last.name.end:last.value.start]
		}
	}
	for _, part := range parts {
		switch part := part.(type) {
		case []byte:
			b = append(b, part...)
		default:
			b = append(b, colon...)
		}
	}
	at := in.start + 1
	if len(all) > 0 {
		at = all[len(all)-1].value.end
	}
	t.splice(at, at, b)
	return nil
}

func (t *Text) splice(from, to int, put []byte) {
	data := make([]byte, 0, len(t.data)-(to-from)+len(put))
	data = append(data, t.data[:from]...)
	data = append(data, put...)
	t.data = append(data, t.data[to:]...)
}

// at finds a value.
func (t *Text) at(path ...any) value {
	start := t.blank(0)
	v := value{start, t.skip(start)}
	for _, step := range path {
		if !v.is() {
			return value{}
		}
		v = t.inside(v, step)
	}
	return v
}

func (t *Text) inside(in value, step any) value {
	for i, p := range t.parts(in) {
		if p.is(step, i) {
			return p.value
		}
	}
	return value{}
}

// A part is an element of a list, or a member of an object with its name.
type part struct {
	start int // of the name, or of the value where there is none
	name  value
	value value
	text  string // the name itself
}

func (p part) is(step any, i int) bool {
	switch step := step.(type) {
	case int:
		return !p.name.is() && step == i
	case string:
		return p.name.is() && step == p.text
	}
	return false
}

// parts are those of a list or an object, none of any other value.
func (t *Text) parts(in value) []part {
	if !in.is() || t.data[in.start] != '[' && t.data[in.start] != '{' {
		return nil
	}
	var all []part
	for i := t.blank(in.start + 1); i < in.end-1; i = t.blank(i) {
		if t.data[i] == ',' {
			i++
			continue
		}
		p := part{start: i}
		if t.data[in.start] == '{' {
			p.name = value{i, t.skip(i)}
			if !p.name.is() || json.Unmarshal(t.data[p.name.start:p.name.end], &p.text) != nil {
				return all
			}
			i = t.blank(p.name.end)
			if i >= in.end || t.data[i] != ':' {
				return all
			}
			i = t.blank(i + 1)
		}
		p.value = value{i, t.skip(i)}
		if !p.value.is() {
			return all
		}
		all = append(all, p)
		i = p.value.end
	}
	return all
}

func (t *Text) blank(i int) int {
	for i < len(t.data) && (t.data[i] == ' ' || t.data[i] == '\t' || t.data[i] == '\n' || t.data[i] == '\r') {
		i++
	}
	return i
}

// skip returns the end of the value that begins at i, or i when none does.
func (t *Text) skip(i int) int {
	depth := 0
	for at := i; at < len(t.data); {
		switch t.data[at] {
		case '"':
			for at++; at < len(t.data) && t.data[at] != '"'; at++ {
				if t.data[at] == '\\' {
					at++
				}
			}
			at++
		case '[', '{':
			depth++
			at++
		case ']', '}':
			if depth--; depth < 0 {
				return i
			}
			at++
		case ',', ':', ' ', '\t', '\n', '\r':
			if depth == 0 {
				return i
			}
			at++
		default: // a number or a word
			for at < len(t.data) && !bytes.ContainsRune([]byte(",:]} \t\r\n"), rune(t.data[at])) {
				at++
			}
		}
		if depth == 0 {
			return min(at, len(t.data))
		}
	}
	return i
}

// encode writes a value in one line. What is put into a document are texts,
// lists and objects of texts, which do not fail.
func encode(v any) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic("policy: " + err.Error())
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}
