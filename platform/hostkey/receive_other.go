//go:build !linux

package hostkey

import (
	"errors"
	"fmt"
	"os"
)

func pollable(*os.File) (*os.File, error) {
	return nil, fmt.Errorf("taking a key from another process is not there yet on this system: %w", errors.ErrUnsupported)
}
