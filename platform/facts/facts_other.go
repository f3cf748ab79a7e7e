//go:build !linux && !windows

package facts

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
)

func unsupported(what string) error {
	return fmt.Errorf("facts: %s: not looked at on this system: %w", what, errors.ErrUnsupported)
}

func system() []Fact { return []Fact{{Name: "system", Err: unsupported("the system")}} }

func processes([]string) []Fact { return []Fact{{Name: "processes", Err: unsupported("processes")}} }

func units([]string) []Fact { return []Fact{{Name: "units", Err: unsupported("units")}} }

func owner(fs.FileInfo) string { return "?" }

func journal(context.Context, int, []string) (string, error) { return "", unsupported("the journal") }
