package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchwarden/vault/admin"
	"batchwarden/vault/documents"
)

func (a *app) batchUserCommand(f *adminFlags) *cobra.Command {
	return parent("batch-user", "Put, delete and list the batch users in Vault",
		a.batchUserPutCommand(f), a.batchUserDeleteCommand(f), a.batchUserListCommand(f))
}

// secretFlags say where a password comes from. It is never an argument: those are seen by everybody on the host.
type secretFlags struct {
	stdin    bool
	generate string // a length; "0" is the usual one
}

func (s *secretFlags) flags(cmd *cobra.Command, stdin string) {
	cmd.Flags().BoolVar(&s.stdin, stdin, false, "read the password from the standard input, to its end or one line end before that")
	cmd.Flags().StringVar(&s.generate, "generate", "", "make a password, of `LENGTH` characters (default 32)")
	cmd.Flags().Lookup("generate").NoOptDefVal = "0"
}

// read returns the password, nil when the flags ask for none.
func (s *secretFlags) read(in io.Reader) ([]byte, error) {
	switch {
	case s.stdin && s.generate != "":
		return nil, usage("give a password or have one made, not both")
	case s.generate != "":
		length, err := strconv.Atoi(s.generate)
		if err != nil || length < 0 {
			return nil, usage("--generate %q is not a length", s.generate)
		}
		secret, err := admin.GeneratePassword(length, "")
		if err != nil {
			return nil, &failure{exitUsage, err}
		}
		return secret, nil
	case !s.stdin:
		return nil, nil
	case onTerminal(in):
		return nil, usage("the standard input is a terminal, which would show the password; pipe it in, or use --generate")
	}
	secret, err := io.ReadAll(io.LimitReader(in, documents.MaxPassword+3))
	if err != nil {
		return nil, fmt.Errorf("the password cannot be read: %w", err)
	}
	secret = bytes.TrimSuffix(bytes.TrimSuffix(secret, []byte("\n")), []byte("\r"))
	if err := admin.CheckPassword(secret); err != nil {
		return nil, &failure{exitUsage, fmt.Errorf("standard input: %w", err)}
	}
	return secret, nil
}

// userFlags are the members of a batch user's document.
type userFlags struct {
	scopeFlags
	secretFlags
	shared   bool
	names    []string
	services []string
	source   string
}

func (a *app) batchUserPutCommand(f *adminFlags) *cobra.Command {
	var u userFlags
	cmd := &cobra.Command{
		Use:   "put NAME {--machine M|--group G|--platform P} --username ACCOUNT [--password-stdin|--generate[=LENGTH]]",
		Short: "Make a batch user, or change what the flags name of one",
		Long: `Make a batch user, or change one: what no flag names stays as it is, the password too. An empty value, as in
--domain= or --name opcon=, takes a member away. --generate makes a password where there is none yet; to change one
use admin password. A password in the scope of a platform is readable by every such machine and needs --shared.`,
		Args: cobra.ExactArgs(1),
		RunE: a.administer(f, func(ctx context.Context, v *admin.Admin, cmd *cobra.Command, args []string) error {
			return a.putUser(ctx, v, cmd, args[0], &u)
		}),
	}
	u.scopeFlags.flags(cmd)
	u.secretFlags.flags(cmd, "password-stdin")
	p := cmd.Flags()
	for _, m := range textMembers {
		p.String(m.flag, "", m.usage)
	}
	p.Bool("launch", true, "jobs may be launched as it")
	p.Bool("retrieve", false, "its password may be handed out")
	p.StringArrayVar(&u.names, "name", nil, "what a realm or a model calls it, as `REALM=NAME`; may be given again")
	p.StringArrayVar(&u.services, "service", nil, "its business services in a realm, as `REALM=A,B`; may be given again")
	p.StringVar(&u.source, "source", "", "the `PATH` in Vault where the password lies instead")
	p.BoolVar(&u.shared, "shared", false, "every machine of the platform may read the password")
	return cmd
}

// textMembers are those of a document that are texts and have a flag of their own.
var textMembers = []struct{ flag, member, usage string }{
	{"username", "username", "the account on the machine (required)"},
	{"domain", "domain", "the account's domain (Windows)"},
	{"os-group", "group", "the primary group of its jobs, one that the account has (default: the account's own)"},
	{"os-platform", "platform", "unix, windows or zos (default: that of the scope or the machine)"},
	{"kind", "kind", "password or none (default password)"},
	{"pam", "pam", "the PAM service of its jobs"},
	{"max-stale", "max_stale", "how long it is good without Vault, as 72h"},
	{"expires", "expires", "when it ends, as 2027-01-01T00:00:00Z or a length of time from now"},
}

func (a *app) putUser(ctx context.Context, v *admin.Admin, cmd *cobra.Command, name string, u *userFlags) error {
	scope, err := u.must()
	if err != nil {
		return err
	}
	if err := admin.CheckName(name); err != nil {
		return &failure{exitUsage, err}
	}
	secret, err := u.read(a.in)
	if err != nil {
		return err
	}
	defer clear(secret)
	old, err := v.BatchUser(ctx, scope, name)
	if err != nil && !errors.Is(err, admin.ErrNotFound) {
		return err
	}
	doc := map[string]any{}
	maps.Copy(doc, old.Document)
	if err := u.into(doc, cmd, a.now()); err != nil {
		return err
	}
	if secret != nil && (u.stdin || !old.HasPassword) { // the second run makes no second password
		doc["password"] = string(secret)
	}
	switch {
	case doc["username"] == nil:
		return usage("say which account it is: --username")
	case doc["password"] == nil && !old.HasPassword && doc["kind"] != "none" && doc["source"] == nil:
		return usage("a password is needed: --password-stdin or --generate; or --source, or --kind none")
	}
	steps, err := v.PutBatchUser(ctx, scope, name, doc, u.shared)
	return a.finish(v, steps, err)
}

// into sets the members that flags name.
func (u *userFlags) into(doc map[string]any, cmd *cobra.Command, now time.Time) error {
	set := func(member string, value any, empty bool) {
		if doc[member] = value; empty {
			delete(doc, member)
		}
	}
	for _, m := range textMembers {
		if flag := cmd.Flags().Lookup(m.flag); flag.Changed {
			value := flag.Value.String()
			if d, err := time.ParseDuration(value); m.flag == "expires" && err == nil {
				value = now.Add(d).UTC().Truncate(time.Second).Format(time.RFC3339)
			}
			set(m.member, value, value == "")
		}
	}
	for _, flag := range []string{"launch", "retrieve"} {
		if cmd.Flags().Changed(flag) {
			on, err := cmd.Flags().GetBool(flag)
			if err != nil {
				return err
			}
			set(flag, on, false)
		}
	}
	if cmd.Flags().Changed("source") {
		set("source", map[string]any{"path": u.source}, u.source == "")
	}
	if err := pairs(doc, "names", "name", u.names, func(value string) any { return value }); err != nil {
		return err
	}
	return pairs(doc, "services", "service", u.services, func(value string) any {
		list := []any{}
		for service := range strings.SplitSeq(value, ",") {
			list = append(list, strings.TrimSpace(service))
		}
		return list
	})
}

// pairs sets the members of an object in doc that flags name as realm=value.
func pairs(doc map[string]any, member, flag string, given []string, of func(string) any) error {
	if given == nil {
		return nil
	}
	o := map[string]any{}
	if old, is := doc[member].(map[string]any); is {
		maps.Copy(o, old)
	}
	for _, g := range given {
		realm, value, ok := strings.Cut(g, "=")
		if !ok || realm == "" {
			return usage("--%s %q: write it as REALM=%s", flag, g, strings.ToUpper(flag))
		}
		if o[realm] = of(value); value == "" {
			delete(o, realm)
		}
	}
	if doc[member] = o; len(o) == 0 {
		delete(doc, member)
	}
	return nil
}

func (a *app) batchUserDeleteCommand(f *adminFlags) *cobra.Command {
	var s scopeFlags
	var purge bool
	cmd := &cobra.Command{
		Use:   "delete NAME... {--machine M|--group G|--platform P} [--purge]",
		Short: "Delete batch users: machines drop them when they next look",
		Long: `Delete batch users: machines drop them when they next look. Vault can undelete them, unless --purge removes them with
all their versions. "-" reads names from the standard input.`,
		Args: cobra.MinimumNArgs(1),
		RunE: a.administer(f, func(ctx context.Context, v *admin.Admin, _ *cobra.Command, args []string) error {
			scope, err := s.must()
			if err != nil {
				return err
			}
			names, err := a.named(args)
			if err != nil {
				return err
			}
			var all []admin.Step
			for _, name := range names {
				steps, err := v.DeleteBatchUser(ctx, scope, name, purge)
				if all = append(all, steps...); err != nil {
					return a.finish(v, all, err)
				}
			}
			return a.finish(v, all, nil)
		}),
	}
	s.flags(cmd)
	cmd.Flags().BoolVar(&purge, "purge", false, "with all versions, for good")
	return cmd
}

func (a *app) batchUserListCommand(f *adminFlags) *cobra.Command {
	var s scopeFlags
	cmd := &cobra.Command{
		Use:   "list [--machine M|--group G|--platform P]",
		Short: "List the batch users in Vault, of one scope or of all; never a password",
		Args:  cobra.NoArgs,
		RunE: a.administer(f, func(ctx context.Context, v *admin.Admin, _ *cobra.Command, _ []string) error {
			scope, err := s.scope()
			if err != nil {
				return err
			}
			scopes := []string{scope}
			if scope == "" {
				if scopes, err = v.Scopes(ctx); err != nil {
					return err
				}
			}
			all := []admin.BatchUser{}
			for _, scope := range scopes {
				users, err := v.BatchUsers(ctx, scope)
				if err != nil {
					return err
				}
				all = append(all, users...)
			}
			return a.show(struct {
				BatchUsers []admin.BatchUser `json:"batch_users"`
			}{all}, vaultUsersText(all))
		}),
	}
	s.flags(cmd)
	return cmd
}

func vaultUsersText(all []admin.BatchUser) string {
	if len(all) == 0 {
		return "There are no batch users. batchwarden admin batch-user put NAME makes one.\n"
	}
	var p page
	p.row("SCOPE", "NAME", "ACCOUNT", "CALLED", "USE", "PASSWORD", "VERSION")
	for _, u := range all {
		text := func(member string) string {
			s, _ := u.Document[member].(string) // what is no text is no machine's either
			return s
		}
		account := text("username")
		if d := text("domain"); d != "" {
			account = d + `\` + account
		}
		names, _ := u.Document["names"].(map[string]any)
		var called, use []string
		for _, realm := range slices.Sorted(maps.Keys(names)) {
			called = append(called, fmt.Sprintf("%s=%v", realm, names[realm]))
		}
		if u.Document["launch"] != false {
			use = append(use, "launch")
		}
		if u.Document["retrieve"] == true {
			use = append(use, "retrieve")
		}
		password := "missing"
		switch {
		case text("kind") == "none":
			password = "none"
		case u.Document["source"] != nil:
			password = "at its source"
		case u.HasPassword:
			password = "here"
		}
		p.row(u.Scope, u.Name, account, cmp.Or(strings.Join(called, ", "), "by its name"), orNone(use), password, fmt.Sprint(u.Version))
	}
	return p.String()
}

func (a *app) passwordCommand(f *adminFlags) *cobra.Command {
	var s scopeFlags
	var secret secretFlags
	var show bool
	cmd := &cobra.Command{
		Use:   "password NAME {--machine M|--group G|--platform P} {--stdin|--generate[=LENGTH]}",
		Short: "Change the password of a batch user, and nothing else",
		Long: `Change the password of a batch user in Vault, and nothing else: machines have it within their sync.interval. A
password that is made is not printed, unless --show is given: nobody but the machines needs it. The account itself is
not touched.`,
		Args: cobra.ExactArgs(1),
		RunE: a.administer(f, func(ctx context.Context, v *admin.Admin, _ *cobra.Command, args []string) error {
			scope, err := s.must()
			if err != nil {
				return err
			}
			text, err := secret.read(a.in)
			if err != nil {
				return err
			}
			defer clear(text)
			switch {
			case text == nil:
				return usage("say where the password comes from: --stdin or --generate")
			case show && secret.generate == "":
				return usage("--show is for a password that is made")
			}
			steps, err := v.SetPassword(ctx, scope, args[0], text)
			if err != nil || !show || v.DryRun() {
				return a.finish(v, steps, err)
			}
			d := a.doneOf(v, steps)
			return a.show(struct {
				done
				Password string `json:"password"`
			}{d, string(text)}, d.text()+string(text)+"\n")
		}),
	}
	s.flags(cmd)
	secret.flags(cmd, "stdin")
	cmd.Flags().BoolVar(&show, "show", false, "print the password that was made")
	return cmd
}
