package daemon_test

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// neighbourFile names the commit whose programs ours work together with. It moves on with each release.
const neighbourFile = "testdata/neighbour"

// neighbour returns the directory with the programs of the older version, built when they are not there yet.
func neighbour(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(neighbourFile)
	if err != nil {
		t.Fatal(err)
	}
	commit := strings.TrimSpace(string(text))
	top, err := testbed.Top()
	if err != nil {
		t.Fatal(err)
	}
	tree := filepath.Join(top, "build", "_neighbour-"+commit)
	bin, whole := filepath.Join(tree, "build", "bin"), filepath.Join(tree, "built")
	if _, err := os.Stat(whole); err == nil {
		return bin
	}
	git := func(args ...string) ([]byte, error) {
		// The tree belongs to whoever checked it out, and this is root.
		return exec.Command("git", append([]string{"-c", "safe.directory=" + top, "-C", top}, args...)...).Output()
	}
	archive, err := git("archive", commit)
	if err != nil {
		t.Skip("the commit of " + neighbourFile + " is not in this clone; run: git fetch --unshallow") // history may have been cut off
	}
	err = errors.Join(os.RemoveAll(tree), os.MkdirAll(tree, 0o755))
	if err != nil {
		t.Fatal(err)
	}
	unpack := exec.Command("tar", "-x", "-C", tree)
	unpack.Stdin = bytes.NewReader(archive)
	build := exec.Command("make", "-C", tree, "--no-print-directory", "build", "VERSION=older", "COMMIT="+commit)
	for _, cmd := range []*exec.Cmd{unpack, build} {
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", cmd.Args, err, out)
		}
	}
	if err := os.WriteFile(whole, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return bin
}

// replacePrograms installs the programs of a directory over those of the bed, as a package does: what runs goes on with its old
// file, and everything that is started from now on is the new one.
func replacePrograms(t *testing.T, b *testbed.Bed, with string) {
	t.Helper()
	for _, name := range testbed.Programs {
		text, err := os.ReadFile(filepath.Join(with, name))
		file := filepath.Join(b.Bin, name)
		if err = errors.Join(err, os.WriteFile(file+".new", text, 0o755), os.Rename(file+".new", file)); err != nil {
			t.Fatal(err)
		}
	}
}

// thisVersion is where the programs of this version are.
func thisVersion(t *testing.T) string {
	t.Helper()
	top, err := testbed.Top()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(top, "build", "bin")
}

// agree runs everything that daemon and launcher do together.
func agree(t *testing.T, b *testbed.Bed, id string) {
	t.Helper()
	if err := b.WaitOnline(); err != nil {
		t.Fatal(err)
	}
	job, out := run(t, b, map[string]any{"id": id, "command": []string{"/usr/bin/id", "-un"}})
	if job.State != wire.Exited || job.ExitCode == nil || *job.ExitCode != 0 || out != b.Accounts.Payroll.Name+"\n" {
		t.Errorf("%s: job %+v says %q", id, job, out)
	}
	audited(t, b, map[string]string{"kind": "job.ended", "decision_id": job.DecisionID})
	if a := call(t, b, b.Accounts.LSAM, "POST", "/v1/batch-users/payroll/retrieve", retrieveBody()); a.Status != 200 || len(a.Body) == 0 {
		t.Errorf("%s: retrieve: %d %s", id, a.Status, a.Body)
	}
	synced(t, b)
	s, err := b.Status()
	if err != nil || !s.Launcher.Connected || s.Launcher.Version == "" {
		t.Errorf("%s: status %+v, %v", id, s.Launcher, err)
	}
	if a := call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs?dry_run=1", body(nil)); a.Status != 200 || bytes.Contains(a.Body, []byte(`"ok":false`)) {
		t.Errorf("%s: dry run: %d %s", id, a.Status, a.Body)
	}
	if a := call(t, b, b.Accounts.LSAM, "DELETE", "/v1/jobs/"+id, nil); a.Status != 200 && a.Status != 204 {
		t.Errorf("%s: forget: %d %s", id, a.Status, a.Body)
	}
}

// TestNeighbours: an upgrade restarts daemon and launcher one after the other, in either order, and back. All the while
// jobs are launched and end, and a job that ran before all of it goes on and is adopted each time.
func TestNeighbours(t *testing.T) {
	testbed.NeedRoot(t)
	older, newer := neighbour(t), thisVersion(t)
	const launcher, daemon = "launcher", "daemon"
	for _, first := range []string{daemon, launcher} {
		t.Run(first+" first", func(t *testing.T) {
			b := testbed.New(t, testbed.Options{})
			restart := map[string]func() error{daemon: b.RestartDaemon, launcher: b.RestartLauncher}
			second := map[string]string{daemon: launcher, launcher: daemon}[first]
			started := func(program string) {
				t.Helper()
				if err := restart[program](); err != nil {
					t.Fatal(err)
				}
			}
			replacePrograms(t, b, older)
			started(launcher)
			started(daemon)
			agree(t, b, "older")
			long := begin(t, b, "long", "trap 'echo bye; exit 7' TERM; while :; do sleep 0.05; done", nil)
			running := func(when string) {
				t.Helper()
				if job := lookAt(t, b, "long"); job.State != wire.Running || job.PID != long.PID {
					t.Errorf("%s: the job is %+v", when, job)
				}
			}

			replacePrograms(t, b, newer)
			agree(t, b, "new-files")
			started(first)
			running("half upgraded")
			agree(t, b, "half")
			if first == daemon {
				unsupported(t, b)
			}
			started(second)
			running("upgraded")
			agree(t, b, "upgraded")

			replacePrograms(t, b, older) // somebody changed his mind: no format has a newer number
			started(first)
			running("half back")
			agree(t, b, "half-back")
			started(second)
			running("back")
			agree(t, b, "back")

			signal(t, b, "long", "TERM", "")
			if job := ended(t, b, "long"); job.State != wire.Exited || job.ExitCode == nil || *job.ExitCode != 7 {
				t.Errorf("the job that ran through all of it ended as %+v", job)
			}
			if out := output(t, b, "long", "stdout"); !strings.HasSuffix(out, "\nbye\n") {
				t.Errorf("it said %q", out)
			}
		})
	}
}

// unsupported: what an older launcher cannot do is said, and its session does not end of it.
func unsupported(t *testing.T, b *testbed.Bed) {
	t.Helper()
	before, err := b.Status()
	if err != nil {
		t.Fatal(err)
	}
	v := read[wire.Verified](t, call(t, b, testbed.Root, "POST", "/v1/batch-users/payroll/verify", nil))
	if v.Outcome != wire.NotChecked || v.Code != wire.Unsupported || !strings.Contains(v.Reason, `(older), which does not know "verify"`) || !strings.Contains(v.Reason, "restart the launcher") {
		t.Errorf("verify: %+v", v)
	}
	level := read[wire.LogLevel](t, call(t, b, testbed.Root, "POST", "/v1/log-level", map[string]any{"level": "debug"}))
	if level.Level != "debug" || level.Launcher != "" || !strings.Contains(level.Detail, `(older), which does not know "log_level"`) {
		t.Errorf("log level: %+v", level)
	}
	after, err := b.Status()
	if err != nil || !after.Launcher.Connected || !after.Launcher.Since.Equal(before.Launcher.Since) {
		t.Errorf("the session before %+v, after %+v, %v", before.Launcher, after.Launcher, err)
	}
}
