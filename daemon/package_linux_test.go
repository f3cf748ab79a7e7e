package daemon_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// TestPackage is the life of an installation made by the package: on a system of today, and as on RHEL 8.
func TestPackage(t *testing.T) {
	testbed.NeedMachine(t)
	old := oldDeb(t)
	t.Run("today", func(t *testing.T) { packaged(t, old) })
	t.Run("an older system", func(t *testing.T) { olderSystem(t, old) })
}

// command runs a program of this machine that has to succeed.
func command(t *testing.T, env []string, argv ...string) string {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%q: %v\n%s", argv, err, out)
	}
	return string(out)
}

const oldVersion = "0.0.9"

// oldDeb makes this tree's package under an older version's number, and returns its file.
func oldDeb(t *testing.T) string {
	t.Helper()
	top, err := testbed.Top()
	if err != nil {
		t.Fatal(err)
	}
	nfpm := top + "/build/tools/nfpm"
	if _, err := os.Stat(nfpm); err != nil {
		how := "needs nfpm; run: make build/tools/nfpm"
		if os.Getenv(testbed.NoSkip) == "1" {
			t.Fatal(how)
		}
		t.Skip(how)
	}
	dir := t.TempDir()
	command(t, []string{"NFPM=" + nfpm, "VERSION=" + oldVersion, "FORMATS=deb", "ARCHES=" + runtime.GOARCH}, top+"/installer/package/dist", dir)
	return filepath.Join(dir, "batchwarden_"+oldVersion+"_"+runtime.GOARCH+".deb")
}

// newDeb makes a package of the next version from one: with the programs in bin, whose version it returns, and all else
// as it was.
func newDeb(t *testing.T, old, bin, out string) (number string) {
	t.Helper()
	var v struct{ Version string }
	if err := json.Unmarshal([]byte(command(t, nil, bin+"/batchwarden", "version", "--json")), &v); err != nil || v.Version == "" {
		t.Fatalf("the version in %s is %q: %v", bin, v.Version, err)
	}
	dir := filepath.Join(t.TempDir(), "deb")
	command(t, nil, "dpkg-deb", "--raw-extract", old, dir)
	command(t, nil, "sed", "-i", "s/^Version: .*/Version: "+v.Version+"/", dir+"/DEBIAN/control")
	command(t, nil, "rm", dir+"/DEBIAN/md5sums") // they are of the other programs
	command(t, nil, "cp", bin+"/batchwarden", dir+"/usr/bin/")
	command(t, nil, "sh", "-c", `for f in "$0"/usr/lib/batchwarden/*; do cp "$1/${f##*/}" "$f" || exit; done`, dir, bin)
	command(t, nil, "dpkg-deb", "-Znone", "--root-owner-group", "--build", dir, out)
	return v.Version
}

// fromPackage installs the package and sets it up; what the operator configures beside that is the text.
func fromPackage(t *testing.T, m *installed, deb, more string) {
	t.Helper()
	there := m.b.Root + "/old.deb"
	command(t, nil, "cp", deb, there)
	if out := m.ok("dpkg", "--install", there); !strings.Contains(out, "Next: batchwarden setup install") {
		t.Errorf("dpkg does not say what comes next: %s", out)
	}
	t.Log(m.ok("/usr/bin/batchwarden", "setup", "install", "--answers", m.answers()))
	m.sh("cat >> /etc/batchwarden/batchwarden.yaml <<'END'\n" + more + "END\n")
	m.configure()
}

// lasting is a job that goes on until it is told to end.
type lasting struct {
	*installed
	began wire.Job
	fifo  string
}

func (m *installed) lasting(t *testing.T, id string) *lasting {
	t.Helper()
	fifo := filepath.Join(m.b.Accounts.Payroll.Home, id)
	m.ok("runuser", "-u", m.b.Accounts.Payroll.Name, "--", "mkfifo", fifo)
	m.run(t, id, "read x < "+fifo+"; exit 7")
	return &lasting{m, m.job(id), fifo}
}

// goesOn checks that the job runs and that others can be started.
func (l *lasting) goesOn(t *testing.T, after string) {
	t.Helper()
	if j := l.job(l.began.ID); j.State != wire.Running || j.PID != l.began.PID || j.PID == 0 {
		t.Errorf("after %s: %+v, want it running as process %d", after, j, l.began.PID)
	}
	l.asPayroll(t, after)
}

// ends lets it end, and checks how it did.
func (l *lasting) ends(t *testing.T) {
	t.Helper()
	l.sh("echo x > " + l.fifo)
	if err := l.waitFor("/bin/sh", "-c", "runuser -u "+l.b.Accounts.LSAM.Name+" -- /usr/bin/batchwarden jobs --json "+l.began.ID+" | grep -q exited"); err != nil {
		t.Fatal(err)
	}
	if j := l.job(l.began.ID); j.ExitCode == nil || *j.ExitCode != 7 || j.PID != l.began.PID {
		t.Errorf("it ended as %+v, want exit code 7", j)
	}
}

// asPayroll runs a job that says who it is.
func (m *installed) asPayroll(t *testing.T, when string) {
	t.Helper()
	r := m.asLSAM("run", "--realm", "opcon", "--subject", testbed.User, "--as", "payroll", "--", "/bin/sh", "-c", "id -un; exit 3")
	if r.Code != 3 || r.Out != m.b.Accounts.Payroll.Name+"\n" {
		t.Errorf("%s: a job ended with %d, %s%s; want 3 as %s", when, r.Code, r.Out, r.Err, m.b.Accounts.Payroll.Name)
	}
}

const credentials = `systemd_socket: /run/batchwarden/systemd.sock
clients:
  - {name: pay-service, match: {credential_unit: pay.service}, realms: [opcon], may: [retrieve], subject: {user: ` + testbed.User + `}, object: {}, batch_users: [payroll]}
`

func packaged(t *testing.T, old string) {
	b := testbed.New(t, testbed.Options{})
	newer := b.Root + "/new.deb"
	number := newDeb(t, old, b.Bin, newer)
	m := boot(t, b)
	before := m.sh(leftovers)
	fromPackage(t, m, old, credentials)
	if s := m.status(); s.Memory.Backend != "memfd_secret" || s.Version != oldVersion || len(s.Problems) > 0 {
		t.Errorf("memory %+v, version %s, problems %+v", s.Memory, s.Version, s.Problems)
	}
	job := m.lasting(t, "lasting")
	job.goesOn(t, "the installation")

	t.Run("a unit reads a secret", m.loads)
	t.Run("reload", func(t *testing.T) { m.reloads(t); job.goesOn(t, "the reload") })
	for _, unit := range []string{"batchwardend.service", "batchwarden-launcher.service"} {
		t.Run("restart "+unit, func(t *testing.T) {
			m.again(t, unit, func(string) { m.ok("systemctl", "restart", unit) })
			job.goesOn(t, "the restart")
		})
		t.Run("kill "+unit, func(t *testing.T) {
			m.again(t, unit, func(pid string) { m.sh("kill -KILL " + pid) })
			job.goesOn(t, "the kill")
		})
	}
	t.Run("the watchdog", func(t *testing.T) {
		m.hangs(t, "batchwardend.service")
		job.goesOn(t, "the watchdog")
	})
	t.Run("kill the sync worker", func(t *testing.T) { m.killsWorker(t); job.goesOn(t, "the kill") })
	t.Run("kill the PAM helper", func(t *testing.T) { m.killsHelper(t); job.goesOn(t, "the kill") })
	t.Run("kill what becomes another user", func(t *testing.T) { m.killsBecome(t); job.goesOn(t, "the kill") })
	t.Run("upgrade", func(t *testing.T) { m.upgrades(t, newer, number, job) })
	t.Run("the job ends as it wants", job.ends)
	t.Run("remove and purge", func(t *testing.T) { m.removes(t, before) })
}

// loads starts a unit that systemd gives a secret, and one that it gives none.
func (m *installed) loads(t *testing.T) {
	for _, name := range []string{"pay", "other"} {
		m.sh(fmt.Sprintf("cat > /run/systemd/system/%s.service <<'END'\n[Service]\nType=oneshot\nUser=%s\nLoadCredential=payroll:/run/batchwarden/systemd.sock\n"+
			"ExecStart=/bin/sh -c 'cat \"$CREDENTIALS_DIRECTORY/payroll\" > pay.out'\nWorkingDirectory=%s\nEND",
			name, m.b.Accounts.Payroll.Name, m.b.Accounts.Payroll.Home))
	}
	m.ok("systemctl", "daemon-reload")
	m.ok("systemctl", "start", "pay.service")
	if got := m.ok("cat", m.b.Accounts.Payroll.Home+"/pay.out"); got != m.b.Passwords()[0] {
		t.Errorf("the unit read %q, want the password", got)
	}
	if r := m.Command("systemctl", "start", "other.service"); r.Code == 0 {
		t.Error("another unit started")
	}
	m.sh("rm /run/systemd/system/pay.service /run/systemd/system/other.service; systemctl daemon-reload; systemctl reset-failed other.service")
}

// reloads adds a client, and then a fault.
func (m *installed) reloads(t *testing.T) {
	const file = "/etc/batchwarden/clients.d/second.yaml"
	who := []string{"runuser", "-u", m.b.Accounts.Reports.Name, "--", "/usr/bin/batchwarden", "whoami", "--json"}
	if out := m.Command(who...).Out; strings.Contains(out, `"second"`) {
		t.Fatalf("before: %s", out)
	}
	pid := m.show("batchwardend.service", "MainPID")
	m.sh("printf 'version: 1\\nclients: [{name: second, match: {user: " + m.b.Accounts.Reports.Name + "}, realms: [opcon], may: [authorize]}]\\n' > " + file)
	m.ok("systemctl", "reload", "batchwardend.service")
	if err := m.waitFor("/bin/sh", "-c", strings.Join(who, " ")+` | grep -q '"client": "second"'`); err != nil {
		t.Error(err)
	}
	m.sh("echo 'no: such' >> " + file)
	m.ok("systemctl", "reload", "batchwardend.service")
	if err := m.waitFor("/bin/sh", "-c", `/usr/bin/batchwarden status --json | grep -q second.yaml`); err != nil {
		t.Error(err)
	}
	if out := m.ok(who...); !strings.Contains(out, `"client": "second"`) {
		t.Errorf("a refused configuration has changed something: %s", out)
	}
	m.sh("rm " + file + "; systemctl reload batchwardend.service")
	m.ready()
	if now := m.show("batchwardend.service", "MainPID"); now != pid {
		t.Errorf("process %s has become %s", pid, now)
	}
}

// again has something happen to a service, whose next process has to be ready.
func (m *installed) again(t *testing.T, unit string, happen func(pid string)) {
	t.Helper()
	pid := m.show(unit, "MainPID")
	happen(pid)
	if err := m.waitFor("/bin/sh", "-c", fmt.Sprintf(`now=$(systemctl show --value --property=MainPID %s) && [ "$now" != %s ] && [ "$now" != 0 ]`, unit, pid)); err != nil {
		t.Fatal(err)
	}
	m.ready()
}

// killed is a script that kills a program as soon as it runs, and says how the command in the background ended. A become
// that still is root's waits for another job.
func killed(program string) string {
	find := "pidof " + program
	if program == "batchwarden-become" {
		find = "for p in $(pidof " + program + "); do grep -q '^Uid:.0' /proc/$p/status || echo $p; done | grep ."
	}
	return "while kill -0 $! && ! pid=$(" + find + "); do sleep 0.01; done; kill -KILL $pid; wait $!; echo \"exit $?\""
}

// killsLaunch kills a program while a launch waits for it, which then says so.
func (m *installed) killsLaunch(t *testing.T, as, dir, program, says string) {
	t.Helper()
	out := m.sh("runuser -u " + m.b.Accounts.LSAM.Name + " -- /usr/bin/batchwarden run --realm opcon --subject " + testbed.User +
		" --as " + as + " --dir " + dir + " -- /bin/true 2>&1 & " + killed(program))
	if !strings.Contains(out, says) || !strings.HasSuffix(out, "exit 125\n") {
		t.Errorf("run says: %s", out)
	}
}

// killsHelper kills the PAM helper while a module keeps it waiting: that job was not started, and others are.
func (m *installed) killsHelper(t *testing.T) {
	m.sh("mkfifo /run/slow; printf 'account required pam_permit.so\\nsession required pam_exec.so /bin/cat /run/slow\\n' > /etc/pam.d/slow")
	slow := map[string]any{"format": 1, "username": m.b.Accounts.Reports.Name, "kind": "none", "names": map[string]string{testbed.Realm: "users/reports"}, "pam": "slow"}
	if err := m.b.PutDocument("reports", slow); err != nil {
		t.Fatal(err)
	}
	m.ok("/usr/bin/batchwarden", "sync")
	m.killsLaunch(t, "reports", "/", "batchwarden-pam", "launch.failed: pam: ")
	m.sh(": <> /run/slow; rm /run/slow /etc/pam.d/slow") // what the module started ends
}

// killsBecome kills the program that becomes another user while a directory keeps it waiting, as one of NFS that is gone.
func (m *installed) killsBecome(t *testing.T) {
	// Whoever asks this file system for anything waits for its server, which there is none of.
	server, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close() // then nobody waits any more
	m.sh("mkdir /srv/stalled")
	mount := exec.Command("nsenter", "--mount="+strings.TrimSuffix(m.Path(""), "root")+"ns/mnt", "--", "mount", "--internal-only",
		"--types", "fuse", "--options", "fd=3,rootmode=40755,user_id=0,group_id=0,allow_other", "stalled", "/srv/stalled")
	mount.ExtraFiles = []*os.File{server}
	if text, err := mount.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
	m.killsLaunch(t, "payroll", "/srv/stalled", "batchwarden-become", "launch.failed: ")
	m.asPayroll(t, "after that")
	m.sh("umount --lazy /srv/stalled; rmdir /srv/stalled")
}

// killsWorker kills the sync worker, which waits for a Vault that has stopped.
func (m *installed) killsWorker(t *testing.T) {
	vault := m.b.VaultPID()
	if err := syscall.Kill(vault, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(vault, syscall.SIGCONT) // it is our child
	out := m.sh(`/usr/bin/batchwarden sync 2>&1 & ` + killed("batchwarden-sync"))
	if strings.Contains(out, "exit 0\n") {
		t.Errorf("sync says: %s", out)
	}
	if err := syscall.Kill(vault, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	m.ok("/usr/bin/batchwarden", "sync")
	m.ready()
}

// upgrades installs the next version under a job. There is no Vault: what is known afterwards the old version has written.
func (m *installed) upgrades(t *testing.T, deb, number string, job *lasting) {
	if err := m.b.StopVault(); err != nil {
		t.Fatal(err)
	}
	daemon, launcher := m.show("batchwardend.service", "MainPID"), m.show("batchwarden-launcher.service", "MainPID")
	m.sh("cp /etc/batchwarden/limits.yaml /etc/batchwarden/batchwarden.yaml /tmp")
	t.Log(m.ok("dpkg", "--install", deb))
	if err := m.waitFor("/bin/sh", "-c", "/usr/bin/batchwarden status"); err != nil {
		t.Fatal(err)
	}
	if s := m.status(); s.Version != number || s.State != wire.StateOffline || s.BatchUsers.Total == 0 {
		t.Errorf("version %s, state %s, batch users %+v; want %s, offline, with what was synced", s.Version, s.State, s.BatchUsers, number)
	}
	if now := m.show("batchwardend.service", "MainPID"); now == daemon {
		t.Error("the old daemon still runs")
	}
	if now := m.show("batchwarden-launcher.service", "MainPID"); now == launcher {
		t.Error("the old launcher still runs")
	}
	job.goesOn(t, "the upgrade")
	m.ok("/usr/bin/batchwarden", "audit", "verify", "--journal")
	m.sh("cd /tmp && cmp limits.yaml /etc/batchwarden/limits.yaml && cmp batchwarden.yaml /etc/batchwarden/batchwarden.yaml")
	if err := m.b.ResumeVault(); err != nil {
		t.Fatal(err)
	}
	m.ok("/usr/bin/batchwarden", "sync")
	m.ready()
}

// removes keeps data and a job first, and then leaves nothing.
func (m *installed) removes(t *testing.T, before string) {
	left := m.lasting(t, "left")
	m.ok("dpkg", "--remove", "batchwarden")
	m.sh(fmt.Sprintf("kill -0 %d && echo x > %s", left.began.PID, left.fifo))
	if err := m.waitFor("/bin/sh", "-c", fmt.Sprintf("! kill -0 %d", left.began.PID)); err != nil {
		t.Error(err)
	}
	m.ok("test", "-s", "/var/lib/batchwarden/audit.jsonl", "-a", "-s", "/etc/batchwarden/batchwarden.yaml", "-a", "!", "-e", "/usr/bin/batchwarden")
	m.ok("dpkg", "--purge", "batchwarden")
	if after := m.sh(leftovers); after != before {
		t.Errorf("left:\n%s\nbefore the installation there was:\n%s", after, before)
	}
	if err := m.waitFor("/bin/sh", "-c", `left=$(systemctl list-units --all --plain --no-legend 'batchwarden*'); echo "$left"; test -z "$left"`); err != nil {
		t.Error(err)
	}
}

// olderSystem is a system without memfd_secret, SO_PEERPIDFD and cgroup v2. Of RHEL 8 it still lacks the C library,
// systemd 239, and what else its kernel does not have, which cannot be taken away here.
func olderSystem(t *testing.T, deb string) {
	b := testbed.New(t, testbed.Options{})
	m := bootedBy(t, b, b.BootOlder)
	before := m.sh(leftovers)
	fromPackage(t, m, deb, "")
	s := m.status()
	if s.Memory.Backend != "memguard" || s.State != wire.StateOnline {
		t.Errorf("memory %+v, state %s", s.Memory, s.State)
	}
	if !strings.HasPrefix(s.Launcher.Containment, "session, subreaper") {
		t.Errorf("jobs are kept together by %q", s.Launcher.Containment)
	}
	// In a unit, since what is run from outside has today's kernel.
	r := m.Command("systemd-run", "--quiet", "--wait", "--pipe", "--collect", "/usr/bin/batchwarden", "doctor")
	for _, lack := range []string{"kernel.memfd_secret", "kernel.so_peerpidfd", "kernel.cgroup_v2"} {
		if !strings.HasPrefix(strings.TrimSpace(strings.TrimPrefix(line(r.Out, "  "+lack), "  "+lack)), "it is not there") {
			t.Errorf("doctor does not say that %s is not there:\n%s%s", lack, r.Out, r.Err)
		}
	}
	job := m.lasting(t, "lasting")
	job.goesOn(t, "the installation")
	for _, unit := range []string{"batchwardend.service", "batchwarden-launcher.service"} {
		m.again(t, unit, func(string) { m.ok("systemctl", "restart", unit) })
		job.goesOn(t, "the restart of "+unit)
		m.again(t, unit, func(pid string) { m.sh("kill -KILL " + pid) })
		job.goesOn(t, "the kill of "+unit)
	}
	job.ends(t)
	m.removes(t, before)
}
