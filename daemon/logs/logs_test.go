package logs

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"batchwarden/daemon/config"
)

func TestNew(t *testing.T) {
	for _, c := range []struct{ format, want string }{
		{"text", `level=WARN msg=seen n=2`},
		{"json", `"level":"WARN","msg":"seen","n":2}`},
		{"auto", `"level":"WARN","msg":"seen","n":2}`}, // a file is no terminal
	} {
		t.Run(c.format, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "log")
			out, err := os.Create(name)
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			log, level := New(out, config.Log{Level: "error", Format: c.format})
			log.Warn("unseen")
			level.Set(slog.LevelWarn)
			log.Warn("seen", "n", 2)
			log.Info("unseen")
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(text); strings.Count(got, "\n") != 1 || !strings.HasSuffix(got, c.want+"\n") {
				t.Errorf("got %q, want one line that ends with %q", got, c.want)
			}
		})
	}
}

func TestLevel(t *testing.T) {
	for _, name := range []string{"debug", "info", "warn", "error"} {
		if l, err := Level(name); err != nil || Name(l) != name {
			t.Errorf("%s: got %v, %v", name, l, err)
		}
	}
	for _, name := range []string{"", "INFO", "info+1", "trace", "info "} {
		if _, err := Level(name); err == nil || !strings.Contains(err.Error(), "debug, info, warn and error") {
			t.Errorf("%q: got %v, want the levels that there are", name, err)
		}
	}
}
