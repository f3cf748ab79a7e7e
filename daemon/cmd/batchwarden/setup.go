package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchwarden/daemon/config"
	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
	accounts "batchwarden/platform/account"
	"batchwarden/platform/hostkey"
	"batchwarden/platform/hostkey/mint"
	"batchwarden/platform/lockmem"
)

// How long the service may take to answer.
const (
	askTime   = 5 * time.Second
	rekeyTime = 30 * time.Second // it writes the vault anew
)

func (a *app) setupCommand() *cobra.Command {
	return parent("setup", "Set this machine up",
		a.installCommand(), a.uninstallCommand(), a.startCommand(), a.stopCommand(), a.restartCommand(), a.setupStatusCommand(), a.rekeyCommand())
}

// rekey is one change of the local vault's key.
type rekey struct {
	to     string
	config string
	file   string // of a credential
}

func (a *app) rekeyCommand() *cobra.Command {
	var r rekey
	cmd := &cobra.Command{
		Use:   "rekey --to keyfile:PATH|credential|tpm2[:PATH]",
		Short: "Change the key of the local vault, without a restart; for root",
		Long: `Make a new key for the local vault and let it open the vault beside the one that does. Both do until the service
starts again: the key that the configuration names then is the one that stays. So after this the configuration has to
name the new key; what to write is printed. Nothing is changed when a step fails.

  keyfile:PATH   32 octets in a file of the service's user. Who has the file and the vault has both.
  tpm2[:PATH]    sealed by this machine's TPM into a file, which opens nothing on another machine.
  credential     encrypted by systemd (systemd-creds) for this machine; the service's unit then needs
                 LoadCredentialEncrypted=kek:FILE.`,
		Args: cobra.NoArgs,
		RunE: do(func(cmd *cobra.Command, _ []string) error { return a.rekey(cmd.Context(), r) }),
	}
	cmd.Flags().StringVar(&r.to, "to", "", "the new key, as local_vault.key would name it")
	cmd.Flags().StringVar(&r.config, "config", config.DefaultFile, "the service's configuration")
	cmd.Flags().StringVar(&r.file, "credential-file", mint.CredentialFile, "with --to credential: the file to make")
	return cmd
}

// rekeyed is what rekey prints as JSON.
type rekeyed struct {
	Key    string `json:"key"` // as local_vault.key names it
	Kind   string `json:"kind"`
	ID     string `json:"id"`
	File   string `json:"file"` // that was made
	OldKey string `json:"old_key"`
	OldID  string `json:"old_id"`
}

func (a *app) rekey(ctx context.Context, r rekey) error {
	if r.to == "" {
		return usage("--to is missing; it names the new key: keyfile:PATH, credential, tpm2 or tpm2:PATH")
	}
	if os.Geteuid() != 0 {
		return &failure{exitForbidden, errors.New("only root changes the key of the local vault")}
	}
	c, err := config.Load(r.config)
	if err != nil {
		return &failure{exitConfig, err}
	}
	if a.socket == client.DefaultSocket {
		a.socket = c.Socket
	}
	if r.to == hostkey.TPM2 {
		r.to += ":" + filepath.Join(c.StateDir, "key.tpm2")
	}
	if _, path, has := strings.Cut(r.to, ":"); has && !filepath.IsAbs(path) {
		return usage("--to %s: the path is not absolute", r.to)
	}
	// Nothing is made when there is nobody who would take it.
	service := client.New(a.socket)
	defer service.Close()
	before, err := within(ctx, askTime, service.Status)
	if err != nil {
		return err
	}
	daemon, err := accounts.Lookup(c.Users.Daemon)
	if err != nil {
		return fmt.Errorf("users.daemon: %q: %w", c.Users.Daemon, err)
	}
	made, err := a.mint(ctx, service, r, hostkey.Owner{UID: daemon.UID, GID: daemon.GID})
	if err != nil {
		return err
	}
	made.OldKey, made.OldID = before.LocalVault.Key, before.LocalVault.KeyID
	return a.show(made, rekeyedText(made, r.config))
}

// mint makes the key and has the service take it. Where that fails the key is removed again: what the service may have
// taken all the same does no harm, as the key that the configuration names opens the vault as before.
func (a *app) mint(ctx context.Context, service *client.Client, r rekey, owner hostkey.Owner) (_ *rekeyed, err error) {
	if err := lockmem.Harden(); err != nil {
		fmt.Fprintf(a.errs, "warning: %s\n", err)
	}
	arena, err := lockmem.New(1)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, arena.Close()) }()
	made, err := mint.Key(r.to, owner, mint.Options{CredentialFile: r.file}, arena)
	if errors.Is(err, fs.ErrExist) {
		return nil, fmt.Errorf("%w; it may be the key of something, so it is left alone: name another file, or remove it", err)
	}
	if err != nil {
		return nil, err
	}
	defer arena.Drop(made.KEK)
	defer func() {
		if err != nil {
			err = errors.Join(err, made.Undo())
		}
	}()
	pipe, err := made.Pipe()
	if err != nil {
		return nil, err
	}
	defer pipe.Close() // only read, and by others
	_, err = within(ctx, rekeyTime, func(ctx context.Context) (*wire.HostKey, error) {
		return service.Rekey(ctx, wire.HostKey{Kind: made.Kind, ID: made.ID}, pipe)
	})
	if err != nil {
		return nil, err
	}
	return &rekeyed{Key: r.to, Kind: made.Kind, ID: made.ID, File: made.Path}, nil
}

// within asks the service for at most that time. The socket is there, and lets anybody connect, also while batchwardend
// is not: the launcher holds it.
func within[T any](ctx context.Context, d time.Duration, ask func(context.Context) (T, error)) (T, error) {
	bounded, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	answer, err := ask(bounded)
	if err != nil && ctx.Err() == nil && bounded.Err() != nil {
		err = fmt.Errorf("%w within %v", client.ErrUnreachable, d)
	}
	return answer, err
}

func rekeyedText(r *rekeyed, file string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "The local vault opens with both keys now: %s %s, which is new, and %s %s.\n", r.Kind, r.ID, r.OldKey, r.OldID)
	fmt.Fprintf(&b, "To go on with the new one, write this into %s:\n\n  local_vault: {key: %q}\n\n", file, r.Key)
	if r.Kind == hostkey.Credential {
		fmt.Fprintf(&b, "and this into the [Service] section of the service's unit:\n\n  LoadCredentialEncrypted=kek:%s\n\n", r.File)
	}
	b.WriteString("Then restart batchwardend. Until then the old key keeps opening the vault; from then on it opens nothing, and can be\n" +
		"removed once batchwarden status shows the new one.\n")
	return b.String()
}
