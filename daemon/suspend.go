package daemon

import (
	"encoding/json"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"batchwarden/daemon/config"
	"batchwarden/ipc/wire"
	"batchwarden/platform/safefile"
)

// suspension is the one that an operator left behind, nil when there is none.
// A file that cannot be understood is one: somebody meant to stop this machine.
func suspension(c *config.Config, log *slog.Logger) *wire.Suspension {
	text, err := os.ReadFile(suspensionFile(c))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	s := &wire.Suspension{}
	if err == nil {
		err = json.Unmarshal(text, s)
	}
	if err != nil {
		log.Error("this machine is suspended; since when cannot be read", "err", err)
	}
	s.Suspended = true
	return s
}

// keepSuspension puts it where the next start finds it; nil: there is none.
func keepSuspension(c *config.Config) func(*wire.Suspension) error {
	return func(s *wire.Suspension) error {
		if s == nil {
			if err := os.Remove(suspensionFile(c)); !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		}
		text, err := json.Marshal(s)
		if err != nil {
			return err
		}
		return safefile.WriteAtomic(suspensionFile(c), append(text, '\n'), 0o600)
	}
}

func suspensionFile(c *config.Config) string { return filepath.Join(c.StateDir, "suspended.json") }
