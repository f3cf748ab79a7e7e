package daemon_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// A machine is a bed that can be switched off: what daemon and launcher keep lies on a disk of its own.
type machine struct {
	*testbed.Bed
	t     *testing.T
	disk  string // where it is mounted; its image is beside it
	image string
	boots int
}

func newMachine(t *testing.T, sync string) *machine {
	t.Helper()
	m := &machine{t: t, Bed: testbed.New(t, testbed.Options{Edit: func(yaml string) string {
		return strings.Replace(yaml, "audit.jsonl}", "audit.jsonl, sync: "+sync+"}", 1)
	}})}
	if err := errors.Join(m.Daemon.Stop(), m.Launcher.Stop()); err != nil {
		t.Fatal(err)
	}
	m.disk, m.image = m.Root+"/disk", m.Root+"/image-0"
	f, err := os.Create(m.image)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(32<<20), f.Close(), os.Mkdir(m.disk, 0o755)); err != nil {
		t.Fatal(err)
	}
	m.do("mkfs.ext4", "-q", m.image)
	m.do("mount", "-o", "loop", m.image, m.disk)
	m.do("cp", "-a", m.State, m.disk+"/state")
	m.do("cp", "-a", m.Jobs, m.disk+"/jobs")
	m.do("sync")
	m.bind()
	t.Cleanup(func() {
		if err := errors.Join(m.Daemon.Stop(), m.Launcher.Stop()); err != nil {
			t.Error(err)
		}
		m.unmount()
	})
	m.start()
	return m
}

func (m *machine) do(argv ...string) {
	m.t.Helper()
	if r := m.Command(testbed.Root, argv...); r.Code != 0 {
		m.t.Fatalf("%v: %s", argv, r.Err)
	}
}

func (m *machine) bind() {
	m.t.Helper()
	m.do("mount", "--bind", m.disk+"/state", m.State)
	m.do("mount", "--bind", m.disk+"/jobs", m.Jobs)
}

func (m *machine) unmount() {
	m.t.Helper()
	m.do("umount", m.State)
	m.do("umount", m.Jobs)
	m.do("umount", "-d", m.disk)
}

func (m *machine) start() {
	m.t.Helper()
	for _, start := range []func() error{m.StartLauncher, m.StartDaemon, m.WaitHealthy} {
		if err := start(); err != nil {
			m.t.Fatal(err)
		}
	}
}

// reboot ends everything at once and starts the machine again, with another id of its boot. When the power fails, only
// what was put onto the disk is there.
func (m *machine) reboot(powerFails bool) {
	m.t.Helper()
	cgroup, err := os.ReadFile(fmt.Sprintf("/proc/%d/cgroup", m.Launcher.PID()))
	if err != nil {
		m.t.Fatal(err)
	}
	m.Launcher.Kill()
	m.Daemon.Kill()
	old := m.image
	m.boots++
	if powerFails { // what the kernel has not written yet is not in the copy
		m.image = fmt.Sprintf("%s/image-%d", m.Root, m.boots)
		m.do("cp", old, m.image)
	}
	m.endJobs(cgroup)
	m.unmount()
	m.do("mount", "-o", "loop", m.image, m.disk)
	m.bind()
	for _, socket := range []string{m.Socket, m.Root + "/launcher/launcher.sock"} {
		if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
			m.t.Fatal(err)
		}
	}
	// The kernel's own file is hidden, in the namespace of these tests, by one that says something else.
	const id = "/proc/sys/kernel/random/boot_id"
	other := fmt.Sprintf("%s/boot-%d", m.Root, m.boots)
	if err := os.WriteFile(other, fmt.Appendf(nil, "00000000-0000-4000-8000-%012d\n", m.boots), 0o644); err != nil {
		m.t.Fatal(err)
	}
	m.do("mount", "--bind", other, id)
	m.t.Cleanup(func() { m.do("umount", id) })
	m.start()
}

// endJobs ends what the launcher has started, also what is not yet its job's user. It had this line in /proc.
func (m *machine) endJobs(line []byte) {
	m.t.Helper()
	_, own, _ := strings.Cut(strings.TrimSpace(string(line)), "0::")
	if !strings.HasPrefix(own, "/batchwarden-") {
		m.t.Fatalf("the launcher was in %q, which is no place of its own", own)
	}
	mounts := strings.Fields(m.Command(testbed.Root, "findmnt", "--noheadings", "--output", "TARGET", "--types", "cgroup2").Out)
	if len(mounts) == 0 {
		m.t.Fatal("no cgroup2 file system is mounted")
	}
	// Not the launcher's own place: some kernels kill whatever is started into a cgroup that was killed once.
	jobs, err := filepath.Glob(mounts[0] + own + "/batchwarden-jobs-*")
	if err != nil || len(jobs) != 1 {
		m.t.Fatalf("the jobs' place below %q: %v, %v", own, jobs, err)
	}
	root := jobs[0]
	if err := os.WriteFile(root+"/cgroup.kill", []byte("1"), 0o644); err != nil {
		m.t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		state, err := os.ReadFile(root + "/cgroup.events")
		if err != nil {
			m.t.Fatal(err)
		}
		if strings.Contains(string(state), "populated 0") {
			break
		}
		if time.Now().After(deadline) {
			m.t.Fatal("jobs do not end")
		}
	}
	m.do("find", root, "-depth", "-type", "d", "-delete")
}

// TestIdempotentOverReboot: the same request never starts a job twice, whatever ends in between, and says what became
// of it.
func TestIdempotentOverReboot(t *testing.T) {
	for _, c := range []struct {
		sync       string
		powerFails bool
	}{{"100ms", false}, {"always", true}} {
		t.Run(c.sync, func(t *testing.T) {
			m := newMachine(t, c.sync)
			runs := filepath.Join(m.Accounts.Payroll.Home, "runs")
			defer os.Remove(runs)
			launch := func(id, then string) map[string]any {
				return body(map[string]any{"id": id, "command": []string{"/bin/sh", "-c", "echo " + id + " >>" + runs + "; " + then}})
			}
			ask := func(what map[string]any) testbed.Answer {
				return call(t, m.Bed, m.Accounts.LSAM, "POST", "/v1/jobs", what)
			}
			again := func(what map[string]any, state, code string) {
				t.Helper()
				a := ask(what)
				job := read[wire.Job](t, a)
				if a.Status != 200 || job.State != state || job.Code != code {
					t.Errorf("%s: %d %s, want 200 and %s %q", what["id"], a.Status, a.Body, state, code)
				}
				other := body(map[string]any{"id": what["id"], "command": []string{"/bin/false"}})
				want(t, ask(other), 409, wire.IDConflict)
			}
			running, kept, ended3 := launch("running", "exec sleep 600"), launch("kept", "exec sleep 600"), launch("ended", "exit 3")
			for _, what := range []map[string]any{running, kept, ended3} {
				want(t, ask(what), 201, "")
			}
			if job := ended(t, m.Bed, "ended"); job.ExitCode == nil || *job.ExitCode != 3 {
				t.Errorf("%+v", job)
			}
			for _, kill := range []bool{false, true} {
				if kill {
					m.Daemon.Kill()
				} else if err := m.Daemon.Stop(); err != nil {
					t.Fatal(err)
				}
				if err := m.StartDaemon(); err != nil {
					t.Fatal(err)
				}
				if err := m.WaitHealthy(); err != nil {
					t.Fatal(err)
				}
				again(running, wire.Running, "")
				again(ended3, wire.Exited, "")
			}
			if err := m.RestartLauncher(); err != nil {
				t.Fatal(err)
			}
			again(kept, wire.Running, "") // the next launcher took it up

			// The answer came, so it must be known, also when everything ends now.
			last := launch("last", "exec sleep 600")
			want(t, ask(last), 201, "")
			m.reboot(c.powerFails)
			if text, err := os.ReadFile(m.AuditFile()); err != nil || !strings.Contains(string(text), `"id":"last"`) {
				t.Errorf("the audit file does not know of the launch, %v: %s", err, text)
			}
			again(last, wire.Lost, "job.host_rebooted")
			again(kept, wire.Lost, "job.host_rebooted")
			again(ended3, wire.Exited, "")
			m.reboot(false)
			again(last, wire.Lost, "job.host_rebooted")
			if job, _ := run(t, m.Bed, map[string]any{"id": "next"}); job.State != wire.Exited {
				t.Errorf("%+v", job)
			}
			text, err := os.ReadFile(runs)
			if err != nil {
				t.Fatal(err)
			}
			for _, id := range []string{"running", "kept", "ended", "last"} {
				if n := strings.Count(string(text), id+"\n"); n > 1 || n == 0 && id != "last" { // which may not have come so far
					t.Errorf("%s ran %d times", id, n)
				}
			}
		})
	}
}
