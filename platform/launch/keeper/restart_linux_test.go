package keeper

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"batchwarden/platform/boottime"
	"batchwarden/platform/launch"
	"batchwarden/platform/safefile"
)

// TestRestart: jobs go on without a launcher, and the next one knows what was, and what it cannot know.
func TestRestart(t *testing.T) {
	b := newBed(t)
	ended := b.run(spec("ended", "/bin/sh", "-c", "echo kept; exit 5"))
	conn, _ := b.requester(agentUID)
	s := spec("running", "/bin/sh", "-c", "echo $$; sleep 30")
	s.Note = []byte(`{"decision":"D1"}`)
	running, _, err := b.launcher.Start(b.ctx(), conn, s)
	if err != nil {
		t.Fatal(err)
	}
	b.stopDaemon()
	b.stopKeeper()
	if !alive(running.PID) {
		t.Fatal("the job ended with the launcher")
	}
	b.runKeeper()
	b.runDaemon()

	if got := b.wait("ended"); got.ExitCode == nil || *got.ExitCode != 5 || got.EndSeq != ended.EndSeq || got.Hash != ended.Hash || !got.Started.Equal(ended.Started) {
		t.Errorf("got %+v, want %+v", got, ended)
	}
	want(t, "output", b.output("ended", launch.Stdout), "kept\n")
	taken, err := b.launcher.Job(b.ctx(), "lsam", "running", 0)
	if err != nil || taken.State != launch.StateRunning || taken.PID != running.PID || string(taken.Note) != string(s.Note) {
		t.Errorf("got %+v, %v", taken, err)
	}
	conn, _ = b.requester(agentUID)
	again, was, err := b.launcher.Start(b.ctx(), conn, s)
	if err != nil || !was || again.State != launch.StateRunning || again.PID != running.PID {
		t.Errorf("the same request again: %+v, %v, %v", again, was, err)
	}
	s.Hash = "other"
	b.refused(conn, s, launch.CodeConflict)
	if next := b.run(spec("next", "/bin/true")); next.Serial <= taken.Serial || next.EndSeq <= ended.EndSeq {
		t.Errorf("numbers were used again: %+v", next)
	}
	if _, err := b.launcher.Signal(b.ctx(), "lsam", "running", "INT", 0); err != nil {
		t.Error(err)
	}
	if end := b.wait("running"); end.State != launch.StateExited || end.Signal != "INT" || end.EndSeq != ended.EndSeq+2 {
		t.Errorf("got %+v", end)
	}
}

// edit changes the journal of a launcher that is not running.
func (b *bed) edit(change func(string) string) {
	b.t.Helper()
	file := filepath.Join(b.config.StateDir, journalName)
	text, err := os.ReadFile(file)
	if err == nil {
		err = os.WriteFile(file, []byte(change(string(text))), 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *bed) restart(change func(string) string) {
	b.t.Helper()
	b.stopDaemon()
	b.stopKeeper()
	b.edit(change)
	b.runKeeper()
	b.runDaemon()
}

func TestReboot(t *testing.T) {
	b := newBed(t)
	conn, _ := b.requester(agentUID)
	running, _, err := b.launcher.Start(b.ctx(), conn, spec("running", "/bin/sleep", "30"))
	if err != nil {
		t.Fatal(err)
	}
	b.restart(func(text string) string { return strings.ReplaceAll(text, boottime.Boot(), "another-boot") })
	if got := b.wait("running"); got.State != launch.StateLost || got.Code != launch.CodeRebooted {
		t.Errorf("got %+v", got)
	}
	if err := unix.Kill(-running.PID, unix.SIGKILL); err != nil {
		t.Error(err)
	}
}

// TestDamagedJournal: a torn end is what a crash leaves; other damage costs those lines only, and a copy is kept.
func TestDamagedJournal(t *testing.T) {
	b := newBed(t)
	for _, id := range []string{"a", "b", "c"} {
		b.says(id, "/bin/true")
	}
	b.restart(func(text string) string { return text + `{"kind":"start","job":{"owner":"lsam","id":"torn","ser` })
	for _, id := range []string{"a", "b", "c"} {
		b.succeeded(b.wait(id))
	}
	_, err := b.launcher.Job(b.ctx(), "lsam", "torn", 0)
	refusal(t, err, launch.CodeUnknown)
	copies := func() int {
		files, err := filepath.Glob(b.config.StateDir + "/*.damaged-*")
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	if n := copies(); n != 0 {
		t.Errorf("%d copies of a journal that was only torn", n)
	}
	b.restart(func(text string) string {
		lines := strings.SplitAfter(text, "\n")
		for i, l := range lines {
			if strings.Contains(l, `"id":"b"`) {
				lines[i] = "damaged\n"
			}
		}
		return strings.Join(lines, "")
	})
	b.succeeded(b.wait("a"))
	b.succeeded(b.wait("c"))
	if n := copies(); n != 1 {
		t.Errorf("%d copies of a damaged journal", n)
	}
}

func TestNewerJournal(t *testing.T) {
	b := newBed(t)
	b.says("a", "/bin/true")
	b.stopDaemon()
	b.stopKeeper()
	b.edit(func(text string) string { return strings.Replace(text, `"format":1`, `"format":2`, 1) })
	if err := Run(t.Context(), b.config); err == nil || !strings.Contains(err.Error(), "format 2") {
		t.Errorf("got %v", err)
	}
}

// TestForget: an ended job is kept as long as it wants, with its output, and then nothing of it is left.
func TestForget(t *testing.T) {
	b := newBed(t)
	s := spec("short", "/bin/true")
	s.Keep = time.Nanosecond
	short := b.run(s)
	long := b.run(spec("long", "/bin/true"))
	k := &keeper{Config: b.config, boxes: &boxes{}}
	k.jobs, k.live, k.news = map[key]*job{}, map[uint64]*job{}, make(chan struct{})
	b.stopDaemon()
	b.stopKeeper()
	if err := k.remember(); err != nil {
		t.Fatal(err)
	}
	k.forgetOld()
	k.journal.sync()
	if err := k.journal.close(); err != nil {
		t.Fatal(err)
	}
	b.runKeeper()
	b.runDaemon()
	_, err := b.launcher.Job(b.ctx(), "lsam", "short", 0)
	refusal(t, err, launch.CodeUnknown)
	if _, err := os.Stat(outputPath(b.config.StateDir, short.Serial)); err == nil {
		t.Error("its output is still there")
	}
	b.succeeded(b.wait("long"))
	if _, err := os.Stat(outputPath(b.config.StateDir, long.Serial)); err != nil {
		t.Error(err)
	}
	if text, err := os.ReadFile(filepath.Join(b.config.StateDir, journalName)); err != nil || strings.Contains(string(text), `"short"`) {
		t.Errorf("the journal still has it: %v\n%s", err, text)
	}
}

// TestFullDisk: without a journal nothing is started, and with one again everything is.
func TestFullDisk(t *testing.T) {
	needRoot(t)
	c := configure(t)
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("small", c.StateDir, "tmpfs", 0, "mode=700,size=64k"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(c.StateDir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	b := start(t, c)
	s := spec("before", "/bin/true")
	s.Stdio = launch.StdioNull
	b.run(s)
	file := filepath.Join(c.StateDir, "filler")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 512))
	}
	_ = f.Close()
	// The journal's own last page still has room.
	conn, _ := b.requester(agentUID)
	s.Note = []byte(`"` + strings.Repeat("x", 8000) + `"`)
	s.ID, s.Hash = "full", "h"
	b.refused(conn, s, launch.CodeUnavailable, "journal")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if job := b.run(s); job.ExitCode == nil || *job.ExitCode != 0 {
		t.Errorf("got %+v", job)
	}
	b.restart(func(text string) string { return text })
	if job := b.wait("full"); job.ExitCode == nil {
		t.Errorf("after a restart: %+v", job)
	}
}

// TestLockOfOneWhoWasKilled: a launcher that was killed leaves the lock to a child between fork and exec. Its successor
// used to end at once with "locked by another process".
func TestLockOfOneWhoWasKilled(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	old, err := safefile.Lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	released := time.AfterFunc(100*time.Millisecond, func() { _ = old.Close() })
	defer released.Stop()
	mine, err := lockState(t.Context(), dir)
	if err != nil {
		t.Fatal(err)
	}
	defer mine.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := lockState(ctx, dir); !errors.Is(err, safefile.ErrLocked) {
		t.Errorf("a lock that is held: %v", err)
	}
}
