//go:build !linux

package create

import (
	"context"
	"errors"
	"fmt"
)

var errNotHere = fmt.Errorf("create: accounts are made by hand on this system: %w", errors.ErrUnsupported)

func makeAll(context.Context, []Entry) error { return errNotHere }

func removeAll(context.Context, []Entry) error { return errNotHere }

func conflicts([]Entry) ([]string, error) { return nil, nil }

func absent([]Entry) ([]Entry, error) { return nil, errNotHere }
