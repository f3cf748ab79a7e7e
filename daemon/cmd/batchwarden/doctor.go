package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"batchwarden/daemon/config"
	"batchwarden/daemon/doctor"
	"batchwarden/daemon/version"
	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
	accounts "batchwarden/platform/account"
	"batchwarden/platform/process"
	"batchwarden/vault/probe"
)

// How long parts of a diagnosis may take. With Vault and the service away it all ends within five seconds.
const (
	answerTime = 2 * time.Second         // of the service, for all that it is asked
	lookTime   = 4 * time.Second         // of any one look
	probeTime  = 3500 * time.Millisecond // of the look at Vault
)

func (a *app) doctorCommand() *cobra.Command {
	var o installation
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Look for what is wrong, and say what mends it; exit code 1 when there is a problem",
		Long: `Look at the configuration, Vault, the service, its files, the system and the batch users' accounts as a person would, and
say of each check how it came out, why, and which command or line mends it. What could not be looked at is said too, with
who can: root sees most. It changes nothing and takes at most a few seconds, also when Vault or the service is away.

Vault is looked at from here without logging in: whether it answers, its certificate, whether it is sealed, its clock. How
the login went, what it may read and how long its token is good, the service says: its sync worker is the one that has to
log in, and does so every few moments. A login of our own would use up one of the secret_id's uses and prove less. What
decides about the whole is batchwarden sync, which makes the worker do its work now.

The results are ok; note: well, and good to know; problem; unknown: it could not be looked at. With --json the names of
checks and of results stay as they are. Exit codes: 0 no problem was found, 1 there is one.`,
		Args: cobra.NoArgs,
		RunE: do(func(cmd *cobra.Command, _ []string) error {
			r := a.examine(cmd.Context(), o)
			return a.answer(r, r.text(), r.Healthy)
		}),
	}
	cmd.Flags().StringVar(&o.file, "config", config.DefaultFile, "the service's configuration")
	cmd.Flags().StringVar(&o.limits, "limits", "", "the host owner's limits; limits.yaml beside the configuration unless given")
	return cmd
}

// installation says what is looked at.
type installation struct{ file, limits string }

// report is what doctor prints as JSON.
type report struct {
	Healthy  bool           `json:"healthy"` // no problem was found
	Problems int            `json:"problems"`
	Unknown  int            `json:"unknown"`
	Machine  string         `json:"machine,omitempty"`
	Version  string         `json:"version"` // of this program
	Checks   []doctor.Check `json:"checks"`
}

// diagnosis is one examination. What several looks need is found out once, by whoever asks first.
type diagnosis struct {
	installation
	app  *app
	root bool

	config     *config.Config // nil: there is none that can be read
	unsafe     string         // why the services would refuse it although it can be read
	configured error          // why it cannot be read

	status    func() said         // what the service says
	found     func() *probe.Found // what Vault shows to anybody
	processes func() running      // of ours
	accounts  accounts.Resolver
}

// said is what the service answered.
type said struct {
	status *wire.Status // nil: err says why
	users  []wire.BatchUser
	err    error
}

// problems are those of the status whose code begins like this. There has to be a status.
func (s said) problems(begin string) (texts []string) {
	for _, p := range s.status.Problems {
		if strings.HasPrefix(p.Code, begin) {
			texts = append(texts, p.Code+": "+p.Detail)
		}
	}
	return texts
}

// running are our services' processes; nil where they are not to be seen.
type running struct {
	daemon, launcher *process.Process
	err              error
}

func (a *app) examine(ctx context.Context, o installation) *report {
	if o.limits == "" {
		o.limits = filepath.Join(filepath.Dir(o.file), "limits.yaml")
	}
	d := &diagnosis{installation: o, app: a, root: os.Geteuid() == 0}
	d.configure()
	socket := a.socket
	if d.config != nil && socket == client.DefaultSocket {
		socket = d.config.Socket
	}
	d.status = sync.OnceValue(func() said { return ask(ctx, socket) })
	d.found = sync.OnceValue(func() *probe.Found {
		ctx, cancel := context.WithTimeout(ctx, probeTime)
		defer cancel()
		v := d.config.Vault
		return probe.Look(ctx, probe.Config{Address: v.Address, CAFile: v.CAFile, ServerName: v.ServerName})
	})
	d.processes = sync.OnceValue(d.ours)
	resolver := d.resolver()
	defer resolver.Close() // only asked
	d.accounts = resolver

	looks := []doctor.Look{
		{Name: "configuration", Time: lookTime, Do: d.configuration},
		{Name: "limits", Time: lookTime, Do: d.limitsFile},
		{Name: "users", Time: lookTime, Do: d.users},
		{Name: "directories", Time: lookTime, Do: d.directories},
		{Name: "socket", Time: lookTime, Do: func(context.Context) []doctor.Check { return d.sockets(socket) }},
		{Name: "daemon", Time: lookTime, Do: d.daemon},
		{Name: "launcher", Time: lookTime, Do: d.launcher},
		{Name: "versions", Time: lookTime, Do: d.versions},
		{Name: "vault.reachable", Time: lookTime, Do: d.vault},
		{Name: "vault.files", Time: lookTime, Do: d.loginFiles},
		{Name: "vault.login", Time: lookTime, Do: d.login},
		{Name: "sync", Time: lookTime, Do: d.synced},
		{Name: "policies", Time: lookTime, Do: d.served},
		{Name: "local_vault", Time: lookTime, Do: d.localVault},
		{Name: "audit", Time: lookTime, Do: d.audit},
		{Name: "disk", Time: lookTime, Do: d.disks},
		{Name: "memory", Time: lookTime, Do: d.memory},
		{Name: "cgroup", Time: lookTime, Do: d.cgroup},
		{Name: "kernel", Time: lookTime, Do: func(context.Context) []doctor.Check { return kernelChecks() }},
		{Name: "accounts", Time: lookTime, Do: d.batchAccounts},
		{Name: "other", Time: lookTime, Do: d.others},
	}
	r := &report{Version: version.Number, Checks: doctor.Run(ctx, looks)}
	if d.config != nil {
		r.Machine = d.config.Machine
	}
	r.Problems, r.Unknown = doctor.Count(r.Checks, doctor.Problem), doctor.Count(r.Checks, doctor.Unknown)
	r.Healthy = r.Problems == 0
	return r
}

// ask asks the service for all that it says of itself.
func ask(ctx context.Context, socket string) said {
	c := client.New(socket)
	defer c.Close()
	s, err := within(ctx, answerTime, c.Status)
	if err != nil {
		return said{err: err}
	}
	ctx, cancel := context.WithTimeout(ctx, answerTime)
	defer cancel()
	users, err := c.BatchUsers(ctx)
	return said{s, users, err}
}

// Checks in short.

func ok(name, reason string) doctor.Check {
	return doctor.Check{Name: name, Result: doctor.OK, Reason: reason}
}

func note(name, reason string) doctor.Check {
	return doctor.Check{Name: name, Result: doctor.Note, Reason: reason}
}

func problem(name, reason, mend string) doctor.Check {
	return doctor.Check{Name: name, Result: doctor.Problem, Reason: reason, Mend: mend}
}

func unknown(name, reason, who string) doctor.Check {
	return doctor.Check{Name: name, Result: doctor.Unknown, Reason: reason, Mend: who}
}

// asRoot is who can look at what this user cannot.
const asRoot = "root can: sudo batchwarden doctor"

// unconfigured are checks that need a configuration.
func unconfigured(names ...string) (checks []doctor.Check) {
	for _, n := range names {
		checks = append(checks, unknown(n, "the configuration says where to look, and it cannot be read", "mend the configuration first"))
	}
	return checks
}

// unsaid are checks that only the service can answer.
func (s said) unsaid(names ...string) (checks []doctor.Check) {
	who := "start the service first"
	if refusedUs(s.err) {
		who = asRoot + "; so can the operators of the configuration"
	}
	for _, n := range names {
		checks = append(checks, unknown(n, "only the service knows, and it was not to be asked", who))
	}
	return checks
}

// refusedUs reports that the service answered, and not to this user.
func refusedUs(err error) bool {
	p, is := errors.AsType[*wire.Problem](err)
	return is && (p.Code == wire.CallerUnknown || p.Code == wire.CallerForbidden)
}
