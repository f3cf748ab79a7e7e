package daemon_test

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"batchwarden/daemon/doctor"
	"batchwarden/installer/testbed"
)

// A breakage is something that really happens to a machine. made makes it and returns how it is mended.
type breakage struct {
	name   string
	made   func() (mend func())
	check  string // that names it
	reason string // in what it says
	also   string // checks that follow from it, apart from which nothing else may be a problem
}

// A ward is a bed that is examined.
type ward struct {
	*testbed.Bed
	t *testing.T
}

// examined is what doctor says, by the name of the check, to whom, of a configuration.
func (w *ward) examined(as testbed.Account, file string) (map[string]doctor.Check, testbed.Result) {
	w.t.Helper()
	r := w.CLI(as, "doctor", "--json", "--config", file, "--limits", w.LimitsFile())
	var said struct {
		Healthy bool
		Checks  []doctor.Check
	}
	if err := json.Unmarshal([]byte(r.Out), &said); err != nil {
		w.t.Fatalf("doctor: code %d, %q, %q: %v", r.Code, r.Out, r.Err, err)
	}
	if healthy := r.Code == 0; said.Healthy != healthy || r.Code > 1 {
		w.t.Errorf("exit code %d, healthy %v", r.Code, said.Healthy)
	}
	all := map[string]doctor.Check{}
	for _, c := range said.Checks {
		if _, twice := all[c.Name]; twice || c.Reason == "" || c.Result == doctor.Problem && c.Mend == "" {
			w.t.Errorf("there twice, or without a reason or what mends it: %+v", c)
		}
		all[c.Name] = c
	}
	return all, r
}

// faulty are the names of the checks that came out so, in order.
func faulty(all map[string]doctor.Check) (names []string) {
	for name, c := range all {
		if c.Result == doctor.Problem {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// healthy wants no problem.
func (w *ward) healthy(when string) {
	w.t.Helper()
	all, _ := w.examined(testbed.Root, w.ConfigFile())
	for _, name := range faulty(all) {
		w.t.Fatalf("%s: %+v", when, all[name])
	}
}

// diagnose makes each breakage, wants doctor to name it and nothing else, and mends it.
func (w *ward) diagnose(list []breakage) {
	for _, b := range list {
		ok := w.t.Run(b.name, func(t *testing.T) {
			inner := &ward{w.Bed, t}
			outer := w.t
			w.t = t // what makes and mends it complains here
			defer func() { w.t = outer }()
			mend := b.made()
			inner.names(b, w.ConfigFile())
			if mend != nil {
				mend()
			}
		})
		if !ok {
			w.t.Logf("%s", w.CLI(testbed.Root, "doctor", "--config", w.ConfigFile(), "--limits", w.LimitsFile()).Out)
		}
	}
}

// names wants doctor to name the breakage.
func (w *ward) names(b breakage, file string) {
	w.t.Helper()
	all, r := w.examined(testbed.Root, file)
	c := all[b.check]
	if c.Result != doctor.Problem || !strings.Contains(c.Reason, b.reason) {
		w.t.Errorf("got %+v, want a problem with %q in its reason", c, b.reason)
	}
	for _, name := range faulty(all) {
		if name != b.check && !slices.Contains(strings.Fields(b.also), name) {
			w.t.Errorf("named too: %+v", all[name])
		}
	}
	if r.Code != 1 {
		w.t.Errorf("exit code %d", r.Code)
	}
	if r.Took.Seconds() > 5 {
		w.t.Errorf("it took %v", r.Took)
	}
	w.t.Logf("%v %s: %s\n    mend: %s", r.Took.Round(1e6), c.Name, c.Reason, c.Mend)
}

// TestDoctor: whatever breaks, doctor names exactly that.
func TestDoctor(t *testing.T) {
	w := &ward{testbed.New(t, testbed.Options{}), t}
	w.healthy("at first")
	payroll, reports := "account."+w.Accounts.Payroll.Name, "account."+w.Accounts.Reports.Name
	vault := w.State + "/vault/vault.log"

	w.diagnose([]breakage{
		{"a CA that did not issue the server's certificate", w.otherCA, "vault.tls", "not of a CA in", ""},
		{"a CA file that is none", func() func() { return w.write(w.Etc+"/vault-ca.pem", "no certificate\n") }, "vault.tls", "no certificate in PEM", ""},
		{"the server's certificate has expired", w.expiredCertificate, "vault.tls", "has expired", ""},
		{"the server is sealed", w.sealed, "vault.health", "sealed", ""},
		{"the server is down", w.vaultDown, "vault.reachable", "connection refused", ""},
		{"the server hangs", w.vaultHangs, "vault.reachable", "does not answer", ""},
		{"the clock is a day behind the server's", w.dayAhead, "clock", "behind Vault's", ""},
		{"a secret_id that was used up", w.usedSecret, "vault.login", "invalid", "sync"},
		{"a secret_id that has expired", w.expiredSecret, "vault.login", "invalid", "sync"},
		{"a secret_id for one login", w.lastSecret, "vault.secret_id", "next login will be refused", ""},
		{"no permission on a path", w.lostPermission, "vault.policy", "machines/db01", "sync"},
		{"the mount is not there", w.noMount, "vault.policy", "machines/db01", "sync"},
		{"a document that cannot be used", w.badDocument, "documents", "batch_users/odd", ""},
		{"a secret_id that everybody can read", func() func() { return w.chmod(w.Etc+"/secret_id", 0o444) }, "vault.files", "mode 0444", ""},
		{"no role_id", func() func() { return w.rename(w.Etc + "/role_id") }, "vault.files", "role_id", ""},

		{"limits.yaml that others can read", func() func() { return w.chmod(w.LimitsFile(), 0o644) }, "limits.permissions", "mode 0644", ""},
		{"limits.yaml of another owner", func() func() { return w.chown(w.LimitsFile(), w.Accounts.Stranger) }, "limits.permissions", "owned by uid", ""},
		{"no limits.yaml", func() func() { return w.rename(w.LimitsFile()) }, "limits", "does not exist", ""},
		{"a limits.yaml that cannot be read", w.limitsDirectory, "limits", "is a directory", ""},
		{"a fault in limits.yaml", func() func() { return w.write(w.LimitsFile(), "version: 1\nrequesters: lsam\n") }, "limits", "limits.yaml:2", ""},
		{"limits.yaml names nobody", w.lostRequester, "limits.entries", "no-such-user", ""},
		{"a fault in the configuration", w.faultyConfiguration, "configuration", "batchwarden.yaml:2", "sync other"},
		{"a configuration that everybody can write", w.open, "configuration.permissions", "mode 0666", "sync other"},

		{"a locked account", w.locked, payroll, "locked", ""},
		{"an expired account", func() func() {
			return w.usermod(w.Accounts.Payroll.Name, []string{"--expiredate", "1"}, "--expiredate", "")
		}, payroll, "expired on 1970-01-02", ""},
		{"an account without its shell", func() func() {
			return w.usermod(w.Accounts.Payroll.Name, []string{"--shell", "/opt/no/shell"}, "--shell", "/bin/sh")
		}, payroll, "/opt/no/shell is not there", ""},
		{"an account without its home", func() func() { return w.rename(w.Accounts.Reports.Home) }, reports, "chdir.failed", ""},
		{"no account", func() func() {
			return w.usermod(w.Accounts.Reports.Name, []string{"--login", "bw-other"}, "--login", w.Accounts.Reports.Name)
		}, reports, "does not exist", ""},

		{"the socket is not root's", func() func() { return w.chown(w.Socket, w.Accounts.Stranger) }, "socket", "belongs to uid", ""},
		{"others can replace the launcher's socket", func() func() { return w.chmod(w.Root+"/launcher", 0o777) }, "socket.launcher", "writable by others", ""},
		{"others can write the state", func() func() { return w.chmod(w.State, 0o777) }, "directories", "mode 0777", "local_vault"},
		{"a local vault that was changed", func() func() { return w.flip(vault, 2) }, "local_vault", "not what was written", ""},
		{"no key to the local vault", func() func() { return w.rename(w.State + "/key") }, "local_vault", "the key is missing", ""},
		{"a local vault that was set aside", w.quarantined, "local_vault", "1 files set aside", ""},
		{"an audit log that was changed", func() func() { return w.flip(w.AuditFile(), 3) }, "audit", "audit.jsonl:", ""},

		{"no cgroup", w.noCgroup, "cgroup", "no cgroup v2 to use", ""},
		{"an older launcher", w.otherLauncher, "versions", "batchwarden-launcher is v0.0.1-other", ""},
		{"a newer launcher is installed and not started", w.replacedLauncher, "versions", "was replaced", ""},
		{"launching is suspended", w.suspended, "suspension", "no job is started", ""},
		{"the launcher is down", w.launcherDown, "launcher", "does not reach it", ""},
		{"the service is down", w.daemonDown, "daemon", "does not run", ""},
		{"the machine was removed in Vault", w.machineRemoved, "vault.scopes", "removed in Vault", "policies"},
		{"the machine's login was removed in Vault", w.loginRemoved, "vault.login", "invalid", "sync policies"},
	})
}

// TestDoctorDisk: a file system without room, or without inodes.
func TestDoctorDisk(t *testing.T) {
	b := newDiskBed(t, false)
	w := &ward{b.Bed, t}
	w.healthy("at first")
	w.diagnose([]breakage{
		{"a full disk", b.fill, "disk.state", "0 B free", "audit"},
		{"no inodes", w.noInodes, "disk.state", "inodes for 0 more files", "audit"},
		{"a read-only disk", w.readOnly, "disk.state", "read-only", "daemon"},
	})
}

// TestDoctorMemlock: the service may lock too little.
func TestDoctorMemlock(t *testing.T) {
	w := &ward{testbed.New(t, testbed.Options{DaemonUnder: []string{"prlimit", "--memlock=65536:65536"}}), t}
	w.names(breakage{check: "memlock", reason: "may lock 64.0 KiB", also: "memory"}, w.ConfigFile())
}

// Who is not root is told what he cannot see, and who can; and nothing that he cannot know is called well.
func TestDoctorWithoutRoot(t *testing.T) {
	w := &ward{testbed.New(t, testbed.Options{}), t}
	for _, as := range []testbed.Account{w.Accounts.Stranger, w.Accounts.LSAM} {
		all, r := w.examined(as, w.ConfigFile())
		if r.Code != 0 || len(faulty(all)) > 0 {
			t.Errorf("%s: code %d, problems %q", as.Name, r.Code, faulty(all))
		}
		for _, name := range []string{"limits", "limits.permissions", "vault.files", "audit", "socket.launcher"} {
			if c := all[name]; c.Result != doctor.Unknown || !strings.Contains(c.Mend, "root") {
				t.Errorf("%s: %+v", as.Name, c)
			}
		}
		want := doctor.Unknown
		if as.Name == w.Accounts.LSAM.Name { // a client sees the status
			want = doctor.OK
		}
		for _, name := range []string{"daemon", "sync", "memory", "policies"} {
			if c := all[name]; c.Result != want {
				t.Errorf("%s: got %+v, want %s", as.Name, c, want)
			}
		}
	}
	if err := w.Daemon.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := w.StopVault(); err != nil {
		t.Fatal(err)
	}
	all, r := w.examined(w.Accounts.Stranger, w.ConfigFile())
	if got, want := faulty(all), []string{"daemon", "vault.reachable"}; !slices.Equal(got, want) || r.Took.Seconds() > 5 {
		t.Errorf("all down: %q in %v, want %q", got, r.Took, want)
	}
	if _, err := os.Stat(w.Socket); err != nil {
		t.Error(err)
	}
}
