package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchwarden/daemon/config"
	"batchwarden/daemon/version"
	"batchwarden/installer/linux"
	"batchwarden/platform/account/create"
	"batchwarden/platform/safefile"
	"batchwarden/platform/service/manage"
)

// setupOptions are the flags that the commands of setup share.
type setupOptions struct {
	answers string
	key     string
	force   bool
	noStart bool
	purge   bool
	timeout time.Duration
}

// setupTime is how long one step that others carry out may take unless --timeout says otherwise.
const setupTime = 100 * time.Second

// setup is one run of install or uninstall.
type setup struct {
	app *app
	setupOptions

	manifest manifest
	manager  string // the service manager
	packaged bool   // a package has brought programs and units
	files    []file
	answers  *answers       // nil: there are none
	config   *config.Config // nil: there is none that is valid
	accounts []create.Entry

	report setupReport
}

// setupReport is what install and uninstall print as JSON.
type setupReport struct {
	Version string      `json:"version"`
	Changed bool        `json:"changed"`
	Steps   []setupStep `json:"steps"`
	Notes   []string    `json:"notes"`
	Next    []string    `json:"next"`
}

type setupStep struct {
	What  string `json:"what"`
	State string `json:"state"` // "done", "unchanged", "kept"
}

// did says what was changed, left what was right already, kept what was not touched although setup would have it
// otherwise.
func (s *setup) did(format string, args ...any) {
	s.report.Changed = true
	s.step("done", format, args...)
}

func (s *setup) left(format string, args ...any) { s.step("unchanged", format, args...) }

func (s *setup) kept(format string, args ...any) { s.step("kept", format, args...) }

func (s *setup) step(state, format string, args ...any) {
	s.report.Steps = append(s.report.Steps, setupStep{fmt.Sprintf(format, args...), state})
}

func (s *setup) note(format string, args ...any) {
	s.report.Notes = append(s.report.Notes, fmt.Sprintf(format, args...))
}

func (s *setup) next(format string, args ...any) {
	s.report.Next = append(s.report.Next, fmt.Sprintf(format, args...))
}

// newSetup finds out what is on this machine.
func (a *app) newSetup(o setupOptions) (*setup, error) {
	if os.Geteuid() != 0 {
		return nil, &failure{exitForbidden, errors.New("only root sets the machine up")}
	}
	accounts, err := create.Parse(linux.Sysusers)
	if err != nil {
		return nil, err
	}
	m, err := readManifest()
	if err != nil {
		return nil, err
	}
	s := &setup{app: a, setupOptions: o, accounts: accounts, manifest: m, manager: manage.Manager()}
	s.report = setupReport{Version: version.Number, Steps: []setupStep{}, Notes: []string{}, Next: []string{}}
	for _, dir := range packageUnitDirs {
		if _, err := os.Stat(filepath.Join(dir, daemonUnit)); err == nil {
			s.packaged = true
		}
	}
	return s, nil
}

func (a *app) installCommand() *cobra.Command {
	var o setupOptions
	cmd := &cobra.Command{
		Use:   "install [--answers FILE]",
		Short: "Install both services, or finish or repair an installation; for root",
		Long: `Put programs, accounts, directories, a commented configuration and the units of both services where they belong, and
start them. What is there and right is left alone: a second run changes nothing and says so. What is there and not
ours stops it before anything is changed; --force replaces that. Configuration is never replaced.

The first time it asks for the address of Vault and how to log in, on a terminal, or takes that from --answers:

` + answersHelp + `

The files named are copied into /etc/batchwarden, for the account that reads them. Without a terminal and without
answers nothing is asked, and nothing is started before /etc/batchwarden/batchwarden.yaml names a Vault server.`,
		Args: cobra.NoArgs,
		RunE: a.changing(&o, (*setup).install),
	}
	f := cmd.Flags()
	f.StringVar(&o.answers, "answers", "", "take the answers from this YAML `FILE` instead of asking")
	f.StringVar(&o.key, "key", "", "what opens the local vault: keyfile, credential or tpm2 (default keyfile)")
	f.BoolVar(&o.noStart, "no-start", false, "install, and start nothing")
	setupFlags(cmd, &o)
	return cmd
}

// changing is a command that changes this machine, and shows what it did.
func (a *app) changing(o *setupOptions, change func(*setup, context.Context) error) func(*cobra.Command, []string) error {
	return do(func(cmd *cobra.Command, _ []string) error {
		s, err := a.newSetup(*o)
		if err != nil {
			return err
		}
		if err := change(s, cmd.Context()); err != nil {
			return err
		}
		return a.show(s.report, s.report.text())
	})
}

func setupFlags(cmd *cobra.Command, o *setupOptions) {
	cmd.Flags().BoolVar(&o.force, "force", false, "replace what is not ours; go on where something speaks against it")
	cmd.Flags().DurationVar(&o.timeout, "timeout", setupTime, "how long starting or stopping a service may take")
}

// install looks at everything before it changes anything.
func (s *setup) install(ctx context.Context) error {
	if err := s.judge(); err != nil {
		return err
	}
	if s.manifest.unfinished() {
		s.note("An earlier set-up did not come to its end; this one has finished it.")
	}
	for _, step := range []func(context.Context) error{ // the manifest before the start: what is there does not depend on that
		s.makeAccounts, s.makeDirectories, s.placeFiles, s.placeConfiguration, s.makeKey, s.installServices, s.settleManifest, s.startServices,
	} {
		if err := step(ctx); err != nil {
			return s.broken(err)
		}
	}
	s.advise()
	return nil
}

// broken is an error in the middle, after some steps were taken.
func (s *setup) broken(err error) error {
	var done []string
	for _, step := range s.report.Steps {
		if step.State == "done" {
			done = append(done, step.What)
		}
	}
	if len(done) == 0 {
		return fmt.Errorf("%w; nothing was changed", err)
	}
	return fmt.Errorf("%w\nDone before that: %s.\nThe same command goes on from there once that is mended", err, strings.Join(done, "; "))
}

// placeFiles puts programs and what is no service's unit where they belong.
func (s *setup) placeFiles(context.Context) error {
	changed := false
	for _, f := range s.files {
		state, err := f.look(s.manifest)
		if err != nil {
			return err
		}
		if state == placeSame {
			continue
		}
		if !changed { // while it is under way, what was there and what comes are both ours
			changed = true
			if err := s.announce(); err != nil {
				return err
			}
		}
		if err := s.place(f, state); err != nil {
			return err
		}
	}
	if !changed && !s.packaged {
		s.left("programs in %s", programDir)
	}
	return nil
}

// announce writes down what is about to be put there.
func (s *setup) announce() error {
	for _, dir := range []string{programDir, configDir} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return err
		}
	}
	if err := removeHalves(programDir); err != nil {
		return err
	}
	for _, f := range slices.Concat(s.files, s.unitFiles()) {
		if !s.manifest.ours(f.path, f.sum) {
			s.manifest[f.path] = append(s.manifest[f.path], f.sum)
		}
	}
	return s.manifest.write()
}

// removeHalves removes what writing a file left behind when it was interrupted.
func removeHalves(dir string) error {
	halves, err := filepath.Glob(filepath.Join(dir, ".*.new-*"))
	if err != nil {
		return err
	}
	for _, half := range halves {
		if err := os.Remove(half); err != nil {
			return err
		}
	}
	return nil
}

// settleManifest writes down what is there now.
func (s *setup) settleManifest(context.Context) error {
	now := manifest{}
	for _, f := range slices.Concat(s.files, s.unitFiles()) {
		now[f.path] = []string{f.sum}
	}
	for path, sums := range s.manifest { // what an earlier version had and this one has not
		if _, there := now[path]; !there {
			if _, err := os.Lstat(path); err == nil {
				now[path] = sums[:1]
			}
		}
	}
	old := fmt.Sprint(s.manifest)
	if s.manifest = now; fmt.Sprint(now) == old {
		return nil
	}
	return now.write()
}

// makeAccounts makes the users and groups.
func (s *setup) makeAccounts(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	missing, err := create.Missing(s.accounts)
	if err != nil {
		return err
	}
	if len(missing) == 0 {
		s.left("users and groups: %s", entryNames(s.accounts))
		return nil
	}
	if err := create.Make(ctx, missing); err != nil {
		return err
	}
	if still, err := create.Missing(s.accounts); err != nil || len(still) > 0 {
		return errors.Join(err, fmt.Errorf("these accounts are still missing: %s", entryNames(still)))
	}
	s.did("users and groups made: %s", entryNames(missing))
	return nil
}

func entryNames(entries []create.Entry) string {
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name
	}
	return strings.Join(names, ", ")
}

// startServices starts both, or restarts those that run an older program or unit.
func (s *setup) startServices(ctx context.Context) error {
	switch {
	case s.noStart:
		return nil
	case s.config == nil:
		s.kept("services not started: there is no Vault server in %s yet", config.DefaultFile)
		return nil
	}
	return s.startAll(ctx, s.report.Changed)
}

// advise says what comes next.
func (s *setup) advise() {
	switch {
	case s.config == nil:
		s.next("Put the address of Vault and how to log in into %s, or give them with --answers.", config.DefaultFile)
		s.next("Then again: batchwarden setup install")
		return
	case len(s.config.Realms) == 0 || len(s.config.Clients) == 0:
		s.next("Name the controllers of this machine under realms in %s, and their agents under clients.", config.DefaultFile)
		s.next("Let those agents launch: requesters in %s.", config.DefaultLimitsFile)
		s.next("Then: batchwarden config check && batchwarden setup restart")
	}
	s.next("How it is: batchwarden status")
}

func (r *setupReport) text() string {
	var b strings.Builder
	for _, step := range r.Steps {
		fmt.Fprintf(&b, "%-10s %s\n", step.State, clean(step.What))
	}
	if !r.Changed {
		b.WriteString("Nothing had to be changed.\n")
	}
	for _, n := range r.Notes {
		fmt.Fprintf(&b, "Note: %s\n", clean(n))
	}
	if len(r.Next) > 0 {
		b.WriteString("\nNext:\n")
	}
	for _, n := range r.Next {
		fmt.Fprintf(&b, "  %s\n", clean(n))
	}
	return b.String()
}

// place writes one file.
func (s *setup) place(f file, state placeState) error {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
		return err
	}
	if err := safefile.WriteAtomic(f.path, f.text, f.mode); err != nil {
		return err
	}
	switch state {
	case placeMissing:
		s.did("%s", f.path)
	default:
		s.did("%s (another one was there)", f.path)
	}
	return nil
}

// missing reports that a file is not there.
func missing(path string) bool {
	_, err := os.Lstat(path)
	return errors.Is(err, fs.ErrNotExist)
}
