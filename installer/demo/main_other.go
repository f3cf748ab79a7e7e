//go:build !linux

// Command demo shows batchwarden at work. It runs on Linux only.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Fprintln(os.Stderr, "demo: runs on Linux only: it starts real jobs as real Linux accounts")
	os.Exit(1)
}
