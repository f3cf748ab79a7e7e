package daemon

import (
	"log/slog"
	"os"
	"testing"
	"time"

	"batchwarden/daemon/config"
	"batchwarden/ipc/wire"
)

// TestGoldenSuspension: a machine that was suspended before an upgrade is suspended after it, with the words of then.
func TestGoldenSuspension(t *testing.T) {
	for file, reason := range map[string]string{"without-reason": "", "with-reason": "disks are moved"} {
		text, err := os.ReadFile("testdata/suspension-1/" + file + ".json")
		if err != nil {
			t.Fatal(err)
		}
		c := &config.Config{StateDir: t.TempDir()}
		if err := os.WriteFile(suspensionFile(c), text, 0o600); err != nil {
			t.Fatal(err)
		}
		want := wire.Suspension{Suspended: true, Since: time.Date(2026, 3, 4, 12, 0, 0, 0, time.UTC), By: "alice", Reason: reason}
		got := suspension(c, slog.New(slog.DiscardHandler))
		if got == nil || *got != want {
			t.Fatalf("%s: got %+v, want %+v", file, got, want)
		}
		if err := keepSuspension(c)(got); err != nil {
			t.Fatal(err)
		}
		if again, err := os.ReadFile(suspensionFile(c)); err != nil || string(again) != string(text) {
			t.Errorf("%s: written again it is %s, %v", file, again, err)
		}
	}
}
