// Package manage installs services on this host, and starts and ends them, by way of its service manager.
package manage

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/kardianos/service"
)

// Systemd is the service manager that ours are tested with.
const Systemd = "linux-systemd"

// ErrNone reports that no service manager was found.
var ErrNone = errors.New("no service manager was found on this machine")

// Manager names the service manager of this host, "" when there is none that is known.
func Manager() string { return service.Platform() }

// Service is one of ours. Its methods return when the service manager has done what it was told or has refused, and at
// the latest when ctx ends: what it was told it may still do then.
type Service struct {
	Name        string // without ".service"
	Description string
	Program     string // absolute
	User        string // "" is root
	Unit        string // for systemd: its whole unit; the other managers make theirs of what stands above
}

// Install makes the service known and has it started with the machine. One that is there is an error.
func (s Service) Install(ctx context.Context) error {
	return s.do(ctx, "install", service.Service.Install)
}

// Uninstall undoes Install.
func (s Service) Uninstall(ctx context.Context) error {
	return s.do(ctx, "uninstall", service.Service.Uninstall)
}

// Start starts the service, and returns when it is ready.
func (s Service) Start(ctx context.Context) error { return s.do(ctx, "start", service.Service.Start) }

// Stop ends the service.
func (s Service) Stop(ctx context.Context) error { return s.do(ctx, "stop", service.Service.Stop) }

// Restart stops and starts the service, and returns when it is ready again.
func (s Service) Restart(ctx context.Context) error {
	return s.do(ctx, "restart", service.Service.Restart)
}

func (s Service) do(ctx context.Context, what string, f func(service.Service) error) error {
	known, err := service.New(none{}, &service.Config{
		Name: s.Name, DisplayName: s.Description, Description: s.Description, Executable: s.Program, UserName: s.User,
		Option: service.KeyValue{"SystemdScript": s.Unit},
	})
	if errors.Is(err, service.ErrNoServiceSystemDetected) {
		err = ErrNone
	}
	if err != nil {
		return fmt.Errorf("manage: %s: %w", s.Name, err)
	}
	began := time.Now()
	over := make(chan error, 1)
	go func() { over <- f(known) }() // ends when the service manager's own program does, with this process at the latest
	select {
	case err = <-over:
	case <-ctx.Done():
		err = fmt.Errorf("it was not done within %v; the service manager may still be at it", time.Since(began).Round(time.Millisecond))
	}
	if err != nil {
		return fmt.Errorf("manage: %s %s: %w", what, s.Name, err)
	}
	return nil
}

// none is no service: what is managed here runs elsewhere.
type none struct{}

func (none) Start(service.Service) error { return nil }
func (none) Stop(service.Service) error  { return nil }

// Unit is what systemd says about a unit.
type Unit struct {
	Name    string    `json:"name"`
	File    string    `json:"file"`    // "": there is none
	Enabled string    `json:"enabled"` // "enabled": it is started with the machine
	Active  string    `json:"active"`  // "active", "inactive", "failed", "activating"
	Sub     string    `json:"sub"`     // "running", "listening", "auto-restart"
	Result  string    `json:"result"`  // "success", or why it failed
	Status  string    `json:"status"`  // the line that the service itself tells
	PID     int       `json:"pid,omitempty"`
	Since   time.Time `json:"since,omitzero"` // of Active
	Cgroup  string    `json:"-"`              // below the mount
	Stale   bool      `json:"stale"`          // its file has changed, and systemd has not read it yet
}

// Show asks systemd about a unit. One that does not exist is no error: its File is "".
func Show(ctx context.Context, name string) (Unit, error) { return show(ctx, name) }

// Control runs systemctl with a verb and units: enable, disable, start, stop, reset-failed, or daemon-reload without a
// unit. It is for what is no service; for services there is Service.
func Control(ctx context.Context, verb string, units ...string) error {
	return control(ctx, verb, units)
}
