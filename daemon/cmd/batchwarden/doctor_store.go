package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/doctor"
	"batchwarden/platform/hostkey"
	"batchwarden/platform/lockmem"
	"batchwarden/vault/sealed"
)

// localVault puts the service's word beside a look of our own at the file, which is only read.
func (d *diagnosis) localVault(ctx context.Context) []doctor.Check {
	const name = "local_vault"
	const mend = "batchwarden sync reads from Vault what is missing; quarantine-* in %s holds what was set aside, for whoever looks into it"
	if d.config == nil {
		return unconfigured(name)
	}
	dir := filepath.Join(d.config.StateDir, "vault")
	s := d.status()
	if s.status != nil {
		if faults := s.problems("local_vault."); len(faults) > 0 {
			return []doctor.Check{problem(name, strings.Join(faults, "; "), fmt.Sprintf(mend, dir))}
		}
	}
	if !d.root {
		if s.status != nil {
			return []doctor.Check{ok(name, fmt.Sprintf("the service has %s in it; the file itself only root can look at", counted(s.status.LocalVault.Records, "record")))}
		}
		return []doctor.Check{unknown(name, "only root and the service's user can read it", asRoot)}
	}
	v, err := d.openVault(ctx, dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if s.status != nil {
			return []doctor.Check{problem(name, oneLine(err)+"; the service goes on from memory", "batchwarden sync, then systemctl restart batchwardend while Vault answers")}
		}
		return []doctor.Check{note(name, "there is none yet; the service makes it when it first starts")}
	case errors.Is(err, hostkey.ErrMissing):
		return []doctor.Check{problem(name, oneLine(err)+"; the vault opens with nothing else", "bring the key back; or give the vault up: remove "+dir+" and start the service while Vault answers")}
	case errors.Is(err, errNotHere):
		if s.status != nil {
			return []doctor.Check{ok(name, fmt.Sprintf("the service has %s in it; %s", counted(s.status.LocalVault.Records, "record"), err))}
		}
		return []doctor.Check{unknown(name, err.Error(), "start the service: it says")}
	case err != nil:
		return []doctor.Check{problem(name, oneLine(err), fmt.Sprintf(mend, dir))}
	case len(v.Faults) > 0:
		return []doctor.Check{problem(name, "it is not what was written: "+strings.Join(v.Faults, "; "),
			"systemctl restart batchwardend sets the damaged file aside; then batchwarden sync, while Vault answers")}
	case len(v.Quarantined) > 0:
		return []doctor.Check{problem(name, fmt.Sprintf("%s set aside in %s: %s", counted(len(v.Quarantined), "file"), dir, strings.Join(v.Quarantined, ", ")),
			"find out who damaged it; then remove the file")}
	}
	return []doctor.Check{ok(name, fmt.Sprintf("%s, unbroken through %s", counted(v.Records, "record"), counted(int(v.Commits), "commit")))}
}

// errNotHere reports a key that only the service is given.
var errNotHere = errors.New("its key is given to the service alone, so the file was not looked into")

// openVault reads the vault with its key, in locked memory, and changes nothing.
func (d *diagnosis) openVault(ctx context.Context, dir string) (_ *sealed.Verified, err error) {
	spec := d.config.LocalVault.Key
	if spec == hostkey.Credential {
		return nil, errNotHere
	}
	owner, err := d.accounts.Lookup(d.config.Users.Daemon)
	if err != nil {
		return nil, err
	}
	if _, err := os.Stat(filepath.Join(dir, "vault.log")); err != nil {
		return nil, err // before its key is asked for
	}
	if err := lockmem.Harden(); err != nil {
		return nil, err
	}
	arena, err := lockmem.New(4)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, arena.Close()) }()
	key, err := hostkey.Places{Owners: []uint32{owner.UID}}.Open(spec, false, arena)
	if err != nil {
		return nil, err
	}
	defer arena.Drop(key.KEK)
	return sealed.Verify(ctx, dir, owner.UID, &sealed.Key{KEK: key.KEK, Kind: key.Kind, ID: key.ID, Host: key.Host}, arena)
}

// errEnough ends a look at a log that would take too long.
var errEnough = errors.New("enough was read")

func (d *diagnosis) audit(ctx context.Context) []doctor.Check {
	const name = "audit"
	if d.config == nil {
		return unconfigured(name)
	}
	file := d.config.Audit.File
	s := d.status()
	if s.status != nil {
		if faults := s.problems("audit."); len(faults) > 0 {
			return []doctor.Check{problem(name, strings.Join(faults, "; "), "make room and see to "+file+": without its audit record nothing is done; df -h "+filepath.Dir(file))}
		}
	}
	read := 0
	found, err := audit.Verify(file, func([]byte) error {
		if read++; ctx.Err() != nil {
			return errEnough
		}
		return nil
	})
	switch {
	case errors.Is(err, errEnough):
		return []doctor.Check{note(name, fmt.Sprintf("the first %d records are one unbroken chain; batchwarden audit verify --journal looks at all", read-1))}
	case errors.Is(err, fs.ErrPermission):
		return []doctor.Check{unknown(name, "only root and the service's user can read "+file, asRoot)}
	case errors.Is(err, fs.ErrNotExist) && s.status == nil:
		return []doctor.Check{note(name, "there is no audit log yet")}
	case err != nil:
		return []doctor.Check{problem(name, oneLine(err), "see to "+file)}
	case found.Fault != nil:
		f := found.Fault
		return []doctor.Check{problem(name, fmt.Sprintf("%s:%d: %s", f.File, f.Line, f.Why),
			"batchwarden audit verify --journal holds it against the launcher's journal; keep the files for whoever looks into it")}
	}
	return []doctor.Check{ok(name, fmt.Sprintf("%s, one unbroken chain; batchwarden audit verify --journal holds it against the launcher's", counted(int(found.Records), "record")))}
}
