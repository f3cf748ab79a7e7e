package main

import (
	"cmp"
	"context"
	"time"

	"github.com/spf13/cobra"

	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
)

func (a *app) verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify NAME",
		Short: "Try a batch user's password on the account of this host, once per version; exit code 0 when it is right",
		Long: `Have PAM try the stored password of a batch user on the account of this host, with the PAM service that the batch user
names, or else that of login. For operators.

Each version of a password is tried once, also over restarts; asked again, the answer is that of the first time. It is not
tried with an account that is missing, locked, expired or without a password, or that has failed attempts counted against
it, nor while callers have reported the version as rejected: this command never is what locks an account.

A version that is found wrong is looked for in Vault once more, and is then not handed out until there is a newer one,
somebody reports it as accepted, or an operator syncs. Jobs start all the same: they need no password.`,
		Args: cobra.ExactArgs(1),
		RunE: a.ask(func(ctx context.Context, c *client.Client, args []string) error {
			done := a.working("Asking PAM", nil)
			v, err := c.Verify(ctx, args[0])
			done()
			if err != nil {
				return err
			}
			return a.answer(v, verifiedText(args[0], v), v.Outcome == wire.Accepted)
		}),
	}
}

func verifiedText(name string, v *wire.Verified) string {
	var p page
	switch v.Outcome {
	case wire.Accepted:
		p.line("Accepted: version %d of %s is the password of account %s on this host.", v.Version, name, v.Username)
	case wire.Rejected:
		p.line("Rejected: version %d of %s is not the password of account %s on this host.", v.Version, name, v.Username)
	default:
		p.line("Not checked: version %d of %s on account %s (%s).", v.Version, name, v.Username, cmp.Or(v.Code, "no reason is known"))
	}
	if v.Reason != "" {
		p.line("%s.", v.Reason)
	}
	if !v.Checked.IsZero() {
		p.line("Tried at %s.", v.Checked.Format(time.RFC3339))
	}
	if next := nextAfterVerify(v); next != "" {
		p.line("%s", next)
	}
	return p.String()
}

// nextAfterVerify is what to do about a password that is not accepted.
func nextAfterVerify(v *wire.Verified) string {
	switch {
	case v.Outcome == wire.Accepted:
		return ""
	case v.Outcome == wire.Rejected:
		return "Put the right password into Vault, then batchwarden sync; the new version can be verified."
	}
	switch v.Code {
	case wire.VerifyUnknown:
		return "Try it by hand, or put the password into Vault again: a new version can be verified."
	case "logon.failed":
		return "PAM did not come to the password: mend what it says, then verify again."
	case "launch.failed":
		return "Mend that, or let the batch user name another PAM service (pam in its document), then verify again."
	case wire.CredentialMissing:
		return "batchwarden batch-users shows its kind and state."
	}
	return nextByCode[v.Code]
}
