package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"batchwarden/ipc/client"
	"batchwarden/platform/account/create"
	"batchwarden/platform/hostkey/mint"
	"batchwarden/platform/launch/keeper"
	"batchwarden/platform/service/manage"
)

func (a *app) uninstallCommand() *cobra.Command {
	var o setupOptions
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Stop both services and remove what setup install put there; data stays without --purge; for root",
		Long: `Stop both services and remove programs and units that setup install put there and nobody has changed since. The
configuration, the local vault with its key, the audit log, the journal of jobs and the accounts stay, so that
installing again goes on with them; --purge removes them too. What a package has installed the package's own
removal removes; then this removes only the data, with --purge.

While jobs run it asks, or without a terminal refuses; with --force they go on, and nobody learns how they end.`,
		Args: cobra.NoArgs,
		RunE: a.changing(&o, (*setup).uninstall),
	}
	setupFlags(cmd, &o)
	cmd.Flags().BoolVar(&o.purge, "purge", false, "remove configuration, secrets, audit log and accounts too")
	return cmd
}

func (s *setup) uninstall(ctx context.Context) error {
	if err := s.jobsRun(ctx); err != nil {
		return err
	}
	steps := []func(context.Context) error{s.stopAll, s.removeServices, s.removeFiles}
	if s.purge {
		steps = append(steps, s.removeData, s.removeAccounts)
	}
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return s.broken(err)
		}
	}
	if !s.purge {
		s.next("Configuration and data are still in %s, %s and %s; --purge removes them.", configDir, stateDir, launcherDir)
	}
	if s.packaged {
		s.next("Programs and units are the package's: remove it with apt, dnf or apk.")
	}
	return nil
}

// jobsRun refuses, or asks, while jobs run.
func (s *setup) jobsRun(ctx context.Context) error {
	n := s.runningJobs(ctx)
	if n == 0 {
		return nil
	}
	if s.force {
		s.note("%s: they go on, and nobody will know how they end.", counted(n, "job")+" still running")
		return nil
	}
	what := counted(n, "job") + " still running; they would go on, and nobody would know how they end"
	if s.app.asked() {
		fmt.Fprintf(s.app.errs, "%s. Uninstall all the same? [no]: ", what)
		in := bufio.NewScanner(s.app.in)
		if in.Scan() && strings.HasPrefix(strings.ToLower(strings.TrimSpace(in.Text())), "y") {
			return nil
		}
	}
	return fmt.Errorf("%s. Nothing was changed. batchwarden jobs lists them; --force goes on", what)
}

// runningJobs asks the service, and where it does not answer the launcher's journal.
func (s *setup) runningJobs(ctx context.Context) (n int) {
	service := client.New(s.app.socket)
	defer service.Close()
	if now, err := within(ctx, askTime, service.Status); err == nil && now.Launcher.Connected {
		return now.Jobs.Running
	}
	jobs, err := keeper.Witnessed(launcherDir)
	if err != nil {
		return 0 // there is no launcher that could have started any
	}
	for _, j := range jobs {
		if !j.Over() {
			n++
		}
	}
	return n
}

// removeServices makes the service manager forget them.
func (s *setup) removeServices(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	for _, service := range slices.Backward(services) {
		f := unitFile(service)
		state, err := f.look(s.manifest)
		switch {
		case err != nil:
			return err
		case s.packaged:
			if err := manage.Control(ctx, "disable", service.Name+".service"); err != nil {
				return err
			}
			s.did("%s is no longer started with the machine", service.Name)
			continue
		case s.manager == manage.Systemd && state == placeMissing:
			s.left("%s is not installed", service.Name)
			continue
		case s.manager == manage.Systemd && state == placeForeign && !s.force:
			s.kept("%s: somebody has changed it; --force removes it", f.path)
			continue
		}
		if err := service.Uninstall(ctx); err != nil {
			return err
		}
		delete(s.manifest, f.path)
		s.did("%s removed", service.Name)
	}
	return nil
}

// removeFiles removes what setup put there and nobody has changed.
func (s *setup) removeFiles(ctx context.Context) error {
	gone, stay := 0, manifest{}
	for path, sums := range s.manifest {
		text, err := os.ReadFile(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			continue
		case err != nil:
			return err
		case !s.manifest.ours(path, sumOf(text)) && !s.force:
			s.kept("%s: somebody has changed it; --force removes it", path)
			stay[path] = sums
			continue
		}
		if err := os.Remove(path); err != nil {
			return err
		}
		gone++
	}
	if gone > 0 {
		s.did("%s removed", counted(gone, "file"))
	}
	var errs []error
	if len(stay) == 0 {
		errs = append(errs, remove(manifestFile))
	} else {
		errs = append(errs, stay.write())
	}
	errs = append(errs, removeEmpty(filepath.Dir(keyDropIn)))
	if !s.packaged {
		errs = append(errs, removeHalves(programDir), removeEmpty(programDir))
	}
	for _, dir := range []string{"/run/batchwarden", "/run/batchwarden-launcher"} {
		errs = append(errs, os.RemoveAll(dir))
	}
	if s.manager == manage.Systemd {
		ctx, cancel := context.WithTimeout(ctx, s.timeout)
		defer cancel()
		errs = append(errs, manage.Control(ctx, "daemon-reload"))
	}
	return errors.Join(errs...)
}

// removeData removes the directories that setup makes; what was configured elsewhere stays.
func (s *setup) removeData(context.Context) error {
	for _, d := range slices.Backward(directories) {
		if missing(d.path) {
			continue
		}
		if err := os.RemoveAll(d.path); err != nil {
			return err
		}
		s.did("%s removed", d.path)
	}
	if missing(mint.CredentialFile) {
		return nil
	}
	if err := os.Remove(mint.CredentialFile); err != nil {
		return err
	}
	s.did("%s removed", mint.CredentialFile)
	return nil
}

func (s *setup) removeAccounts(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	taken, err := create.Conflicts(s.accounts)
	if err != nil {
		return err
	}
	if len(taken) > 0 && !s.force {
		s.kept("accounts: %s", strings.Join(taken, "; "))
		return nil
	}
	absent, err := create.Missing(s.accounts)
	if err != nil || len(absent) == len(s.accounts) {
		return err
	}
	if err := create.Remove(ctx, s.accounts); err != nil {
		return err
	}
	s.did("users and groups removed: %s", entryNames(s.accounts))
	return nil
}

// remove removes a file that may be gone already.
func remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeEmpty removes a directory if nothing is in it.
func removeEmpty(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) || err == nil && len(entries) > 0 {
		return nil
	}
	if err != nil {
		return err
	}
	return os.Remove(dir)
}
