//go:build !windows

package hostkey

import (
	"errors"
	"fmt"

	"batchwarden/platform/lockmem"
)

var errNoDPAPI = fmt.Errorf("keys of kind \"dpapi\" are for Windows; use keyfile, credential or tpm2 here: %w", errors.ErrUnsupported)

func haveDPAPI() error { return errNoDPAPI }

func protect(_, _ *lockmem.Buffer) ([]byte, error) { return nil, errNoDPAPI }

func unprotect([]byte, *lockmem.Buffer) error { return errNoDPAPI }
