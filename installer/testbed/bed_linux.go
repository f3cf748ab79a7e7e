package testbed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"batchwarden/ipc/wire"
	"batchwarden/vault/vaulttest"
)

// Machine is the bed's name in Vault, and Agent what its realm calls it.
const (
	Machine = "db01"
	Agent   = "DB01_LSAM"
)

// Options say what differs from the usual bed. The zero value is usual.
type Options struct {
	Prefix   string                   // of the accounts' names; "bw" when empty
	Accounts *Accounts                // made by the caller, who removes them
	Interval time.Duration            // sync.interval; an hour when zero, so that syncs happen when a test says so
	Edit     func(yaml string) string // of batchwarden.yaml
	Limits   string                   // instead of the usual limits.yaml
	OnDisk   bool                     // files lie on the machine's disk also in a sandbox, whose /run is memory

	// DaemonUnder is a command that runs the daemon in its own place, as prlimit(1) does.
	DaemonUnder []string
}

// A Bed is a host with everything on it: a Vault server, the programs, their
// files and accounts.
type Bed struct {
	Root   string // everything below is below it
	Bin    string // the programs
	Etc    string // batchwarden.yaml, limits.yaml
	State  string // of the daemon
	Jobs   string // of the launcher
	Logs   string
	Socket string // the public one
	Prefix string // of the accounts' names

	Accounts *Accounts
	Vault    *vaulttest.Server
	Launcher *Process
	Daemon   *Process

	options   Options
	cgroup    string
	ownUsers  bool
	login     login
	passwords []string

	mu      sync.Mutex // guards dialers
	dialers map[string]*dialer
}

var beds atomic.Int64

// New runs a bed for a test, which may be used once New returns: the daemon is
// healthy and has synced. The bed ends with the test; what its programs said is
// shown when the test fails. Needs root: without it the test is skipped.
func New(t TB, o Options) *Bed {
	t.Helper()
	NeedRoot(t)
	if sandboxed == "" {
		t.Fatalf("testbed: this package's TestMain does not call testbed.Main (or: %v)", noSandbox)
	}
	if err := freshen(); err != nil {
		t.Fatalf("%v", err)
	}
	if o.Accounts == nil {
		var err error
		if o.Accounts, err = shared(); err != nil {
			t.Fatalf("testbed: accounts: %v", err)
		}
	}
	b, err := Prepare(o)
	if err != nil {
		t.Fatalf("testbed: %v", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("%s", b.Logbook(60))
		}
		if err := b.Close(); err != nil {
			t.Fatalf("testbed: close: %v", err)
		}
	})
	if err := b.Start(); err != nil {
		t.Fatalf("testbed: %v", err)
	}
	return b
}

// NeedRoot skips a test that needs root when there is none, and fails it where
// nothing may be skipped.
func NeedRoot(t TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	const how = "needs root; run: sudo make test"
	if os.Getenv(NoSkip) == "1" {
		t.Fatalf(how)
	}
	t.Skip(how)
}

// shared are the accounts of all beds in a sandbox, which they end with.
var shared = sync.OnceValues(func() (*Accounts, error) { return NewAccounts("bw", "/run/homes") })

// Prepare makes the directories, the accounts and a copy of the programs, and
// starts nothing. Close undoes it, also when an error is returned with a bed.
func Prepare(o Options) (b *Bed, err error) {
	if o.Prefix == "" {
		o.Prefix = "bw"
	}
	if o.Interval == 0 {
		o.Interval = time.Hour
	}
	id := fmt.Sprintf("%s%d", sandboxID(), os.Getpid())
	if sandboxed == "" {
		if err := errors.Join(removeStaleRoots(o.OnDisk), removeStaleCgroups()); err != nil {
			return nil, err
		}
	}
	id += "-" + strconv.FormatInt(beds.Add(1), 10)
	root := filepath.Join(parent(o.OnDisk), rootPrefix+id)
	b = &Bed{
		Root: root, Bin: root + "/bin", Etc: root + "/etc", State: root + "/state", Jobs: root + "/jobs", Logs: root + "/log",
		Socket: root + "/run/batchwarden.sock", Prefix: o.Prefix,
		Accounts: o.Accounts, options: o, dialers: map[string]*dialer{},
	}
	defer func() {
		if err != nil {
			err, b = errors.Join(err, b.Close()), nil
		}
	}()
	if err := os.Mkdir(root, 0o755); err != nil {
		return b, err
	}
	owner, err := birth(os.Getpid())
	if err != nil {
		return b, err
	}
	if err := os.WriteFile(root+"/"+ownerFile, []byte(owner), 0o644); err != nil {
		return b, err
	}
	if b.Accounts == nil {
		b.ownUsers = true
		if b.Accounts, err = NewAccounts(o.Prefix, root+"/home"); err != nil {
			return b, err
		}
	}
	for _, d := range []struct {
		path  string
		owner Account
		mode  fs.FileMode
	}{
		{b.Root, Root, 0o755},
		{b.Bin, Root, 0o755},
		{b.Etc, Root, 0o755},
		{b.Logs, Root, 0o700},
		{b.Root + "/vault", Root, 0o700},
		{b.Root + "/run", Root, 0o755},
		{b.Root + "/launcher", Account{GID: b.Accounts.Daemon.GID}, 0o750},
		{b.State, b.Accounts.Daemon, 0o700},
		{b.Jobs, Root, 0o700},
	} {
		if err := privateDir(d.path, d.owner, d.mode); err != nil {
			return b, err
		}
	}
	if b.cgroup, err = newCgroup(id, "launcher", "daemon"); err != nil {
		return b, err
	}
	return b, install(b.Bin)
}

// Start starts the Vault server with what a machine needs in it, writes the
// configuration, and starts launcher and daemon; on return the daemon is
// healthy and has synced.
func (b *Bed) Start() error {
	for _, step := range []func() error{b.StartVault, b.Configure, b.StartLauncher, b.StartDaemon, b.WaitOnline} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// Close ends and removes everything that belongs to the bed.
func (b *Bed) Close() error {
	errs := []error{b.Daemon.Stop(), b.Launcher.Stop()}
	b.mu.Lock()
	for _, d := range b.dialers {
		d.close()
	}
	clear(b.dialers)
	b.mu.Unlock()
	errs = append(errs, removeCgroup(b.cgroup), b.closeVault())
	switch {
	case b.Accounts == nil:
	case b.ownUsers:
		errs = append(errs, b.Accounts.Close())
	default: // the accounts stay, what runs as them does not
		for _, a := range b.Accounts.All() {
			errs = append(errs, endProcessesOf(a.UID))
		}
	}
	return errors.Join(append(errs, os.RemoveAll(b.Root))...)
}

// StartLauncher starts batchwarden-launcher. It returns when the process runs.
func (b *Bed) StartLauncher() (err error) {
	b.Launcher, err = spawn{
		name: "batchwarden-launcher", log: b.Logs + "/launcher.log", as: Root, cgroup: b.under("launcher"),
		argv: []string{b.Bin + "/batchwarden-launcher", "--config", b.ConfigFile(), "--limits", b.LimitsFile()},
	}.start()
	return err
}

// StartDaemon starts batchwardend as its user and without any network. It
// returns when the process runs.
func (b *Bed) StartDaemon() (err error) {
	b.Daemon, err = spawn{
		name: "batchwardend", log: b.Logs + "/daemon.log", as: b.Accounts.Daemon, cgroup: b.under("daemon"), alone: true,
		argv: append(slices.Clone(b.options.DaemonUnder), b.Bin+"/batchwardend", "--config", b.ConfigFile()),
	}.start()
	return err
}

// RestartDaemon stops the daemon, starts another, and waits until it is healthy.
func (b *Bed) RestartDaemon() error {
	if err := b.Daemon.Stop(); err != nil {
		return err
	}
	if err := b.StartDaemon(); err != nil {
		return err
	}
	return b.WaitHealthy()
}

// RestartLauncher is RestartDaemon for the launcher.
func (b *Bed) RestartLauncher() error {
	if err := b.Launcher.Stop(); err != nil {
		return err
	}
	if err := b.StartLauncher(); err != nil {
		return err
	}
	return b.WaitHealthy()
}

// under returns one of the bed's cgroups, or "".
func (b *Bed) under(child string) string {
	if b.cgroup == "" {
		return ""
	}
	return filepath.Join(b.cgroup, child)
}

// WaitAnswer waits until the daemon answers, whatever it says.
func (b *Bed) WaitAnswer() error {
	return b.await("answering", func() (bool, string) {
		_, err := b.Call(Root, "GET", "/v1/health", nil)
		if err != nil {
			return false, err.Error()
		}
		return true, ""
	})
}

// WaitHealthy waits until the daemon says that it can decide and launch.
func (b *Bed) WaitHealthy() error {
	return b.await("healthy", func() (bool, string) {
		a, err := b.Call(Root, "GET", "/v1/health", nil)
		if err != nil {
			return false, err.Error()
		}
		return a.Status == 200, string(a.Body)
	})
}

// WaitOnline waits until the daemon is healthy and its last sync succeeded.
func (b *Bed) WaitOnline() error {
	if err := b.WaitHealthy(); err != nil {
		return err
	}
	return b.await("online", func() (bool, string) {
		s, err := b.Status()
		if err != nil {
			return false, err.Error()
		}
		return s.State == wire.StateOnline, fmt.Sprintf("state %s, sync %s %s", s.State, s.Sync.Outcome, s.Sync.Detail)
	})
}

// await asks until the answer is yes, the programs have ended, or 30 seconds
// have passed.
func (b *Bed) await(what string, ask func() (yes bool, instead string)) error {
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		yes, instead := ask()
		if yes {
			return nil
		}
		for _, p := range []*Process{b.Launcher, b.Daemon} {
			if p != nil && !p.Running() {
				return fmt.Errorf("not %s: %s has ended: %s\n%s", what, p.Name, p.Outcome(), p.LogTail(20))
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not %s within 30s: %s\n%s", what, instead, b.Logbook(20))
		}
	}
}

// Status asks the daemon, as root.
func (b *Bed) Status() (s wire.Status, err error) {
	a, err := b.Call(Root, "GET", "/v1/status", nil)
	if err != nil {
		return s, err
	}
	if a.Status != 200 {
		return s, fmt.Errorf("status: %d %s", a.Status, a.Body)
	}
	return s, json.Unmarshal(a.Body, &s)
}

// Sync makes the daemon sync now and returns the outcome.
func (b *Bed) Sync() (s wire.Sync, err error) {
	a, err := b.Call(Root, "POST", "/v1/sync", nil)
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal(a.Body, &s)
}

// An AuditRecord is one line of the audit file.
type AuditRecord map[string]any

// Text returns a member that is a string, or "".
func (r AuditRecord) Text(name string) string {
	s, _ := r[name].(string)
	return s
}

// AuditFile is where the daemon writes its records.
func (b *Bed) AuditFile() string { return b.State + "/audit.jsonl" }

// Audit reads the audit file. Every line must be a JSON object.
func (b *Bed) Audit() (records []AuditRecord, err error) {
	text, err := os.ReadFile(b.AuditFile())
	if err != nil {
		return nil, err
	}
	for line := range bytes.Lines(text) {
		var r AuditRecord
		if err := json.Unmarshal(line, &r); err != nil {
			return records, fmt.Errorf("audit line %d: %w: %q", len(records)+1, err, line)
		}
		records = append(records, r)
	}
	return records, nil
}

// WaitAudited waits until every granted launch that is in the audit file has
// the record of its job's end there. The jobs must have ended.
func (b *Bed) WaitAudited() error {
	return b.await("audited", func() (bool, string) {
		records, err := b.Audit()
		if err != nil {
			return false, err.Error()
		}
		open := map[string]bool{}
		for _, r := range records {
			switch {
			case r.Text("kind") == "launch" && r.Text("verdict") == "allow":
				open[r.Text("decision_id")] = true
			case r.Text("kind") == "job.ended" || r.Text("kind") == "launch.failed":
				delete(open, r.Text("decision_id"))
			}
		}
		return len(open) == 0, fmt.Sprintf("%d launches have no end", len(open))
	})
}

// Logbook returns the last lines of what each program said.
func (b *Bed) Logbook(lines int) string {
	var out bytes.Buffer
	for _, p := range []*Process{b.Launcher, b.Daemon} {
		if p != nil {
			fmt.Fprintf(&out, "--- %s (%s)\n%s\n", p.Name, p.Outcome(), p.LogTail(lines))
		}
	}
	return out.String()
}
