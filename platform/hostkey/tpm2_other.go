//go:build !linux

package hostkey

import (
	"errors"
	"fmt"

	"batchwarden/platform/lockmem"
)

var errNoTPM = fmt.Errorf("keys of kind \"tpm2\" are not there yet on this system: %w", errors.ErrUnsupported)

func haveTPM() error { return errNoTPM }

func (Places) seal(_, _ *lockmem.Buffer) ([]byte, error) { return nil, errNoTPM }

func (Places) unseal([]byte, *lockmem.Buffer) error { return errNoTPM }
