package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchwarden/daemon/config"
	"batchwarden/daemon/version"
	"batchwarden/installer/linux"
	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
	accounts "batchwarden/platform/account"
	"batchwarden/platform/hostkey"
	"batchwarden/platform/hostkey/mint"
	"batchwarden/platform/service/manage"
)

const (
	daemonUnit   = "batchwardend.service"
	launcherUnit = "batchwarden-launcher.service"
	socketUnit   = "batchwarden.socket"
	keyDropIn    = unitDir + "/" + daemonUnit + ".d/50-key.conf"
)

// services are both, in the order in which they are started.
var services = []manage.Service{
	{Name: "batchwarden-launcher", Description: "batchwarden launcher", Program: programDir + "/batchwarden-launcher", Unit: linux.LauncherUnit},
	{Name: "batchwardend", Description: "batchwarden", Program: programDir + "/batchwardend", User: daemonUser, Unit: linux.DaemonUnit},
}

func unitFile(s manage.Service) file {
	return newFile(filepath.Join(unitDir, s.Name+".service"), []byte(s.Unit), 0o644)
}

// unitFiles are the units of the services, and what the key needs added to them. A package brings the units.
func (s *setup) unitFiles() (files []file) {
	if s.manager != manage.Systemd {
		return nil
	}
	if !s.packaged {
		for _, service := range services {
			files = append(files, unitFile(service))
		}
	}
	if f := s.keyNeeds(); f != nil {
		files = append(files, *f)
	}
	return files
}

// keyNeeds is the drop-in that the key of the local vault needs, nil for none.
func (s *setup) keyNeeds() *file {
	if s.config == nil || s.manager != manage.Systemd {
		return nil
	}
	kind, _, _ := strings.Cut(s.config.LocalVault.Key, ":")
	text := ""
	switch kind {
	case hostkey.Credential:
		text = "# The key of the local vault, which systemd decrypts for this service alone.\n[Service]\nLoadCredentialEncrypted=kek:" + mint.CredentialFile + "\n"
	case hostkey.TPM2:
		text = "# The TPM, which the key of the local vault is sealed by.\n[Service]\nSupplementaryGroups=tss\nPrivateDevices=no\nDeviceAllow=/dev/tpmrm0 rw\n"
	default:
		return nil
	}
	f := newFile(keyDropIn, []byte(text), 0o644)
	return &f
}

// installServices makes both known to the service manager.
func (s *setup) installServices(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if s.manager != manage.Systemd {
		for _, service := range services {
			if err := service.Install(ctx); err != nil {
				return err
			}
			s.did("service %s, under %s", service.Name, s.manager)
		}
		return nil
	}
	for _, service := range services {
		if s.packaged {
			break
		}
		f := unitFile(service)
		state, err := f.look(s.manifest)
		if err != nil {
			return err
		}
		if state == placeSame {
			continue
		}
		if err := s.announce(); err != nil {
			return err
		}
		if state != placeMissing {
			if err := os.Remove(f.path); err != nil {
				return err
			}
		}
		if err := service.Install(ctx); err != nil {
			return err
		}
		if err := os.Chmod(f.path, f.mode); err != nil { // whatever the umask
			return err
		}
		s.did("%s", f.path)
	}
	reload, err := s.placeDropIn()
	if err != nil {
		return err
	}
	var enabled []string
	for _, name := range []string{socketUnit, launcherUnit, daemonUnit} { // the launcher's would bring the socket's along unsaid
		u, err := manage.Show(ctx, name)
		if err != nil {
			return err
		}
		reload = reload || u.Stale
		if u.Enabled == "enabled" {
			enabled = append(enabled, name)
			continue
		}
		if err := manage.Control(ctx, "enable", name); err != nil {
			return err
		}
		s.did("%s is started with the machine", name)
	}
	if len(enabled) > 0 {
		s.left("started with the machine: %s", strings.Join(enabled, ", "))
	}
	if reload {
		return manage.Control(ctx, "daemon-reload")
	}
	return nil
}

// placeDropIn reports whether it changed something.
func (s *setup) placeDropIn() (changed bool, err error) {
	f := s.keyNeeds()
	if f == nil {
		return false, nil
	}
	state, err := f.look(s.manifest)
	if err != nil || state == placeSame {
		return false, err
	}
	return true, s.place(*f, state)
}

// startAll starts what does not run, and with again restarts what does.
func (s *setup) startAll(ctx context.Context, again bool) error {
	if s.manager == manage.Systemd {
		ctx, cancel := context.WithTimeout(ctx, s.timeout)
		defer cancel()
		// What failed for good before is tried again; where nothing did this says nothing.
		if err := manage.Control(ctx, "reset-failed", socketUnit, launcherUnit, daemonUnit); err != nil {
			return err
		}
		if err := s.startSocket(ctx); err != nil {
			return err
		}
	}
	for _, service := range services {
		if err := s.startOne(ctx, service, again); err != nil {
			return err
		}
	}
	return nil
}

// startSocket starts it unless the launcher runs with one that it bound itself, which does as well.
func (s *setup) startSocket(ctx context.Context) error {
	socket, err := manage.Show(ctx, socketUnit)
	if err != nil || socket.Active == "active" {
		return err
	}
	launcher, err := manage.Show(ctx, launcherUnit)
	if err != nil {
		return err
	}
	if launcher.Active == "active" { // systemd refuses a socket to a service that runs
		if err := services[0].Stop(ctx); err != nil {
			return err
		}
	}
	return manage.Control(ctx, "start", socketUnit)
}

func (s *setup) startOne(ctx context.Context, service manage.Service, again bool) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	act, done := service.Start, "started"
	if s.manager == manage.Systemd {
		u, err := manage.Show(ctx, service.Name+".service")
		switch {
		case err != nil:
			return err
		case u.Active == "active" && !again:
			s.left("%s runs", service.Name)
			return nil
		case u.Active == "active":
			act, done = service.Restart, "restarted; jobs went on"
		}
	}
	if err := act(ctx); err != nil {
		return s.why(err, service)
	}
	s.did("%s %s", service.Name, done)
	return nil
}

// why adds to an error what systemd knows.
func (s *setup) why(err error, service manage.Service) error {
	ctx, cancel := context.WithTimeout(context.Background(), askTime) // the one before may have ended
	defer cancel()
	if s.manager != manage.Systemd {
		return err
	}
	unit := service.Name + ".service"
	if u, showErr := manage.Show(ctx, unit); showErr == nil {
		err = fmt.Errorf("%w: it is %s (%s, result %s)", err, u.Active, u.Sub, u.Result)
		if u.Status != "" {
			err = fmt.Errorf("%w: %s", err, u.Status)
		}
	}
	return fmt.Errorf("%w; its own words: journalctl -u %s", err, unit)
}

func (a *app) startCommand() *cobra.Command {
	return a.controlCommand("start", "Start both services, and return when they are ready; for root", func(s *setup, ctx context.Context) error {
		return s.startAll(ctx, false)
	})
}

func (a *app) restartCommand() *cobra.Command {
	return a.controlCommand("restart", "Restart both services; jobs go on; for root", func(s *setup, ctx context.Context) error {
		return s.startAll(ctx, true)
	})
}

func (a *app) stopCommand() *cobra.Command {
	return a.controlCommand("stop", "Stop both services; jobs go on, and are taken up by the next start; for root", (*setup).stopAll)
}

func (a *app) controlCommand(name, short string, f func(*setup, context.Context) error) *cobra.Command {
	var o setupOptions
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Args:  cobra.NoArgs,
		RunE: a.changing(&o, func(s *setup, ctx context.Context) error {
			if err := s.installed(ctx, name != "stop"); err != nil {
				return err
			}
			return f(s, ctx)
		}),
	}
	cmd.Flags().DurationVar(&o.timeout, "timeout", setupTime, "how long each service may take")
	return cmd
}

// installed says what is missing of an installation; to start it takes more.
func (s *setup) installed(ctx context.Context, toStart bool) error {
	const mend = "; batchwarden setup install mends that"
	if s.manager == manage.Systemd {
		ctx, cancel := context.WithTimeout(ctx, askTime)
		defer cancel()
		for _, name := range []string{launcherUnit, daemonUnit} {
			if u, err := manage.Show(ctx, name); err != nil || u.File == "" {
				return errors.Join(err, fmt.Errorf("%s is not installed%s", name, mend))
			}
		}
	}
	if !toStart {
		return nil
	}
	var faults []error
	c, err := config.Load(config.DefaultFile)
	if err != nil {
		return &failure{exitConfig, err}
	}
	for _, user := range []string{c.Users.Daemon, c.Users.Sync} {
		if _, err := accounts.System().Fresh(user); err != nil {
			faults = append(faults, fmt.Errorf("the services' user is not there: %w%s", err, mend))
		}
	}
	for _, name := range programs {
		if path := filepath.Join(programDir, name); missing(path) {
			faults = append(faults, fmt.Errorf("%s is missing%s", path, mend))
		}
	}
	return errors.Join(faults...)
}

// stopAll stops the daemon first, so that nothing is begun that the launcher then does not do.
func (s *setup) stopAll(ctx context.Context) error {
	for i := len(services) - 1; i >= 0; i-- {
		if err := s.stopOne(ctx, services[i]); err != nil {
			return err
		}
	}
	return nil
}

func (s *setup) stopOne(ctx context.Context, service manage.Service) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	if s.manager == manage.Systemd {
		u, err := manage.Show(ctx, service.Name+".service")
		if err != nil {
			return err
		}
		if u.File == "" || u.Active == "inactive" || u.Active == "failed" {
			s.left("%s does not run", service.Name)
			return nil
		}
		if service.Name == services[0].Name { // or the next caller would start the launcher again
			if err := manage.Control(ctx, "stop", socketUnit); err != nil {
				return err
			}
		}
	}
	if err := service.Stop(ctx); err != nil {
		return s.why(err, service)
	}
	s.did("%s stopped", service.Name)
	return nil
}

// setupState is what setup status prints as JSON.
type setupState struct {
	Manager   string        `json:"manager"`
	Installed string        `json:"installed"` // version
	Daemon    string        `json:"daemon"`    // version that runs; "" when it does not answer
	Launcher  string        `json:"launcher"`
	Units     []manage.Unit `json:"units"`
	Problems  []string      `json:"problems"`
}

func (a *app) setupStatusCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show how the services are installed and whether they run; exit code 1 when not",
		Args:  cobra.NoArgs,
		RunE: do(func(cmd *cobra.Command, _ []string) error {
			state, err := a.setupState(cmd.Context())
			if err != nil {
				return err
			}
			return a.answer(state, a.setupStateText(state), len(state.Problems) == 0)
		}),
	}
}

func (a *app) setupState(ctx context.Context) (*setupState, error) {
	state := &setupState{Manager: manage.Manager(), Installed: version.Number, Problems: []string{}}
	if state.Manager != manage.Systemd {
		return nil, fmt.Errorf("setup status asks systemd, which is not here: %w", errors.ErrUnsupported)
	}
	say := func(format string, args ...any) {
		state.Problems = append(state.Problems, fmt.Sprintf(format, args...))
	}
	bounded, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	for _, name := range []string{socketUnit, launcherUnit, daemonUnit} {
		u, err := manage.Show(bounded, name)
		if err != nil {
			return nil, err
		}
		state.Units = append(state.Units, u)
		switch {
		case u.File == "":
			say("%s is not installed: batchwarden setup install", name)
		case u.Active != "active":
			say("%s is %s (%s, result %s): journalctl -u %s", name, u.Active, u.Sub, u.Result, name)
		case u.Enabled != "enabled":
			say("%s is not started with the machine: batchwarden setup install", name)
		}
		if u.Stale {
			say("%s has changed, and systemd has not read it: systemctl daemon-reload", name)
		}
	}
	service := client.New(a.socket)
	defer service.Close()
	now, err := within(ctx, askTime, service.Status)
	if problem, is := errors.AsType[*wire.Problem](err); is {
		say("the service answers, but not you: %s; run this as root", problem.Detail)
		return state, nil
	}
	if err != nil {
		say("the service does not answer: %s", err)
		return state, nil
	}
	state.Daemon, state.Launcher = now.Version, now.Launcher.Version
	for name, runs := range map[string]string{"batchwardend": now.Version, "batchwarden-launcher": now.Launcher.Version} {
		if runs != version.Number {
			say("%s runs version %s, and %s is installed: batchwarden setup restart (jobs go on)", name, cmp.Or(runs, "unknown"), version.Number)
		}
	}
	return state, nil
}

func (a *app) setupStateText(s *setupState) string {
	var p page
	p.row("UNIT", "STATE", "SINCE", "AT BOOT", "SAYS")
	for _, u := range s.Units {
		since := ""
		if !u.Since.IsZero() {
			since = u.Since.UTC().Format(time.DateTime + " UTC")
		}
		p.row(u.Name, cmp.Or(u.Active, "missing")+" ("+cmp.Or(u.Sub, "-")+")", since, cmp.Or(u.Enabled, "-"), u.Status)
	}
	p.line("")
	p.row("Installed", s.Installed)
	p.row("Running", fmt.Sprintf("batchwardend %s, launcher %s", cmp.Or(s.Daemon, "not known"), cmp.Or(s.Launcher, "not known")))
	for _, problem := range s.Problems {
		p.line("%s", problem)
	}
	return p.String()
}
