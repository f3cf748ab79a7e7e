package policy

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
)

// written writes a value as somebody might: with blanks of any sort.
func written(rnd *rand.Rand, v any) string {
	gap := func() string { return []string{"", "", " ", "\n  ", "\t", "\r\n"}[rnd.IntN(6)] }
	var b strings.Builder
	b.WriteString(gap())
	switch v := v.(type) {
	case []any:
		b.WriteString("[" + gap())
		for i, e := range v {
			if i > 0 {
				b.WriteString(",")
			}
			b.WriteString(written(rnd, e))
		}
		b.WriteString("]")
	case map[string]any:
		b.WriteString("{" + gap())
		first := true
		for name, e := range v {
			if !first {
				b.WriteString("," + gap())
			}
			first = false
			text, _ := json.Marshal(name)
			b.WriteString(string(text) + gap() + ":" + written(rnd, e))
		}
		b.WriteString("}")
	default:
		text, _ := json.Marshal(v)
		b.Write(text)
	}
	return b.String() + gap()
}

// odd are names and texts that look like something else.
var odd = []string{"a", "b", `"`, `\`, `]},`, "é€", "x y", `\"`, "{[", ":", "", "<&>"}

func randomValue(rnd *rand.Rand, depth int) any {
	switch n := rnd.IntN(8); {
	case n < 2 && depth > 0:
		list := []any{}
		for range rnd.IntN(4) {
			list = append(list, randomValue(rnd, depth-1))
		}
		return list
	case n < 5 && depth > 0:
		return randomObject(rnd, depth-1)
	case n == 5:
		return float64(rnd.IntN(5)) - 2.5e10
	case n == 6:
		return rnd.IntN(2) == 0
	}
	return odd[rnd.IntN(len(odd))]
}

func randomObject(rnd *rand.Rand, depth int) map[string]any {
	o := map[string]any{}
	for range rnd.IntN(4) {
		o[odd[rnd.IntN(len(odd))]] = randomValue(rnd, depth)
	}
	return o
}

// edited does plainly what a Text does; it reports whether it can be done.
func edited(v any, path []any, do func(old any, is bool) (any, bool, bool)) (any, bool) {
	if len(path) == 0 {
		now, keep, ok := do(v, true)
		return now, keep && ok
	}
	switch v := v.(type) {
	case map[string]any:
		name, is := path[0].(string)
		if !is {
			return v, false
		}
		if len(path) == 1 {
			old, has := v[name]
			now, keep, ok := do(old, has)
			if !ok {
				return v, false
			}
			if delete(v, name); keep {
				v[name] = now
			}
			return v, true
		}
		if _, has := v[name]; !has {
			now, ok := edited(map[string]any{}, path[1:], do)
			if ok && len(now.(map[string]any)) > 0 {
				v[name] = now
			}
			return v, ok
		}
		now, ok := edited(v[name], path[1:], do)
		v[name] = now
		return v, ok
	case []any:
		i, is := path[0].(int)
		if !is || i >= len(v) {
			return v, false
		}
		if len(path) > 1 {
			now, ok := edited(v[i], path[1:], do)
			v[i] = now
			return v, ok
		}
		now, keep, ok := do(v[i], true)
		if !ok {
			return v, false
		}
		if !keep {
			return append(v[:i:i], v[i+1:]...), true
		}
		v[i] = now
		return v, true
	}
	return v, false
}

// TestTextAgainstValues: an edit of a text gives the value that the same edit of its value gives, and all
// other octets stay.
func TestTextAgainstValues(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	done := map[string]int{}
	for range 40000 {
		value := randomObject(rnd, 4)
		text := written(rnd, value)
		var path []any
		for range 1 + rnd.IntN(4) {
			if rnd.IntN(4) == 0 {
				path = append(path, rnd.IntN(3))
			} else {
				path = append(path, odd[rnd.IntN(len(odd))])
			}
		}
		put := randomValue(rnd, 1)
		edit, do := "set", func(any, bool) (any, bool, bool) { return put, true, true }
		change := func(x *Text) error { return x.Set(put, path...) }
		switch rnd.IntN(3) {
		case 0:
			edit, do = "remove", func(_ any, is bool) (any, bool, bool) { return nil, false, is }
			change = func(x *Text) error { return x.Remove(path...) }
		case 1:
			edit, do = "append", func(old any, is bool) (any, bool, bool) {
				list, ok := old.([]any)
				return append(list[:len(list):len(list)], put), true, ok || !is
			}
			change = func(x *Text) error { return x.Append(put, path...) }
		}
		x := NewText([]byte(text))
		err := change(x)
		want, ok := edited(any(value), path, do)
		if ok != (err == nil) {
			t.Fatalf("%s\n%s %q %v: got %v, want ok %v", text, edit, path, put, err, ok)
		}
		if !ok {
			if string(x.Bytes()) != text {
				t.Fatalf("%s\n%s %q failed and left %s", text, edit, path, x.Bytes())
			}
			continue
		}
		done[edit]++
		var got any
		if err := json.Unmarshal(x.Bytes(), &got); err != nil || !reflect.DeepEqual(got, want) {
			t.Fatalf("%s\n%s %q %v:\n%s\ngot %v, want %v (%v)", text, edit, path, put, x.Bytes(), got, want, err)
		}
		if !oneChange([]byte(text), x.Bytes(), edit) {
			t.Fatalf("%s\n%s %q %v changed more than it had to:\n%s", text, edit, path, put, x.Bytes())
		}
	}
	for edit, n := range done {
		if n < 200 {
			t.Errorf("%s was done %d times only", edit, n)
		}
	}
}

// oneChange reports that one stretch of the text was put in, or taken out, and nothing else.
func oneChange(before, after []byte, edit string) bool {
	head := 0
	for head < min(len(before), len(after)) && before[head] == after[head] {
		head++
	}
	tail := 0
	for tail < min(len(before), len(after))-head && before[len(before)-1-tail] == after[len(after)-1-tail] {
		tail++
	}
	switch edit {
	case "append":
		return head+tail == len(before)
	case "remove":
		return head+tail == len(after)
	}
	return true
}

// TestTextLooksLikeItsNeighbours: what is added is indented like what is there.
func TestTextLooksLikeItsNeighbours(t *testing.T) {
	const before = `{
  "x_note": "kept  as it is",
  "roles": {
    "a": {"batch_users": {"unix": ["u/a"]}}
  },
  "list": [
    1,
    2
  ]
}
`
	const after = `{
  "x_note": "kept  as it is",
  "roles": {
    "a": {"batch_users": {"unix": ["u/a","u/b"]}},
    "b": {"batch_users":["<"]}
  },
  "list": [
    1,
    2,
    3
  ]
}
`
	x := NewText([]byte(before))
	for _, err := range []error{x.Append("u/b", "roles", "a", "batch_users", "unix"), x.Append("<", "roles", "b", "batch_users"), x.Append(3, "list")} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := string(x.Bytes()); got != after {
		t.Errorf("got %s", got)
	}
	for _, err := range []error{x.Remove("roles", "b"), x.Remove("list", 2), x.Remove("roles", "a", "batch_users", "unix", 1)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := string(x.Bytes()); got != before {
		t.Errorf("taken out again: got %s", got)
	}
}

// TestTextThatIsNone: what is not JSON is never changed, and does not end in a panic.
func TestTextThatIsNone(t *testing.T) {
	for _, text := range []string{"", " ", "{", "[", `{"a"`, `{"a":`, `{"a":[`, `{"a":"`, `{"a":"\`, "]", `{"a":}`, `{:1}`, `{"a" 1}`, "1", `"a"`, "null", `{"a":[1,}`} {
		x := NewText([]byte(text))
		for _, err := range []error{x.Append(1, "b", "c"), x.Remove("b")} {
			if err != nil && !bytes.Equal(x.Bytes(), []byte(text)) {
				t.Errorf("%q: %v, and left %q", text, err, x.Bytes())
			}
		}
	}
}
