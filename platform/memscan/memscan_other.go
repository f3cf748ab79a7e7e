//go:build !linux && !windows

package memscan

import (
	"errors"
	"fmt"
)

func scan(int, *index) ([]Hit, error) {
	return nil, fmt.Errorf("reading another process's memory is not there on this system: %w", errors.ErrUnsupported)
}
