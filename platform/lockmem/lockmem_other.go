//go:build !linux && !windows

package lockmem

import (
	"errors"
	"fmt"
)

func unsupported() error {
	return fmt.Errorf("memory for secrets is not there yet on this system: %w", errors.ErrUnsupported)
}

func allocate(int) (region, error) { return region{}, unsupported() }

func random([]byte) error { return unsupported() }

func harden() error { return unsupported() }

func hardened() error { return unsupported() }
