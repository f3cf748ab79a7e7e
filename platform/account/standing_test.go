package account

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestStanding(t *testing.T) {
	file := filepath.Join(t.TempDir(), "shadow")
	text := `never:!:20000:0:99999:7:::
nologin:*:20000:0:99999:7:::
twice:!!:20000:0:99999:7:::
open:$6$abc$def:20000:0:99999:7:::
locked:!$6$abc$def:20000:0:99999:7:::
expired:$6$abc$def:20000:0:99999:7::1:
aged:$6$abc$def:20000:0:90:7:::
short:x
`
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]Standing{
		"never": {}, "nologin": {}, "twice": {}, "open": {},
		"locked":  {Locked: true},
		"expired": {Expires: time.Date(1970, 1, 2, 0, 0, 0, 0, time.UTC)},
		"aged":    {PasswordExpires: time.Date(2025, 1, 2, 0, 0, 0, 0, time.UTC)},
	} {
		if got, err := shadowLine(file, name); err != nil || got != want {
			t.Errorf("%s: got %+v, %v; want %+v", name, got, err, want)
		}
	}
	for _, name := range []string{"short", "nobody", ""} {
		if _, err := shadowLine(file, name); !errors.Is(err, ErrMissing) {
			t.Errorf("%q: got %v, want that it is missing", name, err)
		}
	}
}
