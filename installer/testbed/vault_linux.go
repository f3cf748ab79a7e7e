package testbed

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"batchwarden/vault/vaulttest"
)

// Scope is where the bed's documents lie in Vault: the machine's own.
const Scope = "machines/" + Machine

// User is a subject of the controller whom the bed's policy grants the batch
// users payroll and reports; Nobody is one whom it grants nothing.
const (
	User   = "jdoe"
	Nobody = "mallory"
	Realm  = "opcon"
)

// vaultTime bounds what is asked of the server.
const vaultTime = 30 * time.Second

// StartServer starts an empty server.
func (b *Bed) StartServer() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*vaultTime) // it may have to be built first
	defer cancel()
	b.Vault, err = vaulttest.Start(ctx, vaulttest.Options{Dir: b.Root + "/vault"})
	return err
}

// StartVault starts the server and puts into it what a machine needs: an
// AppRole and a policy of its own, two batch users, and the realm's document.
func (b *Bed) StartVault() error {
	if err := b.StartServer(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), vaultTime)
	defer cancel()
	var err error
	if err := b.Vault.Init(ctx); err != nil {
		return err
	}
	if b.login.RoleID, b.login.SecretID, err = b.Vault.AddMachine(ctx, Machine, "unix"); err != nil {
		return err
	}
	for _, name := range []string{"payroll", "reports"} {
		if err := b.PutBatchUser(name, "pw-"+rand.Text()); err != nil {
			return err
		}
	}
	return b.Vault.PutPolicy(ctx, Scope, Realm, Policy())
}

// Policy is the realm's document: jdoe may use payroll and reports on this
// machine, and nobody else anything.
func Policy() map[string]any {
	return map[string]any{
		"model": "opcon",
		"roles": map[string]any{"payroll-ops": map[string]any{
			"batch_users": map[string]any{"unix": []string{"users/payroll", "users/reports"}},
			"machines":    []string{Agent},
			"functions":   []string{},
		}},
		"users": map[string]any{User: map[string]any{"roles": []string{"payroll-ops"}}, Nobody: map[string]any{"roles": []string{}}},
		"batch_users": []map[string]any{
			{"platform": "unix", "login": "users/payroll", "password_set": true},
			{"platform": "unix", "login": "users/reports", "password_set": true},
		},
		"host": map[string]any{"black_list": []string{}, "white_list": []string{}},
	}
}

// PutBatchUser writes a version of the batch user "payroll" or "reports", which
// runs as the account of that name, with the password.
func (b *Bed) PutBatchUser(name, password string) error {
	account := map[string]Account{"payroll": b.Accounts.Payroll, "reports": b.Accounts.Reports}[name]
	return b.PutDocument(name, map[string]any{
		"format": 1, "username": account.Name, "kind": "password", "password": password,
		"names": map[string]string{Realm: "users/" + name}, "retrieve": true,
	})
}

// PutDocument writes a version of any batch user of the machine.
func (b *Bed) PutDocument(name string, document map[string]any) error {
	ctx, cancel := context.WithTimeout(context.Background(), vaultTime)
	defer cancel()
	if password, ok := document["password"].(string); ok {
		b.Remember(password)
	}
	return b.Vault.PutBatchUser(ctx, Scope, name, document)
}

// DeleteBatchUser removes a batch user in Vault.
func (b *Bed) DeleteBatchUser(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), vaultTime)
	defer cancel()
	return b.Vault.DestroyBatchUser(ctx, Scope, name)
}

// VaultPID returns the pid of the server that runs, or 0.
func (b *Bed) VaultPID() int {
	children, err := Children(os.Getpid())
	if err != nil {
		return 0
	}
	for _, pid := range children {
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err == nil && bytes.Contains(cmdline, []byte("\x00"+b.Vault.Dir+"\x00")) {
			return pid
		}
	}
	return 0
}

// StopVault makes the server unreachable. ResumeVault starts it again, on the
// same address with the same content.
func (b *Bed) StopVault() error { return b.Vault.Stop() }

// ResumeVault undoes StopVault.
func (b *Bed) ResumeVault() error {
	ctx, cancel := context.WithTimeout(context.Background(), vaultTime)
	defer cancel()
	return b.Vault.Restart(ctx)
}

// Passwords returns every password that was ever put into Vault, oldest first:
// payroll's, reports', and what came later.
func (b *Bed) Passwords() []string { return b.passwords }

// AdminEnviron is what "batchwarden admin" takes its own credentials from.
func (b *Bed) AdminEnviron() []string {
	return []string{"VAULT_ADDR=" + b.Vault.Address, "VAULT_CACERT=" + b.Vault.CAFile, "VAULT_TOKEN=" + b.Vault.RootToken}
}

// Admin runs "batchwarden admin ARGS…" as the server's root.
func (b *Bed) Admin(stdin []byte, args ...string) Result {
	return b.command(Root, stdin, b.AdminEnviron(), append([]string{"batchwarden", "admin"}, args...))
}

// Adopt makes Configure use what "admin machine add --out DIR" wrote for this
// machine.
func (b *Bed) Adopt(dir string) error {
	role, err := os.ReadFile(filepath.Join(dir, Machine, "role_id"))
	if err != nil {
		return err
	}
	secret, err := os.ReadFile(filepath.Join(dir, Machine, "secret_id"))
	if err != nil {
		return err
	}
	b.login = login{RoleID: string(role), SecretID: string(secret), Wrapped: true}
	return nil
}

// Remember adds a password to those that Passwords returns.
func (b *Bed) Remember(password string) { b.passwords = append(b.passwords, password) }

// login is what the sync worker logs in with.
type login struct {
	RoleID, SecretID string
	Wrapped          bool
}

// closeVault ends the server, if there was one.
func (b *Bed) closeVault() error {
	if b.Vault == nil {
		return nil
	}
	return b.Vault.Close()
}

// ca is the certificate of the test CA.
func (b *Bed) ca() ([]byte, error) { return os.ReadFile(b.Vault.CAFile) }
