package service

import (
	"os"
	"os/signal"
	"syscall"
)

// Hangups tells of each SIGHUP, by which a service manager, or a person, asks to read the configuration again; several in
// short succession may be told once. From now on the signal does not end the process. Windows has none.
func Hangups() <-chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGHUP)
	return c
}
