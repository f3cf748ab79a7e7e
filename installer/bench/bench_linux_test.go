package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"batchwarden/installer/testbed"
)

func TestMain(m *testing.M) {
	role()
	os.Exit(testbed.Main(m))
}

func TestQuickRunMeasuresEverything(t *testing.T) {
	bed := testbed.New(t, testbed.Options{})
	var out strings.Builder
	if err := benchmark(bed, true, &out); err != nil {
		t.Fatal(err)
	}
	t.Logf("\n%s", &out)
	for _, want := range []string{"raw Unix socket round trip", "bare net/http handler", "authorize", "retrieve", "launch of /bin/true"} {
		if !regexp.MustCompile(regexp.QuoteMeta(want) + `.*\d+\.\dus`).MatchString(out.String()) {
			t.Errorf("no figure for %q", want)
		}
	}
}
