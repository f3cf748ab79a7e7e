package confine

import (
	"errors"
	"fmt"
)

func reader([]string) (string, error) {
	return "", fmt.Errorf("not available on Windows: %w", errors.ErrUnsupported)
}
