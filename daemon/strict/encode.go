package strict

import (
	"bytes"
	"encoding/json"
)

// JSON writes the document as compact JSON, its members in the order in which
// they stand. Parse gives the same values for it. A YAML number that JSON would
// not write so becomes a text.
func (d *Document) JSON() []byte {
	var b bytes.Buffer
	if len(d.nodes) > 0 {
		d.encode(&b, 0)
	}
	return b.Bytes()
}

func (d *Document) encode(b *bytes.Buffer, i uint32) {
	switch n := &d.nodes[i]; n.kind {
	case list:
		b.WriteByte('[')
		for k := i + 1; k < n.next; k = d.nodes[k].next {
			if k > i+1 {
				b.WriteByte(',')
			}
			d.encode(b, k)
		}
		b.WriteByte(']')
	case object:
		b.WriteByte('{')
		for k := i + 1; k < n.next; k = d.nodes[k+1].next {
			if k > i+1 {
				b.WriteByte(',')
			}
			encodeText(b, d.nodes[k].text)
			b.WriteByte(':')
			d.encode(b, k+1)
		}
		b.WriteByte('}')
	case number, boolean:
		b.WriteString(n.text)
	case null:
		b.WriteString("null")
	default:
		encodeText(b, n.text)
	}
}

func encodeText(b *bytes.Buffer, text string) {
	e := json.NewEncoder(b)
	e.SetEscapeHTML(false)
	if err := e.Encode(text); err != nil {
		panic("strict: " + err.Error()) // a text does not fail
	}
	b.Truncate(b.Len() - 1) // the line end
}
