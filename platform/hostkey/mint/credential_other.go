//go:build !linux

package mint

import (
	"errors"
	"fmt"

	"batchwarden/platform/lockmem"
)

func credential(Options, *lockmem.Arena) (*Made, error) {
	return nil, fmt.Errorf("mint: credentials are systemd's, which this system does not have: %w", errors.ErrUnsupported)
}
