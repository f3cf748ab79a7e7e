package admin_test

import (
	"strings"
	"testing"

	"batchwarden/vault/admin"
	"batchwarden/vault/documents"
)

// TestGeneratedPasswordsFavourNoCharacter draws many characters from an alphabet
// of 200 octets' worth of bias: 256 is 2 x 93 + 70, so without care the first 70
// characters would come half as often again as the others.
func TestGeneratedPasswordsFavourNoCharacter(t *testing.T) {
	var alphabet strings.Builder
	for c := '!'; c < '~'; c++ {
		alphabet.WriteRune(c)
	}
	count := map[byte]int{}
	const rounds = 400
	for range rounds {
		secret, err := admin.GeneratePassword(documents.MaxPassword, alphabet.String())
		must(t, err)
		for _, b := range secret {
			count[b]++
		}
	}
	mean := float64(rounds*documents.MaxPassword) / 93
	for _, c := range []byte(alphabet.String()) {
		if n := float64(count[c]); n < 0.9*mean || n > 1.1*mean { // over six times the deviation to be expected
			t.Errorf("%q came %v times, others %v on average", c, n, mean)
		}
	}
	if len(count) != 93 {
		t.Errorf("%d characters of 93", len(count))
	}
}

func TestGeneratePassword(t *testing.T) {
	a, err := admin.GeneratePassword(0, "")
	must(t, err)
	b, err := admin.GeneratePassword(0, "")
	must(t, err)
	if len(a) != admin.DefaultLength || string(a) == string(b) {
		t.Errorf("got %q and %q", a, b)
	}
	must(t, admin.CheckPassword(a))
	c, err := admin.GeneratePassword(24, admin.Digits)
	must(t, err)
	if strings.Trim(string(c), admin.Digits) != "" || len(c) != 24 {
		t.Errorf("got %q, want 24 digits", c)
	}
	all := admin.Letters + admin.Digits + admin.Symbols
	_, err = admin.GeneratePassword(20, all)
	must(t, err)
	for name, bad := range map[string]struct {
		length   int
		alphabet string
	}{
		"short": {8, ""}, "few": {30, "ab"}, "one": {1000, "a"}, "negative": {-1, ""}, "long": {1025, ""},
		"twice": {32, "abcdefgha"}, "space": {32, "abc defgh"}, "not ASCII": {32, "abcdefgé"},
	} {
		if _, err := admin.GeneratePassword(bad.length, bad.alphabet); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestCheckPassword(t *testing.T) {
	for _, good := range []string{"x", " ", "é\"\\\n", strings.Repeat("x", 1024)} {
		must(t, admin.CheckPassword([]byte(good)))
	}
	for _, bad := range []string{"", "a\x00b", "\xff\xfe", "\uFFFD", strings.Repeat("x", 1025)} {
		err := admin.CheckPassword([]byte(bad))
		want(t, err, admin.ErrInvalid)
		if err != nil && bad != "" && strings.Contains(err.Error(), bad) {
			t.Errorf("the error quotes the password: %v", err)
		}
	}
}
