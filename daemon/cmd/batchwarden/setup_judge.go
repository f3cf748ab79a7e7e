package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"batchwarden/daemon/config"
	"batchwarden/daemon/version"
	"batchwarden/installer/linux"
	accounts "batchwarden/platform/account"
	"batchwarden/platform/account/create"
	"batchwarden/platform/hostkey"
	"batchwarden/platform/safefile"
	"batchwarden/platform/service/manage"
)

// judge finds everything that speaks against an installation, before anything is changed. What --force overrules is a
// note then.
func (s *setup) judge() error {
	var faults []error
	fault := func(err error) {
		if err != nil {
			faults = append(faults, err)
		}
	}
	overrule := func(format string, args ...any) {
		if err := fmt.Errorf(format, args...); s.force {
			s.note("%s; --force goes on", err)
		} else {
			faults = append(faults, fmt.Errorf("%w; --force goes on all the same", err))
		}
	}
	switch s.manager {
	case manage.Systemd:
	case "":
		fault(fmt.Errorf("%w: start the programs in %s by hand, the launcher as root and batchwardend as its user", manage.ErrNone, programDir))
	default:
		overrule("there is no systemd on this machine; with %s batchwarden was never tested", s.manager)
	}
	taken, err := create.Conflicts(s.accounts)
	fault(err)
	for _, what := range taken {
		overrule("%s", what)
	}
	for _, d := range directories {
		if err := d.check(); err != nil {
			overrule("%w", err)
		}
		if missing(d.path) {
			fault(writable(filepath.Dir(d.path)))
		}
	}
	fault(s.judgeConfiguration())
	fault(s.judgeTPM())
	fault(s.judgeFiles(overrule))
	s.confined()
	return unchanged(faults)
}

// unchanged is the error of all that was found before anything was changed, each said once.
func unchanged(faults []error) error {
	said := map[string]bool{}
	faults = slices.DeleteFunc(faults, func(err error) bool {
		again := said[err.Error()]
		said[err.Error()] = true
		return again
	})
	if len(faults) == 0 {
		return nil
	}
	return fmt.Errorf("nothing was changed:\n%w", errors.Join(faults...))
}

// judgeFiles looks at programs and units.
func (s *setup) judgeFiles(overrule func(string, ...any)) error {
	switch self, err := os.Executable(); {
	case err != nil:
		return err
	case s.packaged && self != commandFile:
		return fmt.Errorf("a package has installed batchwarden on this machine; upgrade the package, and use its program: %s setup install", commandFile)
	case !s.packaged:
		if s.files, err = programFiles(); err != nil {
			return err
		}
		if s.manager == manage.Systemd {
			s.files = append(s.files, newFile(filepath.Join(unitDir, socketUnit), []byte(linux.SocketUnit), 0o644))
		}
	}
	var errs []error
	tried := map[string]bool{}
	for _, f := range slices.Concat(s.files, s.unitFiles()) {
		state, err := f.look(s.manifest)
		switch {
		case err != nil:
			errs = append(errs, err)
			continue
		case state == placeForeign:
			overrule("%s is there already, and is not what batchwarden setup put there", f.path)
		}
		if dir := filepath.Dir(f.path); state != placeSame && !tried[dir] {
			tried[dir] = true
			if err := writable(dir); err != nil {
				errs = append(errs, err)
			}
		}
	}
	return errors.Join(errs...)
}

// judgeConfiguration takes the configuration that is there, or that the answers make.
func (s *setup) judgeConfiguration() error {
	if err := s.chooseKey(); err != nil {
		return err
	}
	fresh := s.pristine()
	if !fresh {
		c, err := config.Load(config.DefaultFile)
		if err != nil {
			return &failure{exitConfig, fmt.Errorf("%w\n%s is not replaced: mend it, or move it away", err, config.DefaultFile)}
		}
		s.config = c
		return s.judgeUsers()
	}
	var err error
	switch {
	case s.setupOptions.answers != "":
		if s.answers, err = readAnswers(s.setupOptions.answers); err != nil {
			err = &failure{exitConfig, err}
		}
	case s.app.asked() && s.manager != "":
		s.answers, err = s.app.askAnswers()
	}
	if err != nil {
		return err
	}
	if s.answers == nil {
		return nil
	}
	if s.key == "" {
		s.key = s.answers.Key
		if err := s.chooseKey(); err != nil {
			return err
		}
	}
	for _, c := range s.answers.copies() {
		if _, err := os.Stat(c.from); err != nil {
			return fmt.Errorf("the answers name a file that cannot be read: %w", err)
		}
	}
	return s.trial()
}

// trial checks the configuration that the answers make as the services will.
func (s *setup) trial() (err error) {
	dir, err := os.MkdirTemp("", "batchwarden-setup-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	text, err := s.answers.configuration(keySpec(s.key))
	if err != nil {
		return err
	}
	path := filepath.Join(dir, "batchwarden.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return err
	}
	if s.config, _, err = config.Check(path); err != nil {
		return &failure{exitConfig, fmt.Errorf("these answers make no valid configuration:\n%s", strings.ReplaceAll(err.Error(), path+":", "line "))}
	}
	return nil
}

// pristine reports whether nobody has configured anything yet.
func (s *setup) pristine() bool {
	text, err := safefile.Read(config.DefaultFile, 1<<20, safefile.Rules{})
	return missing(config.DefaultFile) || err == nil && string(text) == linux.Configuration
}

// judgeUsers wants the accounts that the configuration names.
func (s *setup) judgeUsers() error {
	var errs []error
	for place, name := range map[string]string{"users.daemon": s.config.Users.Daemon, "users.sync": s.config.Users.Sync} {
		ours := false
		for _, e := range s.accounts {
			ours = ours || e.User && e.Name == name
		}
		if ours {
			continue
		}
		if _, err := accounts.Lookup(name); err != nil {
			errs = append(errs, fmt.Errorf("%s: %s names the user %q: %w; make it, or name another", config.DefaultFile, place, name, err))
		}
		if place == "users.daemon" {
			s.note("%s runs as batchwarden, and the configuration names %q: say User=%s in a drop-in of the unit (systemctl edit %s).", daemonUnit, name, name, daemonUnit)
		}
	}
	return errors.Join(errs...)
}

// tpmDevice is the TPM with the kernel's own resource manager.
const tpmDevice = "/dev/tpmrm0"

// judgeTPM wants what a key of that kind needs, where one is to be made.
func (s *setup) judgeTPM() error {
	if s.config == nil || !strings.HasPrefix(s.config.LocalVault.Key, hostkey.TPM2) || !missing(keyPath(s.config.LocalVault.Key)) {
		return nil
	}
	if missing(tpmDevice) {
		return fmt.Errorf("local_vault.key is %s, and this machine has no TPM to use: there is no %s", s.config.LocalVault.Key, tpmDevice)
	}
	if _, err := accounts.GroupByName("tss"); err != nil {
		return fmt.Errorf("local_vault.key is %s, and the group that may use the TPM is missing (install tpm-udev or tpm2-tss): %w", s.config.LocalVault.Key, err)
	}
	return nil
}

// chooseKey knows the three keys by name.
func (s *setup) chooseKey() error {
	switch s.key {
	case "", "keyfile", hostkey.Credential, hostkey.TPM2:
		return nil
	}
	return usage("--key %s: keys are keyfile, credential and tpm2", s.key)
}

// keySpec is how local_vault.key names it.
func keySpec(key string) string {
	switch key {
	case "", "keyfile":
		return "keyfile:" + filepath.Join(stateDir, "key")
	}
	return key
}

// confined notes what the machine's own access control may do to the launcher, and to jobs, which inherit it.
func (s *setup) confined() {
	enabled, err := os.ReadFile("/sys/module/apparmor/parameters/enabled")
	if err != nil || !strings.HasPrefix(string(enabled), "Y") {
		return
	}
	var found []string
	profiles, _ := filepath.Glob("/etc/apparmor.d/*") // the pattern is good
	for _, path := range profiles {
		if text, err := os.ReadFile(path); err == nil && (strings.Contains(string(text), programDir+"/") || strings.Contains(filepath.Base(path), "batchwarden")) {
			found = append(found, path)
		}
	}
	if len(found) == 0 {
		s.note("AppArmor is active here. batchwarden %s brings no profile and needs none; a profile for the launcher would bind every job.", version.Number)
		return
	}
	s.note("AppArmor is active here, and has profiles that speak of batchwarden: %s. One that confines the launcher confines every job.", strings.Join(found, ", "))
}

// asked reports whether somebody is at the terminal who can be asked.
func (a *app) asked() bool {
	return onTerminal(a.in) && onTerminal(a.errs)
}
