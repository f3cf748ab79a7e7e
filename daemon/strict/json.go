package strict

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"path/filepath"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A cursor turns byte offsets that only grow into lines and columns.
type cursor struct {
	data      []byte
	at        int
	line, col uint32
}

func (c *cursor) advance(to int) {
	for ; c.at < to && c.at < len(c.data); c.at++ {
		switch b := c.data[c.at]; {
		case b == '\n':
			c.line, c.col = c.line+1, 1
		case utf8.RuneStart(b):
			c.col++
		}
	}
}

// blank moves over what may stand between two tokens.
func (c *cursor) blank() {
	to := c.at
	for to < len(c.data) && strings.IndexByte(" \t\r\n,:", c.data[to]) >= 0 {
		to++
	}
	c.advance(to)
}

func (d *Document) parseJSON(data []byte) bool {
	src := string(data) // texts without escapes are parts of it
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	cur := &cursor{data: data, line: 1, col: 1}
	var open []uint32 // the lists and objects around the cursor
	inName := false
	for {
		cur.blank()
		tok, err := dec.Token()
		if err != nil {
			d.brokenJSON(cur, err)
			return false
		}
		n := node{line: cur.line, col: cur.col}
		start, end := cur.at, int(dec.InputOffset())
		switch t := tok.(type) {
		case json.Delim:
			if t == ']' || t == '}' {
				d.close(open[len(open)-1])
				open = open[:len(open)-1]
				inName = len(open) > 0 && d.nodes[open[len(open)-1]].kind == object
				cur.advance(end)
				if len(open) == 0 {
					return d.nothingAfter(cur)
				}
				continue
			}
			if n.kind = list; t == '{' {
				n.kind = object
			}
			if len(open) >= MaxDepth {
				d.add(n.line, n.col, "", "is nested deeper than "+strconv.Itoa(MaxDepth))
				return false
			}
			if !d.push(n) {
				return false
			}
			open = append(open, uint32(len(d.nodes)-1))
			inName = n.kind == object
			cur.advance(end)
			continue
		case string:
			n.kind, n.text = str, t
			if raw := src[start:end]; strings.IndexByte(raw, '\\') < 0 {
				n.text = raw[1 : len(raw)-1]
			} else if text := badEscape(raw, t); text != "" {
				d.add(n.line, n.col, "", text)
			}
		case json.Number:
			n.kind, n.text = number, src[start:end]
		case bool:
			n.kind, n.text = boolean, strconv.FormatBool(t)
		case nil:
			n.kind = null
		}
		if inName {
			n.kind = name
		}
		if !d.push(n) {
			return false
		}
		cur.advance(end)
		inName = !inName && d.nodes[open[len(open)-1]].kind == object
	}
}

// badEscape says what is wrong with the escapes of a quoted text: a half
// surrogate, which encoding/json silently replaces, or a NUL.
func badEscape(raw, text string) string {
	if strings.IndexByte(text, 0) >= 0 {
		return "contains a NUL"
	}
	unit := func(i int) (uint64, bool) {
		if i+6 > len(raw) || raw[i] != '\\' || raw[i+1] != 'u' {
			return 0, false
		}
		u, err := strconv.ParseUint(raw[i+2:i+6], 16, 16)
		return u, err == nil
	}
	for i := 0; i < len(raw); i++ {
		if raw[i] != '\\' {
			continue
		}
		u, ok := unit(i)
		if !ok {
			i++ // a short escape; its second byte may be a backslash
			continue
		}
		i += 5
		if u < 0xd800 || u > 0xdfff {
			continue
		}
		low, ok := unit(i + 1)
		if u > 0xdbff || !ok || low < 0xdc00 || low > 0xdfff {
			return "contains half of a surrogate pair"
		}
		i += 6
	}
	return ""
}

func (d *Document) brokenJSON(cur *cursor, err error) {
	var syntax *json.SyntaxError
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		cur.advance(len(cur.data))
		d.add(cur.line, cur.col, "", "ends in the middle of the JSON text")
	case errors.As(err, &syntax):
		if syntax.Offset > int64(cur.at) {
			cur.advance(int(syntax.Offset) - 1)
		}
		d.add(cur.line, cur.col, "", "is not JSON: "+syntax.Error()+d.asJSON())
	default:
		d.add(cur.line, cur.col, "", "is not JSON: "+err.Error()+d.asJSON())
	}
}

// asJSON says why a file whose name promises YAML was read as JSON.
func (d *Document) asJSON() string {
	if ext := filepath.Ext(d.file); ext != ".yaml" && ext != ".yml" {
		return ""
	}
	return "; what begins with { or [ is read as JSON, not as YAML"
}

func (d *Document) nothingAfter(cur *cursor) bool {
	to := cur.at
	for to < len(cur.data) && strings.IndexByte(" \t\r\n", cur.data[to]) >= 0 {
		to++
	}
	cur.advance(to)
	if to == len(cur.data) {
		return true
	}
	d.add(cur.line, cur.col, "", "has more text after its end")
	return false
}
