package documents

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"

	"batchwarden/platform/secret"
)

const (
	maxDepth = 16   // of what a batch user's document nests; the contract's needs three
	maxText  = 256  // octets of a name of an account and the like
	maxLong  = 1024 // of what a realm calls something
	maxList  = 1000 // members or elements of any one map or list
)

// object is a JSON object in which no member comes twice. Values are string,
// bool, json.Number, nil, []any and object.
type object map[string]any

// parseObject reads one object and nothing after it. Its errors quote nothing
// but names of members: a value may be a password.
func parseObject(text []byte) (object, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	v, err := parseValue(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); err != io.EOF {
		return nil, errors.New("something follows the document")
	}
	o, ok := v.(object)
	if !ok {
		return nil, errors.New("the document is no object")
	}
	return o, nil
}

func parseValue(d *json.Decoder, depth int) (any, error) {
	t, err := d.Token()
	if err != nil {
		return nil, fmt.Errorf("not JSON at octet %d", d.InputOffset())
	}
	if depth > maxDepth {
		return nil, fmt.Errorf("nested deeper than %d", maxDepth)
	}
	switch t {
	case json.Delim('{'):
		o := object{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, fmt.Errorf("not JSON at octet %d", d.InputOffset())
			}
			name, _ := key.(string) // the decoder lets nothing else be a name
			if _, twice := o[name]; twice {
				return nil, fmt.Errorf("%.100q comes twice", name)
			}
			if o[name], err = parseValue(d, depth+1); err != nil {
				return nil, err
			}
		}
		_, err := d.Token()
		return o, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := parseValue(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err := d.Token()
		return list, err
	}
	return t, nil
}

// fields takes members out of an object, and notes what is wrong with them.
type fields struct {
	secret.Mute
	place  string // "names."
	o      object
	faults *[]string
	taken  map[string]bool
}

func newFields(o object) *fields {
	return &fields{o: o, faults: new([]string), taken: map[string]bool{}}
}

func (f *fields) fault(name, format string, args ...any) {
	*f.faults = append(*f.faults, shown(f.place+name)+": "+fmt.Sprintf(format, args...))
}

// shown is a name as a terminal and a log can show it.
func shown(name string) string {
	quoted := fmt.Sprintf("%.100q", name)
	return quoted[1 : len(quoted)-1]
}

// err is all faults, after every member that nobody took was found to be one.
func (f *fields) err() error {
	f.rest()
	if len(*f.faults) == 0 {
		return nil
	}
	slices.Sort(*f.faults)
	return errors.New(strings.Join(*f.faults, "; "))
}

func (f *fields) rest() {
	for name := range f.o {
		if !f.taken[name] && !ignored(name) {
			f.fault(name, "unknown member")
		}
	}
}

// ignored reports a member that is other people's business.
func ignored(name string) bool { return strings.HasPrefix(name, "x_") }

func (f *fields) take(name string) (any, bool) {
	f.taken[name] = true
	v, ok := f.o[name]
	return v, ok
}

// text takes a string of at most most octets that a terminal and a log can show.
func (f *fields) text(name string, most int) string {
	v, ok := f.take(name)
	if !ok {
		return ""
	}
	return f.checked(name, v, most)
}

func (f *fields) checked(name string, v any, most int) string {
	s, ok := v.(string)
	switch {
	case !ok:
		f.fault(name, "must be a string")
	case len(s) > most:
		f.fault(name, "longer than %d octets", most)
	case strings.ContainsFunc(s, unicode.IsControl):
		f.fault(name, "contains a control character")
	default:
		return s
	}
	return ""
}

func (f *fields) word(name, usual string, known ...string) string {
	s := f.text(name, 64)
	if s == "" {
		return usual
	}
	if !slices.Contains(known, s) {
		f.fault(name, "must be one of %s", strings.Join(known, ", "))
	}
	return s
}

func (f *fields) flag(name string, usual bool) bool {
	v, ok := f.take(name)
	if !ok {
		return usual
	}
	b, ok := v.(bool)
	if !ok {
		f.fault(name, "must be true or false")
	}
	return b
}

// format takes the document's format, which is 1 when it does not say.
func (f *fields) format() int64 {
	v, ok := f.take("format")
	if !ok {
		return 1
	}
	n, _ := v.(json.Number) // anything else is no number below
	i, err := n.Int64()
	if err != nil || i < 1 {
		f.fault("format", "must be a number from 1")
		return 1
	}
	return i
}

func (f *fields) duration(name string) time.Duration {
	s := f.text(name, 64)
	if s == "" {
		return 0
	}
	d, err := time.ParseDuration(s)
	if err != nil || d <= 0 {
		f.fault(name, "must be a duration like 72h")
	}
	return d
}

func (f *fields) moment(name string) time.Time {
	s := f.text(name, 64)
	if s == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		f.fault(name, "must be a time like 2027-01-01T00:00:00Z")
	}
	return t.UTC()
}

// inner takes an object whose members the caller takes in turn; nil when there is none.
func (f *fields) inner(name string) *fields {
	v, ok := f.take(name)
	if !ok {
		return nil
	}
	o, ok := v.(object)
	if !ok {
		f.fault(name, "must be an object")
		return nil
	}
	return &fields{place: f.place + name + ".", o: o, faults: f.faults, taken: map[string]bool{}}
}

// texts takes an object of strings. Empty ones count as not given.
func (f *fields) texts(name string) map[string]string {
	in := f.inner(name)
	if in == nil {
		return nil
	}
	if len(in.o) > maxList {
		f.fault(name, "more than %d members", maxList)
		return nil
	}
	m := map[string]string{}
	for key := range in.o {
		if ignored(key) {
			continue
		}
		if s := in.text(key, maxLong); s != "" {
			m[key] = s
		}
	}
	return m
}

// lists takes an object of lists of strings.
func (f *fields) lists(name string) map[string][]string {
	in := f.inner(name)
	if in == nil {
		return nil
	}
	if len(in.o) > maxList {
		f.fault(name, "more than %d members", maxList)
		return nil
	}
	m := map[string][]string{}
	for key := range in.o {
		if ignored(key) {
			continue
		}
		v, _ := in.take(key)
		list, ok := v.([]any)
		if !ok || len(list) > maxList {
			in.fault(key, "must be a list of at most %d strings", maxList)
			continue
		}
		m[key] = []string{}
		for _, e := range list {
			m[key] = append(m[key], in.checked(key, e, maxLong))
		}
	}
	return m
}
