package boottime

import (
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestNowIsTheMachinesUptime(t *testing.T) {
	before, err := Now()
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile("/proc/uptime")
	if err != nil {
		t.Fatal(err)
	}
	seconds, err := strconv.ParseFloat(strings.Fields(string(text))[0], 64)
	if err != nil {
		t.Fatal(err)
	}
	after, err := Now()
	if err != nil {
		t.Fatal(err)
	}
	up := time.Duration(seconds * float64(time.Second))
	if tick := 10 * time.Millisecond; up < before-tick || up > after+tick {
		t.Errorf("the machine is up for %v, Now says %v to %v", up, before, after)
	}
	if after < before {
		t.Errorf("%v, then %v", before, after)
	}
}

func TestBootNamesTheStart(t *testing.T) {
	if first, second := Boot(), Boot(); len(first) != 36 || first != second {
		t.Errorf("got %q, then %q, want the same name twice", first, second)
	}
}
