//go:build linux

package keeper

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"batchwarden/platform/launch"
)

// written copies a file that a launcher of format 1 wrote to where this one looks for it.
func written(t *testing.T, dir, name string) string {
	t.Helper()
	text, err := os.ReadFile("testdata/journal-1/" + name)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, name)
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestGoldenJournal: jobs of a launcher that wrote format 1 are known, with all that is needed to go on with them, also
// after the journal was written anew.
func TestGoldenJournal(t *testing.T) {
	dir := t.TempDir()
	file := written(t, dir, journalName)
	at := func(second int) time.Time { return time.Date(2026, 3, 4, 12, 0, second, 0, time.UTC) }
	const boot, keep = "0f6b2a5e-9c1d-4c55-8a3e-1d2f3a4b5c6d", 168 * time.Hour
	want := []*remembered{
		{launch.Job{Owner: "lsam", ID: "carried-over", Serial: 3, Hash: "aa", State: launch.StateRunning, PID: 4001, User: "payroll", Started: at(0).Add(123456789),
			StartedBoot: 1000 * time.Second, Captured: true, ByPath: true, Note: json.RawMessage(`{"decision_id":"D3"}`)},
			thread{Boot: boot, Keep: keep, Timeout: 8 * time.Hour, Grace: 30 * time.Second, Capture: 64 << 20, Script: true, Box: "jobs/4", At: 1001 * time.Second, Kill: 2002 * time.Second, Canceled: true}},
		{launch.Job{Owner: "lsam", ID: "runs", Serial: 4, Hash: "bb", State: launch.StateRunning, PID: 4002, User: "payroll", Started: at(1),
			StartedBoot: 1001 * time.Second, Captured: true, ByPath: true, Note: json.RawMessage(`{"decision_id":"D4"}`)},
			thread{Boot: boot, Keep: keep, Grace: 30 * time.Second, Capture: 64 << 20, Box: "jobs/4", At: 1001500 * time.Millisecond, Kill: 3003 * time.Second, Canceled: true}},
		{launch.Job{Owner: "lsam", ID: "ended", Serial: 5, Hash: "cc", State: launch.StateFailed, PID: 4003, User: "reports", Signal: "KILL", CoreDumped: true, Started: at(2), Ended: at(3),
			StartedBoot: 1002 * time.Second, EndedBoot: 1003 * time.Second, CPUSeconds: 0.25, MaxRSS: 4 << 20, Survivors: 2, Code: launch.CodeTimeout, Reason: "it ran longer than 1s",
			Note: json.RawMessage(`{"decision_id":"D5"}`), EndSeq: 3},
			thread{Boot: boot, Keep: keep, Grace: 30 * time.Second}},
	}
	known := func(when string, h history, err error) {
		t.Helper()
		if err != nil || h.damaged != 0 || h.serial != 6 || h.end != 4 || len(h.jobs) != len(want) {
			t.Fatalf("%s: %+v, %v", when, h, err)
		}
		for i, j := range h.jobs {
			if !reflect.DeepEqual(j, want[i]) {
				t.Errorf("%s: got\n%+v\nwant\n%+v", when, *j, *want[i])
			}
		}
	}
	h, err := readJournal(file)
	known("as it was", h, err)
	j, h, err := openJournal(dir, time.Hour, slog.New(slog.DiscardHandler))
	known("opened", h, err)
	if err := j.close(); err != nil {
		t.Fatal(err)
	}
	h, err = readJournal(file)
	known("written anew", h, err)
}

// TestGoldenRecords: nothing that a record of format 1 says is unknown now, or has another name.
func TestGoldenRecords(t *testing.T) {
	text, err := os.ReadFile("testdata/journal-1/" + journalName)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var r record
		err := json.Unmarshal(line, &r)
		again, _ := json.Marshal(r)
		if string(again)+"\n" != string(line) || err != nil {
			t.Errorf("got %s, want %s, %v", again, line, err)
		}
	}
}

func TestGoldenWitness(t *testing.T) {
	dir := t.TempDir()
	written(t, dir, witnessName)
	if w, err := openWitness(dir); err != nil || w.highest != 4711 {
		t.Errorf("got %d, %v", w.highest, err)
	}
}

// TestNewerJournalIsRefused: it is left as it is, and the sentence says which, why and what to do.
func TestNewerJournalIsRefused(t *testing.T) {
	dir := t.TempDir()
	file := written(t, dir, journalName)
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	newer := bytes.Replace(text, []byte(`"format":1`), []byte(`"format":2`), 1)
	if err := os.WriteFile(file, newer, 0o600); err != nil {
		t.Fatal(err)
	}
	_, _, err = openJournal(dir, time.Hour, slog.New(slog.DiscardHandler))
	if err == nil {
		t.Fatal("it was opened")
	}
	for _, part := range []string{file, "format 2", "understands up to 1", "install the newer version again", "move the journal away"} {
		if !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q is not in one sentence %q", part, err)
		}
	}
	if now, err := os.ReadFile(file); err != nil || !slices.Equal(now, newer) {
		t.Errorf("the journal was changed: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("there are %v, %v", left, err)
	}
}
