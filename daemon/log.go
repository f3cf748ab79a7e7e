package daemon

import (
	"io/fs"
	"log/slog"
	"os"

	"batchwarden/daemon/config"
)

// LogHandler writes text to a terminal and JSON to everything else, unless
// the configuration says which.
func LogHandler(out *os.File, c config.Log) slog.Handler {
	options := &slog.HandlerOptions{Level: level(c.Level)}
	info, err := out.Stat()
	terminal := err == nil && info.Mode()&fs.ModeCharDevice != 0
	if c.Format == "text" || c.Format != "json" && terminal {
		return slog.NewTextHandler(out, options)
	}
	return slog.NewJSONHandler(out, options)
}

// level is the configured level; an unknown one was refused when the
// configuration was read.
func level(name string) (l slog.Level) {
	if err := l.UnmarshalText([]byte(name)); err != nil {
		return slog.LevelInfo
	}
	return l
}
