package strict

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// A Duration is written as Go writes it: "30s", "15m", "72h", "1h30m".
// It is never negative.
type Duration time.Duration

func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%s is not a time such as 30s, 15m or 72h", shown(string(text)))
	}
	if v < 0 {
		return fmt.Errorf("%s is negative", shown(string(text)))
	}
	*d = Duration(v)
	return nil
}

func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// String writes whole hours and minutes without the zeros that
// time.Duration appends: "72h", not "72h0m0s".
func (d Duration) String() string {
	s := time.Duration(d).String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

// A Size is a number of bytes: "1048576", "64KiB", "64MiB", "1GiB", "2TiB".
type Size int64

var units = [...]string{"B", "KiB", "MiB", "GiB", "TiB"}

func (s *Size) UnmarshalText(text []byte) error {
	digits := strings.TrimRight(string(text), "BKMGTi")
	unit := string(text)[len(digits):]
	if unit == "" {
		unit = "B"
	}
	factor := int64(1)
	for _, u := range units {
		if u != unit {
			factor <<= 10
			continue
		}
		n, err := strconv.ParseUint(digits, 10, 63)
		if err != nil || int64(n) > math.MaxInt64/factor {
			break
		}
		*s = Size(int64(n) * factor)
		return nil
	}
	return fmt.Errorf("%s is not a size such as 512KiB, 64MiB or 1GiB", shown(string(text)))
}

func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// String writes the size in the largest unit that needs no fraction.
func (s Size) String() string {
	n, u := int64(s), 0
	for n != 0 && n%1024 == 0 && u < len(units)-1 {
		n, u = n/1024, u+1
	}
	if u == 0 {
		return strconv.FormatInt(n, 10)
	}
	return strconv.FormatInt(n, 10) + units[u]
}

// shown quotes a text for a message and keeps the message short.
func shown(text string) string {
	if r := []rune(text); len(r) > 60 {
		text = string(r[:60]) + "…"
	}
	return strconv.Quote(text)
}
