//go:build !linux && !windows

package confine

import (
	"errors"
	"fmt"
)

func reader([]string) (string, error) {
	return "", fmt.Errorf("not available on this platform: %w", errors.ErrUnsupported)
}
