package daemon

import (
	"log/slog"
	"os"
	"testing"
	"time"

	"batchwarden/daemon/config"
	"batchwarden/ipc/wire"
)

// TestSuspensionIsKept: what an operator said is there at the next start, and a file that is damaged still stops the
// machine.
func TestSuspensionIsKept(t *testing.T) {
	c := &config.Config{StateDir: t.TempDir()}
	log := slog.New(slog.DiscardHandler)
	if s := suspension(c, log); s != nil {
		t.Errorf("at first: %+v", s)
	}
	keep := keepSuspension(c)
	was := wire.Suspension{Suspended: true, Since: time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC), By: "alice", Reason: "disks are moved"}
	if err := keep(&was); err != nil {
		t.Fatal(err)
	}
	if s := suspension(c, log); s == nil || *s != was {
		t.Errorf("got %+v, want %+v", s, was)
	}
	for _, text := range []string{"", "{", `{"suspended":false}`} {
		if err := os.WriteFile(suspensionFile(c), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if s := suspension(c, log); s == nil || !s.Suspended {
			t.Errorf("with %q in the file: %+v", text, s)
		}
	}
	for range 2 {
		if err := keep(nil); err != nil {
			t.Fatal(err)
		}
	}
	if s := suspension(c, log); s != nil {
		t.Errorf("after resume: %+v", s)
	}
}
