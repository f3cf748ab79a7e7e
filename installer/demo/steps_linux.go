package main

import (
	"bytes"
	"cmp"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// request is the question that most steps ask, with the flags of run, explain
// and authorize.
func request(subject, batchUser string) []string {
	return []string{"--realm", testbed.Realm, "--subject", subject, "--as", batchUser}
}

// job is what most steps run: it says itself who it is.
var job = []string{"--", "/bin/sh", "-c", "id -un; id -u"}

func run(subject, batchUser string) []string {
	return slices.Concat([]string{"run"}, request(subject, batchUser), job)
}

func (s *show) serverUp() error {
	s.say("A real Vault-compatible server over TLS, and the operator's commands that prepare it for this machine.")
	if err := s.bed.StartServer(); err != nil {
		return err
	}
	s.devserver()
	out := s.bed.Root + "/issued"
	for _, args := range [][]string{
		{"init"},
		{"machine", "add", testbed.Machine, "--out", out},
	} {
		if err := s.admin(nil, args...); err != nil {
			return err
		}
	}
	return s.bed.Adopt(out)
}

// place is where the demo's documents lie.
var place = []string{"--machine", testbed.Machine}

func (s *show) prepared() error {
	s.say("Two batch users with passwords, a policy, and the grant that lets the role payroll-ops use payroll.")
	for _, u := range []struct {
		name    string
		account testbed.Account
	}{{"payroll", s.bed.Accounts.Payroll}, {"reports", s.bed.Accounts.Reports}} {
		args := slices.Concat([]string{"batch-user", "put", u.name}, place,
			[]string{"--username", u.account.Name, "--name", testbed.Realm + "=users/" + u.name, "--retrieve", "--password-stdin"})
		if err := s.admin(s.newPassword(), args...); err != nil {
			return err
		}
	}
	file := s.bed.Root + "/policy.yaml"
	if err := os.WriteFile(file, []byte(policyFile), 0o600); err != nil {
		return err
	}
	if err := s.admin(nil, slices.Concat([]string{"policy", "put", testbed.Realm, file, "--yes"}, place)...); err != nil {
		return err
	}
	if err := s.admin(nil, "grant", "--realm", testbed.Realm, "--batch-user", "payroll", "--role", "payroll-ops"); err != nil {
		return err
	}
	return s.admin(nil, "review", "--agent", testbed.Realm+"="+testbed.Agent)
}

// policyFile is the realm's document before payroll is granted to anybody.
const policyFile = `model: opcon
roles:
  payroll-ops: {machines: [` + testbed.Agent + `], batch_users: {unix: [users/reports]}, functions: []}
users:
  ` + testbed.User + `: {roles: [payroll-ops]}
  ` + testbed.Nobody + `: {roles: []}
batch_users:
  - {platform: unix, login: users/payroll, password_set: true}
  - {platform: unix, login: users/reports, password_set: true}
host: {black_list: [], white_list: []}
`

// newPassword makes one up that the last step will look for.
func (s *show) newPassword() []byte {
	password := "pw-" + rand.Text()
	s.bed.Remember(password)
	return []byte(password)
}

// admin runs "batchwarden admin ARGS…" and shows it with what it says.
func (s *show) admin(stdin []byte, args ...string) error {
	s.command(testbed.Root, append([]string{"batchwarden", "admin"}, args...)...)
	r := s.bed.Admin(stdin, args...)
	s.indent(r.Out)
	s.indent(r.Err)
	if r.Code != 0 {
		return fmt.Errorf("batchwarden admin %s: exit code %d", quoted(args), r.Code)
	}
	return nil
}

// devserver shows how the server was started.
func (s *show) devserver() {
	s.command(testbed.Root, "build/tools/devserver", "--listen", strings.TrimPrefix(s.bed.Vault.Address, "https://"), "--dir", s.bed.Vault.Dir)
}

func (s *show) daemonOnline() error {
	s.say("Launcher (root) and daemon (user %s, no network) start; the sync worker (user %s) fetches and seals.",
		s.bed.Accounts.Daemon.Name, s.bed.Accounts.Sync.Name)
	if err := s.bed.Configure(); err != nil {
		return err
	}
	s.command(testbed.Root, "batchwarden-launcher", "--config", s.bed.ConfigFile(), "--limits", s.bed.LimitsFile())
	if err := s.bed.StartLauncher(); err != nil {
		return err
	}
	s.command(s.bed.Accounts.Daemon, "batchwardend", "--config", s.bed.ConfigFile())
	if err := s.bed.StartDaemon(); err != nil {
		return err
	}
	if err := s.bed.WaitOnline(); err != nil {
		return err
	}
	r, err := s.run(0, testbed.Root, "status")
	if err != nil {
		return err
	}
	return says("status", r.Out, "online", testbed.Machine)
}

func (s *show) jobRuns() error {
	s.say("The agent %s asks for a job as payroll. It runs as the OS account %s, made for this demo; the job says so itself.",
		s.bed.Accounts.LSAM.Name, s.bed.Accounts.Payroll.Name)
	return s.allowed()
}

// allowed runs the job and checks that it was who it had to be.
func (s *show) allowed() error {
	r, err := s.run(0, s.bed.Accounts.LSAM, run(testbed.User, "payroll")...)
	if err != nil {
		return err
	}
	account := s.bed.Accounts.Payroll
	if want := fmt.Sprintf("%s\n%d\n", account.Name, account.UID); r.Out != want {
		return fmt.Errorf("the job said %q, want %q", r.Out, want)
	}
	return nil
}

// refused asks for the job as the account and wants it not to start, for the
// reason of the code.
func (s *show) refused(as testbed.Account, subject, code string) error {
	r, err := s.run(125, as, run(subject, "payroll")...)
	if err != nil {
		return err
	}
	return says("run", r.Err, code)
}

func (s *show) denied() error {
	s.say("For the controller's user %s the policy has no grant: denied, not started, and the daemon can say why.", testbed.Nobody)
	if err := s.refused(s.bed.Accounts.LSAM, testbed.Nobody, wire.PolicyDenied); err != nil {
		return err
	}
	r, err := s.run(1, s.bed.Accounts.LSAM, slices.Concat([]string{"explain"}, request(testbed.Nobody, "payroll"))...)
	if err != nil {
		return err
	}
	return says("explain", r.Out+r.Err, testbed.Nobody)
}

func (s *show) stranger() error {
	s.say("The request that was granted, from an account that no client entry knows.")
	return s.refused(s.bed.Accounts.Stranger, testbed.User, wire.CallerUnknown)
}

func (s *show) offline() error {
	s.say("The Vault server stops. Jobs go on, also after a restart of the daemon, from the encrypted local vault.")
	if err := s.stopVault(); err != nil {
		return err
	}
	if err := s.allowed(); err != nil {
		return err
	}
	if err := s.restartDaemon(); err != nil {
		return err
	}
	status, err := s.bed.Status()
	if err != nil {
		return err
	}
	s.note("state %s, %d batch users from %s", status.State, status.BatchUsers.Total, status.LocalVault.Key)
	if status.State != wire.StateOffline {
		return fmt.Errorf("state is %q without a server, want %q", status.State, wire.StateOffline)
	}
	return s.allowed()
}

// stopVault stops the server and lets the daemon find out.
func (s *show) stopVault() error {
	s.command(testbed.Root, "kill", "-TERM", fmt.Sprint(s.bed.VaultPID()))
	if err := s.bed.StopVault(); err != nil {
		return err
	}
	outcome, err := s.bed.Sync()
	if err != nil {
		return err
	}
	if outcome.Outcome == "ok" {
		return fmt.Errorf("a sync without a server came out %q", outcome.Outcome)
	}
	return nil
}

func (s *show) restartDaemon() error {
	s.command(testbed.Root, "kill", "-TERM", fmt.Sprint(s.bed.Daemon.PID()))
	s.command(s.bed.Accounts.Daemon, "batchwardend", "--config", s.bed.ConfigFile())
	return s.bed.RestartDaemon()
}

func (s *show) rotated() error {
	s.say("The server is back and the password is rotated there. One sync, and the new version is served (shown as a sum only).")
	if err := s.bed.ResumeVault(); err != nil {
		return err
	}
	s.devserver()
	password := s.newPassword()
	if err := s.admin(password, slices.Concat([]string{"password", "payroll", "--stdin"}, place)...); err != nil {
		return err
	}
	if _, err := s.run(0, testbed.Root, "sync"); err != nil {
		return err
	}
	r, err := s.quietly(0, testbed.Root, "batch-users", "payroll", "--json")
	if err != nil {
		return err
	}
	var user wire.BatchUser
	if err := json.Unmarshal([]byte(r.Out), &user); err != nil {
		return fmt.Errorf("batch-users --json: %w: %s", err, r.Out)
	}
	s.note("payroll is version %d, %s", user.Version, user.State)
	if user.Version != 2 {
		return fmt.Errorf("version %d after the rotation, want 2", user.Version)
	}
	r, err = s.quietly(0, s.bed.Accounts.LSAM, "retrieve", "--realm", testbed.Realm, "--subject", testbed.User, "payroll")
	if err != nil {
		return err
	}
	got, want := sha256.Sum256([]byte(r.Out)), sha256.Sum256(password)
	s.note("sha256 of what came: %x…, of what was put into Vault: %x…", got[:8], want[:8])
	if got != want {
		return fmt.Errorf("retrieve did not give the new password")
	}
	return nil
}

func (s *show) removed() error {
	s.say("The batch user is removed in Vault: refused at the next sync, and still refused offline after a restart.")
	if err := s.admin(nil, slices.Concat([]string{"batch-user", "delete", "payroll"}, place)...); err != nil {
		return err
	}
	if _, err := s.run(0, testbed.Root, "sync"); err != nil {
		return err
	}
	if err := s.refused(s.bed.Accounts.LSAM, testbed.User, wire.BatchUserUnknown); err != nil {
		return err
	}
	if err := s.stopVault(); err != nil {
		return err
	}
	if err := s.restartDaemon(); err != nil {
		return err
	}
	return s.refused(s.bed.Accounts.LSAM, testbed.User, wire.BatchUserUnknown)
}

func (s *show) audited() error {
	s.say("The audit file has a line for each decision and each end, written before the act; no secret, no argument in it.")
	s.command(testbed.Root, "cat", s.bed.AuditFile())
	if err := s.bed.WaitAudited(); err != nil {
		return err
	}
	records, err := s.bed.Audit()
	if err != nil {
		return err
	}
	text, err := os.ReadFile(s.bed.AuditFile())
	if err != nil {
		return err
	}
	for _, r := range records {
		s.note("%s", summary(r))
	}
	text = bytes.TrimSpace(text)
	s.note("%s", dim("the last of them in full: "+string(text[bytes.LastIndexByte(text, '\n')+1:])))
	if len(records) < 15 {
		return fmt.Errorf("%d audit records, want one for each decision and each end above", len(records))
	}
	for _, want := range []string{testbed.User, testbed.Nobody, wire.PolicyDenied, wire.CallerUnknown, wire.BatchUserUnknown, s.bed.Accounts.Payroll.Name} {
		if !strings.Contains(string(text), want) {
			return fmt.Errorf("no audit record says %q", want)
		}
	}
	if strings.Contains(string(text), "id -un") {
		return fmt.Errorf("the audit file has a job's arguments in it")
	}
	return nil
}

// summary is a record on one line of a terminal.
func summary(r testbed.AuditRecord) string {
	member := func(object, name string) string {
		inner, _ := r[object].(map[string]any)
		return testbed.AuditRecord(inner).Text(name)
	}
	at := r.Text("time")
	if _, clock, ok := strings.Cut(at, "T"); ok {
		at = clock[:min(12, len(clock))]
	}
	words := []string{at, fmt.Sprintf("%-14s", r.Text("kind"))}
	for _, w := range []struct{ before, text string }{
		{"", r.Text("verdict")}, {"", r.Text("code")}, {"by ", r.Text("rule")},
		{"caller ", cmp.Or(r.Text("client"), member("peer", "user"))}, {"for ", member("subject", "user")},
		{"as ", r.Text("batch_user")}, {"account ", r.Text("username")}, {"", member("job", "state")},
	} {
		if w.text != "" {
			words = append(words, w.before+w.text)
		}
	}
	for _, name := range []string{"changed", "removed"} {
		if list, ok := r[name].([]any); ok {
			words = append(words, fmt.Sprintf("%d %s", len(list), name))
		}
	}
	return strings.Join(words, "  ")
}
