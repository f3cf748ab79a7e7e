package policytest

import (
	"strings"
	"testing"
)

func TestSharedVectors(t *testing.T) {
	for prefix, atLeast := range map[string]int{"A": 40, "S": 30, "O": 14} {
		vectors, err := Shared(prefix)
		if err != nil || len(vectors) < atLeast {
			t.Errorf("%s: %d vectors, %v", prefix, len(vectors), err)
		}
	}
}

func TestReadRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{"id":"X","expect":"perhaps"}`:             `line 1: expect is "perhaps"`,
		"\n" + `{"id":"X","expects":"allow"}`:       `line 2: json: unknown field "expects"`,
		`{"id":"X","expect":"allow"}` + "\n" + `{"`: `line 2: unexpected EOF`,
	} {
		if _, err := Read([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}
