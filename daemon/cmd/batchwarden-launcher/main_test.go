package main

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"batchwarden/platform/account"
	"batchwarden/platform/launch/keeper"
)

// TestAssemble: what the configuration says arrives, and faults are all named.
func TestAssemble(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
			t.Fatal("needs root; run: sudo make test")
		}
		t.Skip("needs root; run: sudo make test")
	}
	dir := t.TempDir()
	file, limitsFile := filepath.Join(dir, "batchwarden.yaml"), filepath.Join(dir, "limits.yaml")
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(file, "version: 1\nmachin: db01\njobs: {keep: never}\n")
	if _, _, err := assemble(file, limitsFile); err == nil || !strings.Contains(err.Error(), ":2:") || !strings.Contains(err.Error(), ":3:") {
		t.Errorf("not all faults are named: %v", err)
	}
	base := "version: 1\nvault: {address: 'https://127.0.0.1:1', auth: {method: approle, role_id_file: /r, secret_id_file: /s}}\n" +
		"launcher: {socket: /x/l.sock, state_dir: /x/state}\nsocket: /x/p.sock\naudit: {sync: always}\njobs: {keep: 1h, max_running: 7}\n"
	write(file, base+"users: {daemon: no-such-a, sync: no-such-b}\n")
	_, _, err := assemble(file, limitsFile)
	if !errors.Is(err, account.ErrMissing) || !strings.Contains(err.Error(), "no-such-a") || !strings.Contains(err.Error(), "no-such-b") {
		t.Errorf("got %v", err)
	}
	write(file, base+"users: {daemon: daemon, sync: nobody}\n")
	c, again, err := assemble(file, limitsFile)
	if err != nil {
		t.Fatal(err)
	}
	if c.PublicSocket != "/x/p.sock" || c.Socket != "/x/l.sock" || c.StateDir != "/x/state" || c.Bounds().MaxRunning != 7 || c.Bounds().Keep != time.Hour || c.JournalSync != 0 {
		t.Errorf("got %+v", c)
	}
	write(file, base+"users: {daemon: daemon, sync: nobody}\njobs: {keep: 2h}\n")
	if again.again(); c.Bounds().MaxRunning != 7 || again.faulty == "" {
		t.Errorf("a configuration with a fault: %+v, %q", c.Bounds(), again.faulty)
	}
	write(file, strings.Replace(base, "max_running: 7", "max_running: 8", 1)+"users: {daemon: daemon, sync: nobody}\nlog: {level: debug}\n")
	if again.again(); c.Bounds().MaxRunning != 8 || !c.Log.Enabled(t.Context(), slog.LevelDebug) {
		t.Errorf("another configuration: %+v", c.Bounds())
	}
	// A faulty limits.yaml is no reason not to start: every launch is refused with the line.
	write(limitsFile, "version: 1\nrequester: [x]\n")
	if err := c.Allow(keeper.Ask{}); err == nil || !strings.Contains(err.Error(), "limits.yaml:2") {
		t.Errorf("got %v", err)
	}
	if p := c.Problems(); len(p) != 1 || !strings.Contains(p[0], "limits.yaml:2") {
		t.Errorf("problems %q", p)
	}
}
