package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// What a request may have at most.
const (
	MaxRequest = 64 << 10 // bytes of JSON
	MaxText    = 4 << 10  // bytes of one text
	MaxList    = 1000     // elements of one list
)

// ParseRequest reads {"subject":{…},"action":"…","object":{…}}. The error is
// an *InvalidError that names the first member at fault: unknown, given
// twice, of the wrong type, too long, or missing. A member that the action
// does not list is the engine's to find.
func ParseRequest(data []byte) (Request, error) {
	var r Request
	given, err := parse(data, func(p *reader) (given []string) {
		return p.object("", []string{"subject", "action", "object"}, func(name string) {
			switch name {
			case "subject":
				r.Subject = p.subject(name)
			case "action":
				r.Action = p.text(name)
			case "object":
				r.Object = p.members(name)
			}
		})
	})
	if err != nil {
		return Request{}, err
	}
	for _, name := range []string{"subject", "action"} {
		if !slices.Contains(given, name) {
			return Request{}, &InvalidError{name, "is required"}
		}
	}
	return r, nil
}

// NewRequest makes the request that ParseRequest reads of a JSON text with
// these members. An empty object is the one without members.
func NewRequest(s Subject, action string, object []byte) (r Request, err error) {
	p := reader{}
	p.checked("subject.user", s.User)
	if len(s.Roles) > MaxList {
		p.fail("subject.roles", "has more than %d elements", MaxList)
	}
	for i, role := range s.Roles {
		p.checked("subject.roles["+strconv.Itoa(i)+"]", role)
	}
	p.checked("subject.by", s.By)
	p.checked("action", action)
	if p.err != nil {
		return Request{}, p.err
	}
	if len(object) > 0 {
		if r.Object, err = ParseObject(object); err != nil {
			return Request{}, err
		}
	}
	r.Subject, r.Action = s, action
	return r, nil
}

// ParseSubject reads the subject alone.
func ParseSubject(data []byte) (Subject, error) {
	return parse(data, func(p *reader) Subject { return p.subject("subject") })
}

// ParseObject reads the object alone.
func ParseObject(data []byte) (Object, error) {
	return parse(data, func(p *reader) Object { return p.members("object") })
}

func parse[T any](data []byte, read func(*reader) T) (v T, err error) {
	if len(data) > MaxRequest {
		return v, &InvalidError{"", fmt.Sprintf("is %d bytes, at most %d", len(data), MaxRequest)}
	}
	if !utf8.Valid(data) {
		return v, &InvalidError{"", "is not valid UTF-8"}
	}
	p := &reader{dec: json.NewDecoder(bytes.NewReader(data))}
	p.dec.UseNumber()
	got := read(p)
	if p.err == nil {
		if _, err := p.dec.Token(); err != io.EOF {
			p.fail("", "has more text after its end")
		}
	}
	if p.err != nil {
		return v, p.err
	}
	return got, nil
}

// A reader reads one request. After the first fault it reads nothing more.
type reader struct {
	dec *json.Decoder
	err error
}

func (p *reader) fail(field, format string, args ...any) {
	if p.err == nil {
		p.err = &InvalidError{field, fmt.Sprintf(format, args...)}
	}
}

// token returns the next token, or nil after a fault.
func (p *reader) token(field string) json.Token {
	if p.err != nil {
		return nil
	}
	t, err := p.dec.Token()
	if err != nil {
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			p.fail("", "ends in the middle of its JSON text")
		} else {
			p.fail(field, "is not JSON: %v", err)
		}
		return nil
	}
	return t
}

// object reads an object whose members read understands, and returns which there were.
func (p *reader) object(field string, known []string, read func(name string)) (given []string) {
	if t := p.token(field); t != json.Delim('{') {
		p.fail(field, "must be an object")
		return nil
	}
	for p.err == nil && p.dec.More() {
		name, _ := p.token(field).(string)
		path := name
		if field != "" {
			path = field + "." + name
		}
		switch {
		case p.err != nil:
		case !slices.Contains(known, name):
			p.fail(shortened(path), "is not known; known here: %s", strings.Join(known, ", "))
		case slices.Contains(given, name):
			p.fail(path, "is there twice")
		default:
			given = append(given, name)
			read(name)
		}
	}
	p.token(field)
	return given
}

func (p *reader) list(field string, read func(field string)) {
	if t := p.token(field); t != json.Delim('[') {
		p.fail(field, "must be a list")
		return
	}
	for i := 0; p.err == nil && p.dec.More(); i++ {
		if i == MaxList {
			p.fail(field, "has more than %d elements", MaxList)
			return
		}
		read(field + "[" + strconv.Itoa(i) + "]")
	}
	p.token(field)
}

func (p *reader) text(field string) string {
	s, ok := p.token(field).(string)
	if !ok {
		p.fail(field, "must be a text")
		return s
	}
	return p.checked(field, s)
}

// checked is a text that a request may have.
func (p *reader) checked(field, s string) string {
	switch {
	case len(s) > MaxText:
		p.fail(field, "is %d bytes, at most %d", len(s), MaxText)
	case strings.IndexByte(s, 0) >= 0:
		p.fail(field, "contains a NUL")
	case strings.ContainsRune(s, utf8.RuneError):
		// encoding/json puts U+FFFD in the place of half a surrogate pair:
		// two different names would become one.
		p.fail(field, "contains the replacement character U+FFFD or half of a surrogate pair")
	}
	return s
}

func (p *reader) texts(field string) []string {
	list := []string{}
	p.list(field, func(field string) { list = append(list, p.text(field)) })
	return list
}

func (p *reader) subject(field string) (s Subject) {
	p.object(field, []string{"user", "roles", "by"}, func(name string) {
		switch field := field + "." + name; name {
		case "user":
			s.User = p.text(field)
		case "roles":
			s.Roles = p.texts(field)
		case "by":
			s.By = p.text(field)
		}
	})
	return s
}

func (p *reader) members(field string) (o Object) {
	p.object(field, memberNames[:], func(name string) {
		m := Members(1) << slices.Index(memberNames[:], name)
		o.Given |= m
		field := field + "." + name
		typed := m&(MemberConnections|MemberRecord) != 0
		switch v := o.member(m).(type) {
		case *string:
			*v = p.text(field)
		case *[]string:
			*v = p.texts(field)
		case *Record:
			*v = p.record(field, typed)
		case *[]Record:
			*v = []Record{}
			p.list(field, func(field string) { *v = append(*v, p.record(field, typed)) })
		case *int:
			n, err := strconv.Atoi(p.number(field))
			if err != nil || n < 0 || n > math.MaxInt32 {
				p.fail(field, "must be a whole number, not negative")
			}
			*v = n
		}
	})
	return o
}

func (p *reader) number(field string) string {
	n, _ := p.token(field).(json.Number)
	return n.String()
}

func (p *reader) record(field string, typed bool) (r Record) {
	known := []string{"name", "services", "type"}
	if !typed {
		known = known[:2]
	}
	given := p.object(field, known, func(name string) {
		switch field := field + "." + name; name {
		case "name":
			r.Name = p.text(field)
		case "services":
			r.Services = p.texts(field) // an empty list says "none", which is not the same as saying nothing
		case "type":
			r.Type = p.text(field)
		}
	})
	for _, name := range []string{"name", "type"} {
		if slices.Contains(known, name) && !slices.Contains(given, name) {
			p.fail(field+"."+name, "is required")
		}
	}
	return r
}

// shortened cuts what a hostile request may make long before it gets into a message.
func shortened(s string) string {
	if r := []rune(s); len(r) > 100 {
		return string(r[:100]) + "…"
	}
	return s
}

func quoted(s string) string { return strconv.Quote(shortened(s)) }
