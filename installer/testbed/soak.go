package testbed

import (
	"os"
	"time"
)

// Soak says how long a test whose name begins with TestSoak shall run: slice
// in an ordinary test run, and in "make soak" what SOAK_TIME says.
func Soak(slice time.Duration) time.Duration {
	if os.Getenv("BATCHWARDEN_SOAK") == "" {
		return slice
	}
	if d, err := time.ParseDuration(os.Getenv("BATCHWARDEN_SOAK_TIME")); err == nil && d > 0 {
		return d
	}
	return 10 * time.Minute
}
