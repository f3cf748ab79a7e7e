// Package logs writes the services' logs: to stderr, for a person or for a
// collector, at a level that can be changed while they run.
package logs

import (
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"strings"

	"batchwarden/daemon/config"
)

// New returns the log that the configuration asks for, and its level, which
// may be changed at any time. It is text on a terminal and JSON elsewhere,
// unless the configuration says which.
func New(out *os.File, c config.Log) (*slog.Logger, *slog.LevelVar) {
	level := &slog.LevelVar{}
	if l, err := Level(c.Level); err == nil {
		level.Set(l) // else the zero value, info; an unknown one was refused when the configuration was read
	}
	options := &slog.HandlerOptions{Level: level}
	info, err := out.Stat()
	terminal := err == nil && info.Mode()&fs.ModeCharDevice != 0
	if c.Format == "text" || c.Format != "json" && terminal {
		return slog.New(slog.NewTextHandler(out, options)), level
	}
	return slog.New(slog.NewJSONHandler(out, options)), level
}

// Level is the level of a name: debug, info, warn or error.
func Level(name string) (slog.Level, error) {
	for _, l := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		if Name(l) == name {
			return l, nil
		}
	}
	return 0, fmt.Errorf("%q is not a level; there are debug, info, warn and error", name)
}

// Name is what a level is called in the configuration and on the socket.
func Name(l slog.Level) string { return strings.ToLower(l.String()) }
