package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"batchwarden/vault/admin"
)

// adminFlags are what all admin commands have in common.
type adminFlags struct {
	dryRun    bool
	mount     string
	authMount string
}

func (a *app) adminCommand() *cobra.Command {
	f := &adminFlags{}
	cmd := parent("admin", "Set up and keep the Vault side: machines, batch users, policies",
		a.initCommand(f), a.machineCommand(f), a.groupCommand(f), a.batchUserCommand(f), a.passwordCommand(f),
		a.grantCommand(f), a.revokeCommand(f), a.vaultPolicyCommand(f), a.reviewCommand(f))
	cmd.Long = `Set up and keep the Vault side: what machines log in with, batch users, policies. This writes to Vault with your own
token and needs no service on this machine. As for the vault command, VAULT_ADDR says where Vault is, VAULT_TOKEN (or
~/.vault-token) who you are; VAULT_CACERT, VAULT_NAMESPACE, VAULT_TLS_SERVER_NAME, VAULT_CLIENT_CERT and VAULT_CLIENT_KEY
count too.

Everything may be done again: what is already as it should be is left alone. --dry-run says what would be done.

Exit codes: 0 done, or nothing to do; 1 no, or it did not work; 64 usage; 69 Vault does not answer; 77 your token
may not; 78 a document that no machine would take.`
	p := cmd.PersistentFlags()
	p.BoolVar(&f.dryRun, "dry-run", false, "write nothing, say what would be done")
	p.StringVar(&f.mount, "mount", admin.DefaultMount, "where the documents lie: a KV store, version 2")
	p.StringVar(&f.authMount, "auth-mount", admin.DefaultAuthMount, "where machines log in: an AppRole auth method")
	return cmd
}

// administer makes a command's RunE of what it does with Vault.
func (a *app) administer(f *adminFlags, act func(ctx context.Context, v *admin.Admin, cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return do(func(cmd *cobra.Command, args []string) error {
		v, err := f.connect()
		if err != nil {
			return err
		}
		return ofVault(act(cmd.Context(), v, cmd, args))
	})
}

func (f *adminFlags) connect() (*admin.Admin, error) {
	token, err := vaultToken()
	if err != nil {
		return nil, err
	}
	address := os.Getenv("VAULT_ADDR")
	switch {
	case address == "":
		return nil, usage("VAULT_ADDR is not set: export VAULT_ADDR=https://vault.example.com:8200")
	case token == "":
		return nil, usage("there is no token: set VAULT_TOKEN, or log in with the vault command")
	}
	v, err := admin.New(admin.Config{
		Address: address, Token: token, Namespace: os.Getenv("VAULT_NAMESPACE"), CAFile: os.Getenv("VAULT_CACERT"),
		ServerName: os.Getenv("VAULT_TLS_SERVER_NAME"), ClientCert: os.Getenv("VAULT_CLIENT_CERT"), ClientKey: os.Getenv("VAULT_CLIENT_KEY"),
		Mount: f.mount, AuthMount: f.authMount, DryRun: f.dryRun,
	})
	if err != nil {
		return nil, &failure{exitUsage, err}
	}
	return v, nil
}

// maxToken bounds what is read for a token.
const maxToken = 16 << 10

// vaultToken is the operator's, found as the vault command finds it.
func vaultToken() (string, error) {
	if token := os.Getenv("VAULT_TOKEN"); token != "" {
		return strings.TrimSpace(token), nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", nil // no home, no token there
	}
	f, err := os.Open(filepath.Join(home, ".vault-token"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", usage("the token cannot be read: %w", err)
	}
	defer f.Close() // only read
	text, err := io.ReadAll(io.LimitReader(f, maxToken))
	return strings.TrimSpace(string(text)), err
}

// ofVault gives an error of package admin its exit code and says what to do next.
func ofVault(err error) error {
	if err == nil {
		return nil
	}
	if _, is := errors.AsType[*failure](err); is {
		return err
	}
	text := strings.TrimPrefix(err.Error(), "admin: ")
	fail := func(code int, next string) error {
		if next != "" {
			text += "\n" + next
		}
		return &failure{code, errors.New(text)}
	}
	_, cut := errors.AsType[net.Error](err)
	if e, is := errors.AsType[*url.Error](err); is {
		cut = true
		text = fmt.Sprintf("Vault does not answer: %v", e)
	}
	switch {
	case errors.Is(err, context.Canceled):
		return fail(exitInterrupted, "")
	case errors.Is(err, admin.ErrForbidden):
		return fail(exitForbidden, "")
	case errors.Is(err, admin.ErrInvalid):
		return fail(exitConfig, "Nothing was written.")
	case errors.Is(err, admin.ErrConflict):
		return fail(exitNo, "Repeat the command: it starts from what is there now.")
	case errors.Is(err, admin.ErrShared):
		return fail(exitNo, "Repeat with --shared, or put it into a group or a machine.")
	case errors.Is(err, admin.ErrUnavailable):
		return fail(exitUnreachable, "Vault answers and cannot act; if it is sealed, unseal it and repeat the command.")
	case cut:
		return fail(exitUnreachable, "Is VAULT_ADDR right, and VAULT_CACERT the authority that signed its certificate?")
	}
	return fail(exitNo, "")
}

// done is what a command that changes something prints as JSON.
type done struct {
	DryRun bool         `json:"dry_run"`
	Steps  []admin.Step `json:"steps"`
}

func (a *app) doneOf(v *admin.Admin, steps []admin.Step) done {
	if steps == nil {
		steps = []admin.Step{}
	}
	return done{v.DryRun(), steps}
}

// text says what was done, or would be.
func (d done) text() string {
	if len(d.Steps) == 0 {
		return "Nothing to do: it is so already.\n"
	}
	var b strings.Builder
	for _, s := range d.Steps {
		line := s.String()
		if d.DryRun && s.Verb != admin.Note && s.Verb != admin.Warning {
			line = "would " + line
		}
		b.WriteString(cell(line) + "\n")
	}
	if d.DryRun {
		b.WriteString("Nothing was written: this was a dry run.\n")
	}
	return b.String()
}

// finish prints what was done, also before an error.
func (a *app) finish(v *admin.Admin, steps []admin.Step, err error) error {
	if err != nil && len(steps) == 0 {
		return err
	}
	d := a.doneOf(v, steps)
	return errors.Join(err, a.show(d, d.text()))
}

func (a *app) initCommand(f *adminFlags) *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "init [--print hcl|terraform]",
		Short: "Make the mount, the auth method and the policy of all machines",
		Long: `Make what all machines share: the KV mount, the AppRole auth method, and the policy by which a machine reads its own
scope and its platform's. With --print nothing is asked or changed: the same is printed for other tools to do.`,
		Args: cobra.NoArgs,
	}
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if format == "" {
			return a.administer(f, func(ctx context.Context, v *admin.Admin, _ *cobra.Command, _ []string) error {
				steps, err := v.Init(ctx)
				return a.finish(v, steps, err)
			})(cmd, args)
		}
		return do(func(*cobra.Command, []string) error {
			if format != "hcl" && format != "terraform" {
				return usage("--print %q is not one of hcl, terraform", format)
			}
			text, err := admin.Plan(format, f.mount, f.authMount)
			if err != nil {
				return &failure{exitUsage, err}
			}
			_, err = io.WriteString(a.out, text)
			return err
		})(cmd, args)
	}
	cmd.Flags().StringVar(&format, "print", "", "print it as `hcl` (policies) or terraform, and ask nobody")
	return cmd
}

// maxNames bounds how many names are read from the standard input.
const maxNames = 100_000

// named are the names that arguments give; "-" stands for those on the standard input, one a line.
func (a *app) named(args []string) ([]string, error) {
	var list []string
	for _, arg := range args {
		if arg != "-" {
			list = append(list, arg)
			continue
		}
		lines := bufio.NewScanner(io.LimitReader(a.in, 16<<20))
		for lines.Scan() {
			if line := strings.TrimSpace(lines.Text()); line != "" && !strings.HasPrefix(line, "#") {
				list = append(list, line)
			}
		}
		if err := lines.Err(); err != nil {
			return nil, fmt.Errorf("names cannot be read: %w", err)
		}
	}
	if len(list) > maxNames {
		return nil, usage("%d names, at most %d at a time", len(list), maxNames)
	}
	seen := map[string]bool{}
	for _, name := range list {
		if err := admin.CheckName(name); err != nil {
			return nil, &failure{exitUsage, err}
		}
	}
	return slices.DeleteFunc(list, func(name string) bool {
		twice := seen[name]
		seen[name] = true
		return twice
	}), nil
}

// scopeFlags say which scope of Vault is meant.
type scopeFlags struct{ machine, group, platform string }

func (s *scopeFlags) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.machine, "machine", "", "in the scope of this machine")
	cmd.Flags().StringVar(&s.group, "group", "", "in the scope of this group of machines")
	cmd.Flags().StringVar(&s.platform, "platform", "", "in the scope of this platform: unix, windows or zos")
}

// scope is the one that the flags name, "" for none.
func (s *scopeFlags) scope() (string, error) {
	var scopes []string
	for kind, name := range map[string]string{"machines/": s.machine, "groups/": s.group, "platforms/": s.platform} {
		if name != "" {
			scopes = append(scopes, kind+name)
		}
	}
	switch {
	case len(scopes) == 0:
		return "", nil
	case len(scopes) > 1:
		return "", usage("give only one of --machine, --group, --platform")
	}
	return scopes[0], checkedScope(scopes[0])
}

// must is scope where one is needed.
func (s *scopeFlags) must() (string, error) {
	scope, err := s.scope()
	if err == nil && scope == "" {
		err = usage("say where: --machine M, --group G or --platform P")
	}
	return scope, err
}

func checkedScope(scope string) error {
	if err := admin.CheckScope(scope); err != nil {
		return &failure{exitUsage, err}
	}
	return nil
}
