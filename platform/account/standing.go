package account

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"
)

// Standing is how an account stands by the system's own shadow file: whether it may be used, not who it is.
type Standing struct {
	// Locked says that somebody put a "!" before the password. An account that never had one is not locked.
	Locked bool
	// Expires is the first day on which the account itself cannot be used any more; zero: it stays.
	Expires time.Time
	// PasswordExpires is the day after which the password has to be changed; zero: it need not be.
	PasswordExpires time.Time
}

// StandingOf reads the standing of the account of that name, which needs root. ErrMissing reports that the shadow file
// does not have it: whoever keeps the account keeps its standing. An error wraps errors.ErrUnsupported where there is no
// such file.
func StandingOf(name string) (Standing, error) {
	s, err := standingOf(name)
	if err != nil {
		return Standing{}, fmt.Errorf("account: standing of %q: %w", name, err)
	}
	return s, nil
}

// shadowLine finds the account's line in a shadow file. Lines of others, which have secrets too, are not kept.
func shadowLine(path, name string) (Standing, error) {
	f, err := os.Open(path)
	if err != nil {
		return Standing{}, err
	}
	defer f.Close() // only read
	text, err := io.ReadAll(io.LimitReader(f, 64<<20))
	defer clear(text)
	if err != nil {
		return Standing{}, err
	}
	for line := range bytes.Lines(text) {
		if fields := bytes.Split(bytes.TrimSuffix(line, []byte("\n")), []byte(":")); len(fields) >= 8 && string(fields[0]) == name {
			return standing(fields), nil
		}
	}
	return Standing{}, ErrMissing
}

// standing reads the fields of a line: name, password, last change, minimum, maximum, warning, inactive, expiry.
func standing(fields [][]byte) (s Standing) {
	rest := bytes.TrimLeft(fields[1], "!")
	s.Locked = len(rest) < len(fields[1]) && len(rest) > 0 && !bytes.Equal(rest, []byte("*"))
	if expiry, ok := days(fields[7]); ok {
		s.Expires = day(expiry)
	}
	changed, ok := days(fields[2])
	most, ok2 := days(fields[4])
	if ok && ok2 && most < 99999 { // which by custom means never
		s.PasswordExpires = day(changed + most)
	}
	return s
}

func days(field []byte) (int64, bool) {
	n, err := strconv.ParseInt(string(field), 10, 32)
	return n, err == nil && n >= 0
}

func day(n int64) time.Time { return time.Unix(n*24*60*60, 0).UTC() }
