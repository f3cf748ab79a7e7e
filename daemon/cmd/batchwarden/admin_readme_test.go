package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestReadmeOnTheVaultSide types what README.md says, line by line, at a server that has nothing yet, and then the same
// for a second machine.
func TestReadmeOnTheVaultSide(t *testing.T) {
	text, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	v := startVault(t)
	t.Chdir(t.TempDir())
	review := ""
	for _, machine := range []string{"db01", "db02"} {
		for line := range strings.Lines(string(text)) {
			line, _, _ = strings.Cut(strings.ReplaceAll(strings.TrimSpace(line), "db01", machine), " #")
			switch args := strings.Fields(line); {
			case len(args) > 2 && args[0] == "batchwarden" && args[1] == "admin" && args[2] != "--help":
				review = v.admin(args[2:]...)
			case len(args) > 1 && args[0] == "echo":
				if out, err := exec.Command("/bin/sh", "-c", line).CombinedOutput(); err != nil {
					t.Fatalf("%s: %v: %s", line, err, out)
				}
			}
		}
	}
	rows := 0
	for line := range strings.Lines(review) {
		if f := strings.Fields(line); len(f) > 5 && strings.HasPrefix(f[0], "db0") && f[1] == "payroll" && f[4] == "users/payroll" && strings.Contains(line, "jdoe") {
			rows++
		}
	}
	if rows != 2 {
		t.Errorf("jdoe can use payroll on %d of 2 machines:\n%s", rows, review)
	}
}
