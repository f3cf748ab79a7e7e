package main

import (
	"regexp"
	"strings"
	"testing"

	"batchwarden/installer/testbed"
)

func TestQuickRunMeasuresLaunches(t *testing.T) {
	var out strings.Builder
	found, err := measureLaunches(testbed.New(t, testbed.Options{}), true, &out)
	_ = found.print(&out) // a few say nothing about speed
	t.Logf("\n%s", &out)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"posix_spawn", "launch of /bin/true", "exec from Go", "setpriv", "runuser"} {
		if !regexp.MustCompile(regexp.QuoteMeta(want) + `.*\d+\.\dus`).MatchString(out.String()) {
			t.Errorf("no figure for %q", want)
		}
	}
	if want := 5; len(found.list)+len(found.left) != want {
		t.Errorf("%d bounds, want %d", len(found.list)+len(found.left), want)
	}
}
