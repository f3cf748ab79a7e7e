//go:build !linux

package manage

import (
	"context"
	"errors"
	"fmt"
)

var errNoSystemd = fmt.Errorf("manage: there is no systemd on this system: %w", errors.ErrUnsupported)

func show(context.Context, string) (Unit, error) { return Unit{}, errNoSystemd }

func control(context.Context, string, []string) error { return errNoSystemd }
