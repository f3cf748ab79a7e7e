//go:build !linux && !windows

package keeper

import (
	"context"
	"errors"
	"fmt"
)

func run(context.Context, Config) error {
	return fmt.Errorf("keeper: jobs cannot be started on this system yet: %w", errors.ErrUnsupported)
}
