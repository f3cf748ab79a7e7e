//go:build !linux

package process

import (
	"errors"
	"fmt"
)

func find(string) ([]Process, error) {
	return nil, fmt.Errorf("this platform's processes are not looked at yet: %w", errors.ErrUnsupported)
}
