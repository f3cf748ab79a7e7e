package testbed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// ConfigFile is batchwarden.yaml.
func (b *Bed) ConfigFile() string { return b.Etc + "/batchwarden.yaml" }

// LimitsFile is limits.yaml.
func (b *Bed) LimitsFile() string { return b.Etc + "/limits.yaml" }

// Configure writes the configuration, the host owner's limits, and what the
// sync worker logs in with. The Vault server must run.
func (b *Bed) Configure() error {
	yaml := b.config()
	if b.options.Edit != nil {
		yaml = b.options.Edit(yaml)
	}
	limits := b.options.Limits
	if limits == "" {
		limits = fmt.Sprintf("version: 1\nrequesters: [%s]\n", b.Accounts.LSAM.Name)
	}
	ca, err := b.ca()
	if err != nil {
		return err
	}
	for _, f := range []struct {
		path  string
		text  string
		owner Account
		mode  os.FileMode
	}{
		{b.ConfigFile(), yaml, Root, 0o644},
		{b.LimitsFile(), limits, Root, 0o600},
		{b.Etc + "/vault-ca.pem", string(ca), Root, 0o644},
		{b.Etc + "/role_id", b.login.RoleID, b.Accounts.Sync, 0o400},
		{b.Etc + "/secret_id", b.login.SecretID, b.Accounts.Sync, 0o400},
	} {
		if err := writeFile(f.path, []byte(f.text), f.owner, f.mode); err != nil {
			return err
		}
	}
	return nil
}

// config is batchwarden.yaml as the documentation shows it, for this bed.
func (b *Bed) config() string {
	wrapped := ""
	if b.login.Wrapped {
		wrapped = ", secret_id_wrapped: true"
	}
	return strings.NewReplacer(
		"{root}", b.Root, "{etc}", b.Etc, "{state}", b.State, "{jobs}", b.Jobs, "{socket}", b.Socket,
		"{machine}", Machine, "{agent}", Agent, "{address}", b.Vault.Address, "{wrapped}", wrapped,
		"{daemon}", b.Accounts.Daemon.Name, "{sync}", b.Accounts.Sync.Name, "{lsam}", b.Accounts.LSAM.Name,
		"{interval}", b.options.Interval.String(), "{sweep}", max(b.options.Interval, b.options.Interval*4).String(),
	).Replace(`version: 1
machine: {machine}
platforms: [unix]
state_dir: {state}
socket: {socket}
launcher: {socket: {root}/launcher/launcher.sock, state_dir: {jobs}, cgroup_root: auto}
users: {daemon: {daemon}, sync: {sync}}
vault:
  address: {address}
  ca_file: {etc}/vault-ca.pem
  mount: batch
  auth: {method: approle, role_id_file: {etc}/role_id, secret_id_file: {etc}/secret_id{wrapped}}
sync: {interval: {interval}, sweep: {sweep}}
local_vault: {key: "keyfile:{state}/key"}
realms:
  opcon: {model: opcon, agent: {agent}}
clients:
  - name: lsam
    match: {user: {lsam}}
    realms: [opcon]
    may: [authorize, explain, launch, retrieve]
    subjects: {users: ["*"]}
    batch_users: ["*"]
operators: {users: [root], groups: []}
audit: {file: {state}/audit.jsonl}
`)
}

// writeFile writes a file under another name and renames it, so that a
// program that watches it never sees half.
func writeFile(path string, text []byte, owner Account, mode os.FileMode) error {
	temporary, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	_, err = temporary.Write(text)
	err = errors.Join(err, temporary.Chmod(mode), temporary.Chown(int(owner.UID), int(owner.GID)), temporary.Close())
	if err == nil {
		err = os.Rename(temporary.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(temporary.Name()))
	}
	return nil
}
