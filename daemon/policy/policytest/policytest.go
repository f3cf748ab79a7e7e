// Package policytest runs the shared test vectors against a policy model.
package policytest

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"batchwarden/daemon/policy"
)

// A Vector is one document, one request and the answer that is wanted.
type Vector struct {
	ID, Note    string
	Doc         json.RawMessage
	Request     json.RawMessage
	Expect      string // allow, deny, reject: the document is refused
	Description string // the vendor's message, where the denial has one
}

//go:embed testdata/policy.jsonl
var shared []byte

// Shared returns the shared vectors whose ID begins with prefix.
func Shared(prefix string) ([]Vector, error) {
	all, err := Read(shared)
	var some []Vector
	for _, v := range all {
		if strings.HasPrefix(v.ID, prefix) {
			some = append(some, v)
		}
	}
	return some, err
}

// RunShared runs the shared vectors whose ID begins with prefix.
func RunShared(t *testing.T, m policy.Model, prefix string) {
	t.Helper()
	vectors, err := Shared(prefix)
	if err != nil {
		t.Fatal(err)
	}
	Run(t, m, vectors)
}

// Request parses a request that has no fault.
func Request(t testing.TB, text string) *policy.Request {
	t.Helper()
	r, err := policy.ParseRequest([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return &r
}

// Answer is a decision as tables of tests write it: "allow OC5", "deny AU8", "invalid".
func Answer(d policy.Decision) string {
	switch {
	case d.Allowed:
		return "allow " + d.Rule
	case d.Code == policy.Invalid:
		return "invalid"
	}
	return "deny " + d.Rule
}

// Read reads a file of vectors, one JSON object per line.
func Read(data []byte) ([]Vector, error) {
	var vectors []Vector
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 16<<20)
	for n := 1; lines.Scan(); n++ {
		if len(bytes.TrimSpace(lines.Bytes())) == 0 {
			continue
		}
		var v Vector
		dec := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		dec.DisallowUnknownFields()
		if err := dec.Decode(&v); err != nil {
			return nil, fmt.Errorf("policytest: line %d: %w", n, err)
		}
		switch v.Expect {
		case "allow", "deny", "reject":
		default:
			return nil, fmt.Errorf("policytest: line %d: expect is %q", n, v.Expect)
		}
		vectors = append(vectors, v)
	}
	return vectors, lines.Err()
}

// Run checks that m answers every vector as it wants, that Explain answers
// like Decide, and that an allowed request yields a grant and a denied one none.
func Run(t *testing.T, m policy.Model, vectors []Vector) {
	if len(vectors) == 0 {
		t.Fatal("no vectors")
	}
	for _, v := range vectors {
		t.Run(v.ID, func(t *testing.T) {
			got, d, err := answer(m, v)
			if got != v.Expect {
				t.Errorf("%s: got %s (%s %s %v), want %s", v.Note, got, d.Rule, d.Reason, err, v.Expect)
			}
		})
	}
}

func answer(m policy.Model, v Vector) (string, policy.Decision, error) {
	e, err := m.Parse(v.ID+".json", v.Doc)
	if err != nil {
		return "reject", policy.Decision{}, err
	}
	r, err := policy.ParseRequest(v.Request)
	if err != nil {
		return "deny", policy.Decision{}, err // request.invalid
	}
	d := e.Decide(&r)
	explained, trace := e.Explain(&r)
	if explained.Allowed != d.Allowed || explained.Rule != d.Rule || trace == nil {
		return "two answers", d, fmt.Errorf("explained: %+v", explained)
	}
	if !d.Allowed && !strings.Contains(trace.String(), v.Description) {
		return "deny without its message", d, fmt.Errorf("%s", trace)
	}
	if _, ok := d.Grant(); ok != d.Allowed {
		return "no grant", d, nil
	}
	if d.Allowed {
		return "allow", d, nil
	}
	return "deny", d, nil
}
