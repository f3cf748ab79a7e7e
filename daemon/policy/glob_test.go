package policy

import (
	"strings"
	"testing"
	"time"
)

// matchPlainly says what a pattern means, one character at a time.
func matchPlainly(p, t []rune) bool {
	switch {
	case len(p) == 0:
		return len(t) == 0
	case p[0] == '*':
		return matchPlainly(p[1:], t) || len(t) > 0 && matchPlainly(p, t[1:])
	case len(t) == 0:
		return false
	}
	return (p[0] == '?' || p[0] == t[0]) && matchPlainly(p[1:], t[1:])
}

func TestMatch(t *testing.T) {
	alphabet := []string{"", "a", "b", "é", "*", "?"}
	var words []string
	var grow func(prefix string, n int)
	grow = func(prefix string, n int) {
		words = append(words, prefix)
		for _, a := range alphabet[1:] {
			if n > 0 {
				grow(prefix+a, n-1)
			}
		}
	}
	grow("", 4)
	compared := 0
	for _, p := range words {
		for _, s := range words[:200] {
			compared++
			if got, want := Match(p, s), matchPlainly([]rune(p), []rune(s)); got != want {
				t.Fatalf("Match(%q, %q) = %v", p, s, got)
			}
		}
	}
	t.Logf("%d pairs", compared)
}

func TestMatchIsBounded(t *testing.T) {
	pattern := strings.Repeat("*a", 127) + "b"
	text := strings.Repeat("a", MaxText)
	begin := time.Now()
	for range 20 {
		if Match(pattern, text) {
			t.Fatal("matched")
		}
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("20 matches took %v", took)
	}
}

func FuzzMatch(f *testing.F) {
	f.Add("a*b?c", "aXXbYc")
	f.Fuzz(func(t *testing.T, p, s string) {
		if len(p) > 12 || len(s) > 12 || strings.ToValidUTF8(p, "") != p || strings.ToValidUTF8(s, "") != s {
			return
		}
		if got, want := Match(p, s), matchPlainly([]rune(p), []rune(s)); got != want {
			t.Fatalf("Match(%q, %q) = %v", p, s, got)
		}
	})
}
