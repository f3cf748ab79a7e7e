package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"batchwarden/daemon/config"
	"batchwarden/installer/linux"
	accounts "batchwarden/platform/account"
	"batchwarden/platform/hostkey"
	"batchwarden/platform/hostkey/mint"
	"batchwarden/platform/lockmem"
	"batchwarden/platform/safefile"
)

// Our accounts, and the directories that the units and the usual configuration name.
const (
	daemonUser  = "batchwarden"
	syncUser    = "batchwarden-sync"
	configDir   = "/etc/batchwarden"
	stateDir    = "/var/lib/batchwarden"
	launcherDir = "/var/lib/batchwarden-launcher"
)

// directory is one that setup makes; those below /run the service manager and the launcher make.
type directory struct {
	path string
	mode fs.FileMode
	user string
}

var directories = []directory{
	{configDir, 0o755, "root"},
	{configDir + "/clients.d", 0o755, "root"},
	{stateDir, 0o700, daemonUser},
	{launcherDir, 0o700, "root"},
}

// owner is the account that the directory belongs to. A user that is not there yet has none.
func (d directory) owner() (accounts.Account, error) { return accounts.System().Fresh(d.user) }

// check says what is wrong with a directory that is there.
func (d directory) check() error {
	if missing(d.path) {
		return nil
	}
	rules := safefile.Rules{Mode: d.mode}
	if who, err := d.owner(); err == nil {
		rules.Owners = []uint32{who.UID}
	} else if !errors.Is(err, accounts.ErrMissing) {
		return err
	}
	if err := safefile.CheckDir(d.path, rules); err != nil {
		return fmt.Errorf("%w; it is to be %s's, mode %04o", err, d.user, d.mode)
	}
	return nil
}

func (s *setup) makeDirectories(context.Context) error {
	var made []string
	for _, d := range directories {
		who, err := d.owner()
		if err != nil {
			return err
		}
		faulty := d.check() != nil // then --force was given
		switch err := os.Mkdir(d.path, 0o700); {
		case err == nil:
			made = append(made, d.path)
		case !errors.Is(err, fs.ErrExist):
			return err
		case faulty:
			made = append(made, d.path+" (given to "+d.user+")")
		default: // the service's own may still be root's
			if err := os.Lchown(d.path, int(who.UID), int(who.GID)); err != nil {
				return err
			}
			continue
		}
		if err := errors.Join(os.Lchown(d.path, int(who.UID), int(who.GID)), os.Chmod(d.path, d.mode)); err != nil {
			return err
		}
	}
	if len(made) == 0 {
		s.left("directories: %s, %s, %s", configDir, stateDir, launcherDir)
		return nil
	}
	s.did("directories: %s", strings.Join(made, ", "))
	return nil
}

// placeConfiguration writes what is missing of the configuration, and nothing else.
func (s *setup) placeConfiguration(context.Context) error {
	if missing(config.DefaultLimitsFile) {
		if err := safefile.WriteAtomic(config.DefaultLimitsFile, []byte(linux.Limits), 0o600); err != nil {
			return err
		}
		s.did("%s", config.DefaultLimitsFile)
	} else {
		s.left("%s", config.DefaultLimitsFile)
	}
	switch {
	case s.answers != nil:
		if err := s.copySecrets(); err != nil {
			return err
		}
		text, err := s.answers.configuration(keySpec(s.key))
		if err == nil {
			err = safefile.WriteAtomic(config.DefaultFile, []byte(text), 0o644)
		}
		if err == nil {
			s.config, err = config.Load(config.DefaultFile) // as the services will
		}
		if err != nil {
			return err
		}
		s.did("%s, with your answers", config.DefaultFile)
	case missing(config.DefaultFile):
		if err := safefile.WriteAtomic(config.DefaultFile, []byte(linux.Configuration), 0o644); err != nil {
			return err
		}
		s.did("%s, commented, without a Vault server", config.DefaultFile)
	case s.setupOptions.answers != "":
		s.kept("%s; the answers are for the first time", config.DefaultFile)
	default:
		s.left("%s", config.DefaultFile)
	}
	return nil
}

// copySecrets copies what the answers name to where the sync worker reads it.
func (s *setup) copySecrets() error {
	who, err := accounts.System().Fresh(syncUser)
	if err != nil {
		return err
	}
	for _, c := range s.answers.copies() {
		text, err := os.ReadFile(c.from)
		if err != nil {
			return err
		}
		old, err := os.ReadFile(c.to)
		same := err == nil && bytes.Equal(old, text)
		if err == nil && !same && !s.force {
			return fmt.Errorf("%s is there already and is another than %s; remove it, or say --force", c.to, c.from)
		}
		mode, uid, gid := fs.FileMode(0o400), int(who.UID), int(who.GID)
		if c.open {
			mode, uid, gid = 0o644, 0, 0
		}
		if !same {
			err = safefile.WriteAtomic(c.to, text, mode)
		} else {
			err = os.Chmod(c.to, mode)
		}
		if err := errors.Join(err, os.Lchown(c.to, uid, gid)); err != nil {
			return err
		}
		s.did("%s, from %s", c.to, c.from)
	}
	return nil
}

// makeKey makes the key of the local vault where there is neither.
func (s *setup) makeKey(context.Context) (err error) {
	if s.config == nil {
		return nil
	}
	spec := s.config.LocalVault.Key
	path := keyPath(spec)
	switch {
	case !missing(filepath.Join(s.config.StateDir, "vault")):
		s.left("key of the local vault: %s", spec)
		if chosen := keySpec(s.key); s.key != "" && !strings.HasPrefix(spec, s.key) {
			s.kept("local vault: it opens with %s, not with %s; batchwarden setup rekey changes that", spec, chosen)
		}
		return nil
	case path == "" || !missing(path):
		s.left("key of the local vault: %s", spec)
		return nil
	}
	who, err := accounts.System().Fresh(s.config.Users.Daemon)
	if err != nil {
		return err
	}
	if err := lockmem.Harden(); err != nil {
		s.note("The memory of this process is not protected: %s", err)
	}
	arena, err := lockmem.New(1)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, arena.Close()) }()
	made, err := mint.Key(spec, hostkey.Owner{UID: who.UID, GID: who.GID}, mint.Options{}, arena)
	if err != nil {
		return err
	}
	arena.Drop(made.KEK)
	s.did("key of the local vault: %s", path)
	return nil
}

// keyPath is the file of a key, "" when it has none of its own.
func keyPath(spec string) string {
	kind, path, _ := strings.Cut(spec, ":")
	switch kind {
	case hostkey.Credential:
		return mint.CredentialFile
	case hostkey.TPM2, "keyfile":
		return path
	}
	return ""
}
