package policy

import "unicode/utf8"

// Match reports whether all of text matches pattern, in which '?' is exactly
// one character, '*' any number of them including none, and everything else
// itself. Neither stops at a separator and nothing escapes them. It compares
// at most len(pattern)*len(text) characters, whatever the pattern is.
func Match(pattern, text string) bool {
	p, t := 0, 0
	star, mark := -1, 0 // behind the last '*', and where its rest was tried
	for t < len(text) {
		if p < len(pattern) && pattern[p] == '*' {
			p++
			star, mark = p, t
			continue
		}
		if p < len(pattern) && pattern[p] == '?' {
			p++
			t += width(text, t)
			continue
		}
		if p < len(pattern) && pattern[p] == text[t] {
			p, t = p+1, t+1
			continue
		}
		if star < 0 {
			return false
		}
		mark += width(text, mark)
		p, t = star, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// width is the length of the character that begins at s[i].
func width(s string, i int) int {
	if s[i] < utf8.RuneSelf {
		return 1
	}
	_, n := utf8.DecodeRuneInString(s[i:])
	return n
}
