package keeper

import (
	"context"
	"errors"
	"fmt"

	"batchwarden/platform/launch"
)

func run(context.Context, Config) error {
	return fmt.Errorf("keeper: jobs cannot be started on this system yet: %w", errors.ErrUnsupported)
}

func witnessed(string) ([]launch.Job, error) {
	return nil, fmt.Errorf("keeper: there is no launcher on this system yet: %w", errors.ErrUnsupported)
}
