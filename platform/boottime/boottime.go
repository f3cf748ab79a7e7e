// Package boottime tells for how long the machine has been running, which no
// setting of its clock changes.
package boottime

import "time"

// Now is the time since the machine was started, time asleep included. An error
// wraps errors.ErrUnsupported where the platform does not tell.
func Now() (time.Duration, error) { return now() }

// Boot names this start of the machine: another at the next one, and "" where
// the platform has no name for it.
func Boot() string { return boot() }
