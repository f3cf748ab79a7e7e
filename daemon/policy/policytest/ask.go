package policytest

import (
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"testing"

	"batchwarden/daemon/policy"
)

// Ask checks the requests that m makes out of two documents: the same ones
// each time, all valid, at most limit. It returns those that the documents
// decide differently, each decided a second time by engines of their own.
func Ask(t *testing.T, m policy.Model, before, after []byte, limit int) (changes []policy.Change, asked policy.Questions) {
	t.Helper()
	a, b := Compile(t, m, before), Compile(t, m, after)
	asked = m.(policy.Asker).Ask(a, b, limit)
	if again := m.(policy.Asker).Ask(Compile(t, m, before), Compile(t, m, after), limit); !reflect.DeepEqual(asked, again) {
		t.Fatalf("other requests the second time")
	}
	if len(asked.Requests) > limit {
		t.Fatalf("%d requests, at most %d", len(asked.Requests), limit)
	}
	for i := range asked.Requests {
		c := policy.Compare(a, b, &asked.Requests[i])
		text, err := json.Marshal(&c.Request)
		if err != nil {
			t.Fatal(err)
		}
		r, err := policy.ParseRequest(text)
		if err != nil || c.Old.Code == policy.Invalid || c.New.Code == policy.Invalid {
			t.Fatalf("%s is not valid: %v %s %s", text, err, c.Old.Reason, c.New.Reason)
		}
		kind := c.Kind()
		if kind == "" || kind == policy.Wording {
			continue
		}
		if again := policy.Compare(Compile(t, m, before), Compile(t, m, after), &r); again.Kind() != kind {
			t.Fatalf("%s: first %s, then %s", text, kind, again.Kind())
		}
		changes = append(changes, c)
	}
	return changes, asked
}

// Compile compiles a document that has no fault.
func Compile(t *testing.T, m policy.Model, doc []byte) policy.Engine {
	t.Helper()
	e, err := m.Parse("d", doc)
	if err != nil {
		t.Fatalf("%s\n%v", doc, err)
	}
	return e
}

// Without returns the documents that have one element less in one of doc's
// lists, or one access list less, and are not refused. Doc is JSON.
func Without(t *testing.T, m policy.Model, doc []byte) [][]byte {
	t.Helper()
	var all [][]byte
	for n := 0; ; n++ {
		var v any
		if err := json.Unmarshal(doc, &v); err != nil {
			t.Fatal(err)
		}
		left := n
		if v = remove(v, "", &left); left >= 0 {
			return all
		}
		text, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := m.Parse("d", text); err == nil {
			all = append(all, text)
		}
	}
}

// remove removes the element before which *n others are passed; *n is
// negative when that was done.
func remove(v any, name string, n *int) any {
	switch v := v.(type) {
	case []any:
		for i := range v {
			if *n--; *n < 0 {
				return slices.Delete(slices.Clone(v), i, i+1)
			}
			if v[i] = remove(v[i], "", n); *n < 0 {
				return v
			}
		}
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if *n--; name == "objects" && *n < 0 {
				delete(v, key)
				return v
			} else if name != "objects" {
				*n++
			}
			if v[key] = remove(v[key], key, n); *n < 0 {
				return v
			}
		}
	}
	return v
}

// A Losing is what Removals takes things out of.
type Losing struct {
	Documents int                   // how many
	Doc       func() any            // the next one, to be written as JSON
	Request   func() policy.Request // the next one; 300 are asked of each document
	Limit     int                   // of the requests that the model makes
	Step      int                   // every step-th thing is taken out
	Least     int                   // how many of all these have to change an answer
}

// Removals takes one thing after another out of documents. Where that changes
// the answer to one of the requests, those that the model makes out of both
// documents must find a change; out of a document and itself none.
func Removals(t *testing.T, m policy.Model, l Losing) {
	t.Helper()
	found, without := 0, 0
	for range l.Documents {
		doc, err := json.Marshal(l.Doc())
		if err != nil {
			t.Fatal(err)
		}
		var requests []policy.Request
		for range 300 {
			requests = append(requests, l.Request())
		}
		f, w := removals(t, m, doc, requests, l.Limit, l.Step)
		found, without = found+f, without+w
	}
	t.Logf("%d removals change an answer, %d do not", found, without)
	if found < l.Least {
		t.Error("too few removals change anything")
	}
}

// removals says of one document how many change an answer and how many do not.
func removals(t *testing.T, m policy.Model, doc []byte, requests []policy.Request, limit, step int) (found, without int) {
	t.Helper()
	if changes, _ := Ask(t, m, doc, doc, limit); len(changes) > 0 {
		t.Fatalf("%s\ndiffers from itself", doc)
	}
	before := Compile(t, m, doc)
	requests = append(requests, m.(policy.Asker).Ask(before, before, limit).Requests...)
	for i, less := range Without(t, m, doc) {
		if i%step != 0 {
			continue
		}
		after := Compile(t, m, less)
		var seen *policy.Change
		for i := range requests {
			if c := policy.Compare(before, after, &requests[i]); c.Kind() != "" && c.Kind() != policy.Wording && c.Old.Code != policy.Invalid {
				seen = &c
				break
			}
		}
		if seen == nil {
			without++
			continue
		}
		found++
		asker := m.(policy.Asker)
		if q := asker.Ask(before, after, limit); !slices.ContainsFunc(q.Requests, func(r policy.Request) bool {
			c := policy.Compare(before, after, &r)
			return c.Kind() != "" && c.Kind() != policy.Wording
		}) {
			text, _ := json.Marshal(&seen.Request)
			t.Errorf("%s\n%s\n%s %s: none of %d requests shows it (%q)", doc, less, seen.Kind(), text, len(q.Requests), q.Cut)
		}
	}
	return found, without
}
