package daemon_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// installed is a booted machine that setup install has set up, with a Vault in reach.
type installed struct {
	*testbed.Booted
	t *testing.T
	b *testbed.Bed
}

// boot boots a machine with nothing of ours on it, which reaches the bed's Vault.
func boot(t *testing.T, b *testbed.Bed) *installed {
	t.Helper()
	return bootedBy(t, b, func() (*testbed.Booted, error) { return b.Boot(nil) })
}

func bootedBy(t *testing.T, b *testbed.Bed, start func() (*testbed.Booted, error)) *installed {
	t.Helper()
	for _, end := range []func() error{b.Daemon.Stop, b.Launcher.Stop} {
		if err := end(); err != nil {
			t.Fatal(err)
		}
	}
	m, err := start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(m.Journal(60))
		}
		if err := m.Stop(); err != nil {
			t.Error(err)
		}
	})
	if err := m.Relay(strings.TrimPrefix(b.Vault.Address, "https://")); err != nil {
		t.Fatal(err)
	}
	in := &installed{m, t, b}
	home := b.Accounts.Payroll
	in.sh(fmt.Sprintf("mkdir -p %[1]s && chown %[2]s: %[1]s", home.Home, home.Name))
	return in
}

// Command runs a program in the machine, where the socket lies at its usual place.
func (m *installed) Command(argv ...string) testbed.Result {
	return m.Booted.Command(append([]string{"env", "-u", "BATCHWARDEN_SOCKET"}, argv...)...)
}

// waitFor runs a program in the machine until it succeeds.
func (m *installed) waitFor(argv ...string) error {
	return m.WaitFor(append([]string{"env", "-u", "BATCHWARDEN_SOCKET"}, argv...)...)
}

// ok runs a program in the machine that has to succeed, and returns what it said.
func (m *installed) ok(argv ...string) string {
	m.t.Helper()
	r := m.Command(argv...)
	if r.Code != 0 {
		m.t.Fatalf("%s: exit %d\n%s%s", strings.Join(argv, " "), r.Code, r.Out, r.Err)
	}
	return r.Out
}

// refuses runs a program in the machine that has to say no, and why.
func (m *installed) refuses(argv []string, code int, says ...string) {
	m.t.Helper()
	r := m.Command(argv...)
	if r.Code != code {
		m.t.Errorf("%s: exit %d, want %d\n%s%s", strings.Join(argv, " "), r.Code, code, r.Out, r.Err)
	}
	for _, text := range says {
		if !strings.Contains(r.Err, text) {
			m.t.Errorf("%s does not say %q: %s", strings.Join(argv, " "), text, r.Err)
		}
	}
}

func (m *installed) sh(script string) string { m.t.Helper(); return m.ok("/bin/sh", "-c", script) }

// show is one property of a unit.
func (m *installed) show(unit, property string) string {
	m.t.Helper()
	return strings.TrimSpace(m.ok("systemctl", "show", "--value", "--property="+property, unit))
}

// asLSAM runs our command as the agent does.
func (m *installed) asLSAM(args ...string) testbed.Result {
	return m.Command(append([]string{"runuser", "-u", m.b.Accounts.LSAM.Name, "--", "/usr/bin/batchwarden"}, args...)...)
}

func (m *installed) job(id string) (job wire.Job) {
	m.t.Helper()
	r := m.asLSAM("jobs", "--json", id)
	if err := json.Unmarshal([]byte(r.Out), &job); err != nil {
		m.t.Fatalf("job %s: exit %d: %v: %s%s", id, r.Code, err, r.Out, r.Err)
	}
	return job
}

func (m *installed) status() (s wire.Status) {
	m.t.Helper()
	r := m.Command("/usr/bin/batchwarden", "status", "--json")
	if err := json.Unmarshal([]byte(r.Out), &s); err != nil {
		m.t.Fatalf("status: exit %d: %v: %s%s", r.Code, err, r.Out, r.Err)
	}
	return s
}

// answers are an answers file for the bed's Vault.
func (m *installed) answers() string {
	m.t.Helper()
	path := m.b.Root + "/answers.yaml"
	text := fmt.Sprintf("version: 1\nmachine: %s\nvault:\n  address: %s\n  ca_file: %s/vault-ca.pem\n  auth: {role_id_file: %[3]s/role_id, secret_id_file: %[3]s/secret_id}\n",
		testbed.Machine, m.b.Vault.Address, m.b.Etc)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.t.Fatal(err)
	}
	return path
}

// configure does what is left to the operator after the first set-up.
func (m *installed) configure() {
	m.t.Helper()
	m.sh(fmt.Sprintf("echo 'realms: {opcon: {model: opcon, agent: %s}}' >> /etc/batchwarden/batchwarden.yaml", testbed.Agent))
	m.sh(fmt.Sprintf(`cat > /etc/batchwarden/clients.d/lsam.yaml <<'END'
version: 1
clients:
  - {name: lsam, match: {user: %[1]s}, realms: [opcon], may: [authorize, launch], subjects: {users: ["*"]}, batch_users: ["*"]}
END
sed -i 's/^requesters: .*/requesters: [%[1]s]/' /etc/batchwarden/limits.yaml`, m.b.Accounts.LSAM.Name))
	m.ok("/usr/bin/batchwarden", "config", "check", "--limits", "/etc/batchwarden/limits.yaml")
	m.ok("/usr/bin/batchwarden", "setup", "restart")
	m.ready()
}

// ready waits until the service can decide and launch, by what Vault said since it was started.
func (m *installed) ready() {
	m.t.Helper()
	if err := m.waitFor("/bin/sh", "-c", "/usr/bin/batchwarden status --json | grep -q '\"state\": \"online\"' && /usr/bin/batchwarden status"); err != nil {
		m.t.Fatal(err)
	}
}

// TestInstall is the life of an installation made by setup install from the built programs.
func TestInstall(t *testing.T) {
	testbed.NeedMachine(t)
	m := boot(t, testbed.New(t, testbed.Options{}))
	setup := []string{m.b.Bin + "/batchwarden", "setup"}
	install := append(slices.Clone(setup), "install", "--answers", m.answers())

	before := m.sh(leftovers)
	t.Log(m.ok(install...))
	for _, unit := range []string{"batchwarden.socket", "batchwarden-launcher.service", "batchwardend.service"} {
		if got := m.show(unit, "ActiveState"); got != "active" {
			t.Errorf("%s is %s", unit, got)
		}
		if got := m.show(unit, "UnitFileState"); got != "enabled" {
			t.Errorf("%s is %s", unit, got)
		}
	}
	if out := m.ok(install...); !strings.Contains(out, "Nothing had to be changed") || strings.Contains(out, "done") {
		t.Errorf("a second run says: %s", out)
	}
	if r := m.Command("/usr/bin/batchwarden", "status"); r.Code == 0 || !strings.Contains(r.Out, "realm.none: ") || !strings.Contains(r.Out, "Name the controllers of this machine under realms") {
		t.Errorf("status without a realm: %+v", r)
	}
	m.configure()

	t.Run("memfd_secret, and no problem but none expected", func(t *testing.T) {
		s := m.status()
		if s.Memory.Backend != "memfd_secret" || s.State != wire.StateOnline || len(s.Problems) > 0 {
			t.Errorf("memory %+v, state %s, problems %+v", s.Memory, s.State, s.Problems)
		}
		if !strings.HasPrefix(s.Launcher.Containment, "cgroup ") {
			t.Errorf("jobs are kept together by %q", s.Launcher.Containment)
		}
		if err := m.waitFor("/bin/sh", "-c", "systemctl show --property=StatusText batchwardend.service | grep -q =online"); err != nil {
			t.Error(err)
		}
		m.ok("/usr/bin/batchwarden", "setup", "status")
	})
	t.Run("owners and modes", func(t *testing.T) {
		got := m.sh("stat -c '%U:%G %a %n' /etc/batchwarden /etc/batchwarden/* /run/batchwarden /run/batchwarden/batchwarden.sock " +
			"/run/batchwarden-launcher /run/batchwarden-launcher/launcher.sock /var/lib/batchwarden /var/lib/batchwarden/key /var/lib/batchwarden-launcher")
		for _, want := range strings.Split(modes, "\n") {
			if !strings.Contains(got, want+"\n") {
				t.Errorf("%q is not among\n%s", want, got)
			}
		}
	})
	t.Run("a job has none of the sandbox", m.unconfined)
	t.Run("a restart of either leaves a job alone", m.outlives)
	t.Run("a caller waits for a launcher that is started for it", m.activated)
	t.Run("the watchdog ends a daemon that hangs", func(t *testing.T) { m.hangs(t, "batchwardend.service") })
	t.Run("the watchdog ends a launcher that hangs", func(t *testing.T) { m.hangs(t, "batchwarden-launcher.service") })
	t.Run("uninstall", func(t *testing.T) { m.uninstall(t, before) })
}

const modes = `root:root 755 /etc/batchwarden
root:root 644 /etc/batchwarden/batchwarden.yaml
root:root 755 /etc/batchwarden/clients.d
root:root 600 /etc/batchwarden/limits.yaml
batchwarden-sync:batchwarden-sync 400 /etc/batchwarden/role_id
batchwarden-sync:batchwarden-sync 400 /etc/batchwarden/secret_id
root:root 644 /etc/batchwarden/vault-ca.pem
root:root 755 /run/batchwarden
root:root 666 /run/batchwarden/batchwarden.sock
root:batchwarden 750 /run/batchwarden-launcher
root:batchwarden 660 /run/batchwarden-launcher/launcher.sock
batchwarden:batchwarden 700 /var/lib/batchwarden
batchwarden:batchwarden 400 /var/lib/batchwarden/key
root:root 700 /var/lib/batchwarden-launcher`

// leftovers lists everything that is named after us on a machine.
const leftovers = "find / -xdev -name '*batchwarden*' -not -path '/proc/*' -not -path '/sys/*' | sort; grep -h batchwarden /etc/passwd /etc/group /etc/shadow /etc/gshadow; true"

// run begins a job and returns when it runs.
func (m *installed) run(t *testing.T, id, script string) {
	t.Helper()
	r := m.asLSAM("run", "--realm", "opcon", "--subject", testbed.User, "--as", "payroll", "--id", id, "--detach", "--", "/bin/sh", "-c", script)
	if r.Code != 0 {
		t.Fatalf("run: exit %d %s%s", r.Code, r.Out, r.Err)
	}
}

// unconfined compares a job with what systemd gives a service without a sandbox: process 1 itself has none.
func (m *installed) unconfined(t *testing.T) {
	script := `grep -E '^(Seccomp|Seccomp_filters|NoNewPrivs|CapBnd):' /proc/self/status; readlink /proc/self/ns/mnt /proc/self/ns/net /proc/self/ns/user /proc/self/ns/ipc; sort /proc/self/mountinfo | md5sum; ulimit -Hn; ulimit -Sn; ulimit -l; cat /proc/self/oom_score_adj`
	r := m.asLSAM("run", "--realm", "opcon", "--subject", testbed.User, "--as", "payroll", "--", "/bin/sh", "-c", "id -un; "+script)
	if r.Code != 0 {
		t.Fatalf("run: exit %d %s%s", r.Code, r.Out, r.Err)
	}
	// A service that has no line but its command; what it may is what the manager gives everybody.
	plain := m.ok("systemd-run", "--quiet", "--wait", "--pipe", "--collect", "--uid="+m.b.Accounts.Payroll.Name, "/bin/sh", "-c", "id -un; "+script)
	if r.Out != plain {
		t.Errorf("the job has\n%s\na plain service\n%s", r.Out, plain)
	}
	if !strings.Contains(r.Out, "NoNewPrivs:\t0\n") {
		t.Errorf("the job is confined: %s", r.Out)
	}
	// And the comparison can fail: the daemon has all of it. One filter is the machine's own.
	daemon := m.sh(fmt.Sprintf("grep -E '^(Seccomp|Seccomp_filters|NoNewPrivs|CapBnd):' /proc/%s/status", m.show("batchwardend.service", "MainPID")))
	for _, want := range []string{"Seccomp:\t2\n", "NoNewPrivs:\t1\n", "CapBnd:\t0000000000000000\n"} {
		if !strings.Contains(daemon, want) {
			t.Errorf("the daemon is not confined: %s", daemon)
		}
	}
	if filters := line(daemon, "Seccomp_filters:"); filters == "" || strings.Contains(r.Out, filters) {
		t.Errorf("the daemon has as many filters as the job:\n%s\n%s", daemon, r.Out)
	}
}

// line is the one that begins so.
func line(text, begin string) string {
	for l := range strings.Lines(text) {
		if strings.HasPrefix(l, begin) {
			return l
		}
	}
	return ""
}

// outlives restarts each service below one job.
func (m *installed) outlives(t *testing.T) {
	fifo := filepath.Join(m.b.Accounts.Payroll.Home, "go-on")
	m.ok("runuser", "-u", m.b.Accounts.Payroll.Name, "--", "mkfifo", fifo)
	m.run(t, "survivor", "read x < "+fifo+"; exit 7")
	began := m.job("survivor")
	for _, unit := range []string{"batchwardend.service", "batchwarden-launcher.service"} {
		pid := m.show(unit, "MainPID")
		m.ok("systemctl", "restart", unit)
		m.ready()
		if now := m.show(unit, "MainPID"); now == pid {
			t.Errorf("%s was not restarted", unit)
		}
		if j := m.job("survivor"); j.State != wire.Running || j.PID != began.PID {
			t.Errorf("after the restart of %s: %+v, want pid %d running", unit, j, began.PID)
		}
	}
	m.refuses([]string{"/usr/bin/batchwarden", "setup", "uninstall"}, 1, "1 job still running", "Nothing was changed", "--force")
	m.sh("echo x > " + fifo)
	if err := m.waitFor("/bin/sh", "-c", "runuser -u "+m.b.Accounts.LSAM.Name+" -- /usr/bin/batchwarden jobs --json survivor | grep -q exited"); err != nil {
		t.Fatal(err)
	}
	if j := m.job("survivor"); j.State != wire.Exited || j.ExitCode == nil || *j.ExitCode != 7 {
		t.Errorf("the job ended as %+v, want exit code 7", j)
	}
}

// activated stops the launcher, with the daemon, and calls: systemd starts the launcher for the socket.
func (m *installed) activated(t *testing.T) {
	m.ok("systemctl", "stop", "batchwardend.service", "batchwarden-launcher.service")
	if r := m.Command("timeout", "1", "/usr/bin/batchwarden", "whoami"); r.Code == 0 {
		t.Errorf("it was answered without a daemon: %s", r.Out)
	}
	if err := m.waitFor("systemctl", "is-active", "--quiet", "batchwarden-launcher.service"); err != nil {
		t.Error(err)
	}
	m.ok("/usr/bin/batchwarden", "setup", "start")
	m.ready()
}

// hangs stops a service's process with a watchdog that is soon impatient.
func (m *installed) hangs(t *testing.T, unit string) {
	dir := "/run/systemd/system/" + unit + ".d"
	m.sh("mkdir -p " + dir + "; printf '[Service]\\nWatchdogSec=1\\n' > " + dir + "/soon.conf; systemctl daemon-reload; systemctl restart " + unit)
	m.ready()
	pid, ends := m.show(unit, "MainPID"), m.show(unit, "NRestarts")
	m.sh("kill -STOP " + pid)
	if err := m.waitFor("/bin/sh", "-c", fmt.Sprintf(`test "$(systemctl show --value --property=NRestarts %s)" != %s`, unit, ends)); err != nil {
		t.Fatal(err)
	}
	m.ready()
	if now := m.show(unit, "MainPID"); now == pid {
		t.Errorf("process %s still runs", pid)
	}
	if out := m.ok("journalctl", "--no-pager", "--unit="+unit); !strings.Contains(out, "Watchdog timeout") {
		t.Errorf("it was not the watchdog: %s", out)
	}
	m.sh("rm -r " + dir + "; systemctl daemon-reload; systemctl restart " + unit)
	m.ready()
}

// uninstall keeps data first, and then leaves nothing.
func (m *installed) uninstall(t *testing.T, before string) {
	self := m.b.Bin + "/batchwarden"
	m.ok("/usr/bin/batchwarden", "setup", "uninstall")
	for _, gone := range []string{"/usr/bin/batchwarden", "/usr/lib/batchwarden", "/etc/systemd/system/batchwardend.service", "/run/batchwarden"} {
		if m.Command("test", "-e", gone).Code == 0 {
			t.Errorf("%s is still there", gone)
		}
	}
	m.ok("test", "-s", "/var/lib/batchwarden/audit.jsonl", "-a", "-s", "/etc/batchwarden/batchwarden.yaml")
	m.refuses([]string{self, "setup", "start"}, 1, "not installed", "setup install")
	// What was kept is taken up again.
	t.Log(m.ok(self, "setup", "install"))
	m.ready()
	if j := m.job("survivor"); j.State != wire.Exited {
		t.Errorf("the job of before is %+v", j)
	}
	t.Log(m.ok(self, "setup", "uninstall", "--purge"))
	if after := m.sh(leftovers); after != before {
		t.Errorf("left:\n%s\nbefore the installation there was:\n%s", after, before)
	}
	if out := m.ok(self, "setup", "uninstall", "--purge"); !strings.Contains(out, "Nothing had to be changed") {
		t.Errorf("a second run says: %s", out)
	}
	if out := m.ok("systemctl", "list-units", "--all", "--plain", "--no-legend", "batchwarden*"); strings.TrimSpace(out) != "" {
		t.Errorf("systemd still knows:\n%s", out)
	}
}
