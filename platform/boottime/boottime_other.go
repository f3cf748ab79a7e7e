//go:build !linux && !windows

package boottime

import (
	"errors"
	"fmt"
	"time"
)

func now() (time.Duration, error) {
	return 0, fmt.Errorf("boottime: this platform does not tell when it was started: %w", errors.ErrUnsupported)
}

func boot() string { return "" }
