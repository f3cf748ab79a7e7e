package config

import (
	"flag"
	"os"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares got with testdata/name.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := "testdata/" + name
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant, as in %s:\n%s", got, file, want)
	}
}

// TestFaults has many faults in three files: all of them are named at once, each once, with line and place.
func TestFaults(t *testing.T) {
	_, _, err := Check("testdata/faults/batchwarden.yaml")
	if err == nil {
		t.Fatal("no fault was found")
	}
	golden(t, "faults.golden", err.Error()+"\n")
}
