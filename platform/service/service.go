// Package service is how a program lives under the system's service manager.
package service

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// Context ends when the service manager, or a person at the terminal, asks the
// process to stop. stop gives the signals back; a second one then ends the
// process at once.
func Context() (ctx context.Context, stop context.CancelFunc) {
	return signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
}
