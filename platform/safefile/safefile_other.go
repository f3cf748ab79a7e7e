//go:build !linux && !windows

package safefile

import (
	"errors"
	"fmt"
	"io"
	"os"
)

func supported() error {
	return fmt.Errorf("checking who may write a file is not there yet on this system: %w", errors.ErrUnsupported)
}

func open(string, *Rules) (*os.File, error) { return nil, supported() }

func checkDir(string, *Rules) error { return supported() }

func syncDir(string) error { return supported() }

func lock(string) (io.Closer, error) { return nil, supported() }
