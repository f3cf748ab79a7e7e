package strict

import (
	"bytes"
	"encoding"
	"encoding/json"
	"fmt"
	"reflect"
	"strconv"
	"strings"
)

var (
	rawType  = reflect.TypeFor[json.RawMessage]()
	textType = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// Decode stores the document in v, which is a pointer, by the struct tags
// `json:"name"`. What does not fit is left as it is in v and becomes a fault
// for Err. Decode knows strings, booleans, integers, floats, slices, maps
// with string keys, structs (embedded ones too), pointers, json.RawMessage
// and encoding.TextUnmarshaler, whose value is always a text.
func (d *Document) Decode(v any) {
	r := reflect.ValueOf(v)
	if r.Kind() != reflect.Pointer || r.IsNil() {
		panic(fmt.Sprintf("strict: Decode into a %T", v))
	}
	w := walker{d: d}
	w.value(0, r.Elem())
}

// A walker decodes one document and knows where in it it is. Places are
// written only when there is a fault.
type walker struct {
	d    *Document
	path []step
}

// A step is a member's name or, when list is set, an index.
type step struct {
	name  string
	index int
	list  bool
}

func (w *walker) place() string {
	var b strings.Builder
	for _, s := range w.path {
		if s.list {
			b.WriteString("[" + strconv.Itoa(s.index) + "]")
			continue
		}
		element(&b, s.name)
	}
	return b.String()
}

func (w *walker) fault(n *node, format string, args ...any) {
	if len(w.d.faults) >= maxFaults {
		w.d.dropped++
		return
	}
	w.d.add(n.line, n.col, w.place(), fmt.Sprintf(format, args...))
}

func (w *walker) wrong(n *node, want string) {
	switch n.kind {
	case null:
		w.fault(n, "has no value; leave it out or give it %s", want)
	case boolean, number, oddNumber:
		w.fault(n, "must be %s, not %s", want, n.text)
	case str:
		w.fault(n, "must be %s, not the text %s", want, shown(n.text))
	default:
		w.fault(n, "must be %s, not %v", want, n.kind)
	}
}

func (w *walker) value(i uint32, v reflect.Value) {
	n := &w.d.nodes[i]
	switch {
	case v.Type() == rawType:
		for k := i; k < n.next; k++ {
			if odd := &w.d.nodes[k]; odd.kind == oddNumber {
				w.fault(odd, "%s is not a decimal number; quote it if it is a text", odd.text)
			}
		}
		v.SetBytes(w.d.raw(nil, i))
		return
	case v.CanAddr() && v.Addr().Type().Implements(textType):
		if n.kind != str {
			w.wrongText(n)
		} else if err := v.Addr().Interface().(encoding.TextUnmarshaler).UnmarshalText([]byte(n.text)); err != nil {
			w.fault(n, "%v", err)
		}
		return
	case v.Kind() == reflect.Pointer:
		if n.kind == null {
			w.wrong(n, "a value")
			return
		}
		p := reflect.New(v.Type().Elem())
		w.value(i, p.Elem())
		v.Set(p)
		return
	}
	switch v.Kind() {
	case reflect.String:
		if n.kind != str {
			w.wrongText(n)
			return
		}
		v.SetString(w.d.intern(n.text))
	case reflect.Bool:
		if n.kind != boolean {
			w.wrong(n, "true or false")
			return
		}
		v.SetBool(n.text == "true")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		x, err := strconv.ParseInt(n.text, 10, v.Type().Bits())
		if n.kind != number || err != nil {
			w.wrong(n, "a whole number"+width(v))
			return
		}
		v.SetInt(x)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		x, err := strconv.ParseUint(n.text, 10, v.Type().Bits())
		if n.kind != number || err != nil {
			w.wrong(n, "a whole number, not negative"+width(v))
			return
		}
		v.SetUint(x)
	case reflect.Float64:
		x, err := strconv.ParseFloat(n.text, 64)
		if n.kind != number || err != nil {
			w.wrong(n, "a number")
			return
		}
		v.SetFloat(x)
	case reflect.Slice:
		w.slice(i, v)
	case reflect.Map:
		w.entries(i, v)
	case reflect.Struct:
		w.members(i, v)
	default:
		panic("strict: Decode into a " + v.Type().String())
	}
}

func (w *walker) wrongText(n *node) {
	switch n.kind {
	case boolean, number, oddNumber:
		w.fault(n, "must be a text; quote it: %q", n.text)
	default:
		w.wrong(n, "a text")
	}
}

func width(v reflect.Value) string {
	if bits := v.Type().Bits(); bits < 64 {
		return fmt.Sprintf(" of %d bits", bits)
	}
	return ""
}

func (w *walker) slice(i uint32, v reflect.Value) {
	n := w.d.nodes[i]
	if n.kind != list {
		w.wrong(&n, "a list")
		return
	}
	count := 0
	for k := i + 1; k < n.next; k = w.d.nodes[k].next {
		count++
	}
	v.Set(reflect.MakeSlice(v.Type(), count, count))
	w.path = append(w.path, step{list: true})
	for k, index := i+1, 0; k < n.next; k, index = w.d.nodes[k].next, index+1 {
		w.path[len(w.path)-1].index = index
		w.value(k, v.Index(index))
	}
	w.path = w.path[:len(w.path)-1]
}

func (w *walker) entries(i uint32, v reflect.Value) {
	n := w.d.nodes[i]
	if n.kind != object {
		w.wrong(&n, "an object")
		return
	}
	t := v.Type()
	if t.Key().Kind() != reflect.String {
		panic("strict: Decode into a " + t.String())
	}
	v.Set(reflect.MakeMap(t))
	w.path = append(w.path, step{})
	for k := i + 1; k < n.next; k = w.d.nodes[k+1].next {
		text := w.d.intern(w.d.nodes[k].text)
		w.path[len(w.path)-1].name = text
		e := reflect.New(t.Elem()).Elem()
		w.value(k+1, e)
		v.SetMapIndex(reflect.ValueOf(text).Convert(t.Key()), e)
	}
	w.path = w.path[:len(w.path)-1]
}

func (w *walker) members(i uint32, v reflect.Value) {
	n := w.d.nodes[i]
	if n.kind != object {
		w.wrong(&n, "an object")
		return
	}
	fields := w.d.structs.of(v.Type())
	w.path = append(w.path, step{})
	for k := i + 1; k < n.next; k = w.d.nodes[k+1].next {
		text := w.d.nodes[k].text
		w.path[len(w.path)-1].name = text
		index, ok := fields.index[text]
		switch {
		case ok:
			w.value(k+1, v.FieldByIndex(index))
		case w.d.IgnoreX && strings.HasPrefix(text, "x_"):
		default:
			w.fault(&w.d.nodes[k], "is not known; known here: %s", fields.names)
		}
	}
	w.path = w.path[:len(w.path)-1]
}

// intern returns a copy of text that does not keep the document alive, and
// the same copy for the same short text: a hundred thousand rows say "JOBS".
func (d *Document) intern(text string) string {
	if len(text) > 64 {
		return strings.Clone(text)
	}
	s, ok := d.interns[text]
	if !ok {
		s = strings.Clone(text)
		d.interns[s] = s
	}
	return s
}

// raw appends the value at i as JSON.
func (d *Document) raw(b []byte, i uint32) []byte {
	quote := func(text string) {
		var buf bytes.Buffer
		enc := json.NewEncoder(&buf)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(text) // a string into memory cannot fail
		b = append(b, bytes.TrimRight(buf.Bytes(), "\n")...)
	}
	n := d.nodes[i]
	switch n.kind {
	case null:
		b = append(b, "null"...)
	case boolean, number:
		b = append(b, n.text...)
	case oddNumber, str:
		quote(n.text)
	case list:
		b = append(b, '[')
		for k := i + 1; k < n.next; k = d.nodes[k].next {
			if k > i+1 {
				b = append(b, ',')
			}
			b = d.raw(b, k)
		}
		b = append(b, ']')
	case object:
		b = append(b, '{')
		for k := i + 1; k < n.next; k = d.nodes[k+1].next {
			if k > i+1 {
				b = append(b, ',')
			}
			quote(d.nodes[k].text)
			b = append(b, ':')
			b = d.raw(b, k+1)
		}
		b = append(b, '}')
	}
	return b
}

// structs remembers the members of the struct types of one document.
type structs map[reflect.Type]*members

type members struct {
	index map[string][]int
	names string
}

func (s structs) of(t reflect.Type) *members {
	m, ok := s[t]
	if !ok {
		m = &members{index: map[string][]int{}}
		m.collect(t, nil)
		s[t] = m
	}
	return m
}

func (m *members) collect(t reflect.Type, path []int) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, tagged := f.Tag.Lookup("json")
		text, _, _ := strings.Cut(tag, ",")
		index := append(append([]int(nil), path...), i)
		switch {
		case f.Anonymous && !tagged && f.Type.Kind() == reflect.Struct:
			m.collect(f.Type, index)
		case text != "" && text != "-" && f.IsExported():
			m.index[text] = index
			if m.names != "" {
				m.names += ", "
			}
			m.names += text
		}
	}
}
