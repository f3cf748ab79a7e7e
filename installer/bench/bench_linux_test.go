package main

import (
	"errors"
	"io"
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

func TestQuickRunMeasuresEveryBound(t *testing.T) {
	found, err := measureMany(testbed.New(t, manyOptions()), 100)
	var out strings.Builder
	_ = found.print(&out) // 100 say nothing about speed
	t.Logf("\n%s", &out)
	if err != nil {
		t.Fatal(err)
	}
	if want := 10; len(found.list)+len(found.left) != want {
		t.Errorf("%d figures, want %d", len(found.list)+len(found.left), want)
	}
}

func TestQuickRunMeasuresCalls(t *testing.T) {
	options, err := callsOptions()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	found, err := measureCalls(testbed.New(t, options), quickEffort, &out)
	_ = found.print(&out) // so few say nothing about speed
	t.Logf("\n%s", &out)
	if err != nil {
		t.Fatal(err)
	}
	if want := 18; len(found.list) != want {
		t.Errorf("%d figures, want %d", len(found.list), want)
	}
}

func TestBoundsAreChecked(t *testing.T) {
	var b bounds
	b.add("within", 1, 1, "us")
	if err := b.print(io.Discard); err != nil {
		t.Error(err)
	}
	b.add("beyond", 1.01, 1, "us")
	if err := b.print(io.Discard); !errors.Is(err, errOver) || !strings.Contains(err.Error(), "beyond") || strings.Contains(err.Error(), "within") {
		t.Errorf("got %v", err)
	}
}
