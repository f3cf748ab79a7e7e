package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"batchwarden/daemon/audit"
	"batchwarden/ipc/wire"
	"batchwarden/platform/launch"
	"batchwarden/platform/lockmem"
	"batchwarden/platform/peer"
	"batchwarden/vault/snapshot"
)

// loginService is the PAM service that passwords are tried with where the batch
// user names none: every system has it, it asks for the password, and it does
// not trust root, as that of su does.
const loginService = "login"

// verifyTime bounds PAM; an attempt that began is not given up because the
// operator has gone.
const verifyTime = 45 * time.Second

// Verify tries the password of a batch user on the account of this host, for
// operators. A version is tried once, and none with an account that is missing,
// locked or expired: it never is us who lock an account out. A version that is
// found wrong is treated as one that somebody reported as rejected.
func (b *Broker) Verify(ctx context.Context, p *peer.Connection, name string) (wire.Verified, error) {
	c := b.identify(ctx, p)
	record := b.record(audit.TryPassword, &c, "", wire.Subject{}, name)
	record.Operator, record.Subject = c.operator, nil
	if refusal := c.isOperator(); refusal != nil {
		return wire.Verified{}, b.refuse(record, refusal)
	}
	u := c.view.own(name)
	if u == nil {
		return wire.Verified{}, b.refuse(record, wire.NewProblem(wire.BatchUserUnknown, fmt.Sprintf("batch user %q is not known on this machine", name)))
	}
	record.Username, record.CredentialVersion = u.BatchUser.Username, u.SecretVersion()
	answer := wire.Verified{Outcome: wire.NotChecked, Version: u.SecretVersion(), Username: u.BatchUser.Username}
	if refusal := b.untriable(c.view, u); refusal != nil {
		_ = b.refuse(record, refusal) // it is no error to ask
		answer.Code, answer.Reason = refusal.Code, refusal.Detail
		return answer, nil
	}
	if l := b.Launcher.Status(); !l.Connected {
		return wire.Verified{}, b.refuse(record, wire.NewProblem(wire.LauncherUnavailable, l.Detail))
	}
	record.Verdict = audit.Allow
	if err := b.Audit.Append(record); err != nil {
		b.Log.Error("verify refused: its audit record cannot be written", "err", err)
		return wire.Verified{}, wire.NewProblem(wire.AuditUnavailable, "it could not be written down, so no password was tried")
	}
	err := b.verify(ctx, &c, u, &answer)
	ended := &audit.Record{
		Kind: audit.Tried, DecisionID: record.DecisionID, Verdict: audit.Allow, Code: answer.Outcome, Reason: brief(answer.Reason),
		BatchUser: u.Name, Username: u.BatchUser.Username, CredentialVersion: answer.Version,
	}
	if err != nil {
		ended.Reason = brief(err.Error())
	}
	b.note(ended)
	return answer, err
}

// untriable says why a password is not tried whatever the account is like.
func (b *Broker) untriable(v *view, u *snapshot.User) *wire.Problem {
	switch {
	case u.Ambiguous:
		return wire.NewProblem(wire.BatchUserAmbiguous, u.Fault)
	case u.BatchUser.Kind == "none":
		return wire.NewProblem(wire.CredentialMissing, fmt.Sprintf("batch user %q has no password (kind none), so there is nothing to check", u.Name))
	case !slices.Contains(v.config.Platforms, u.BatchUser.Platform):
		return wire.NewProblem(wire.BatchUserNotAllowed, fmt.Sprintf("batch user %q is for platform %q, which this machine is not", u.Name, u.BatchUser.Platform))
	case len(u.Box) == 0:
		return wire.NewProblem(wire.CredentialMissing, fmt.Sprintf("no password of batch user %q has reached this machine", u.Name))
	case !u.Rejected.IsZero():
		return wire.NewProblem(wire.CredentialRejected, rejected(u))
	}
	return b.usable(v, u) // an old one may be wrong for no other reason
}

// verify makes the attempt, unless it was made before, and says what came of it.
func (b *Broker) verify(ctx context.Context, c *caller, u *snapshot.User, answer *wire.Verified) error {
	version := u.SecretVersion()
	attempt, first, err := b.Syncer.Begin(ctx, u.ID, version)
	if err != nil {
		return err
	}
	answer.Checked = attempt.At.UTC()
	if !first {
		answer.Outcome = cmp.Or(attempt.Outcome, wire.NotChecked)
		answer.Reason = fmt.Sprintf("version %d was tried before, at %s, and is not tried again: attempts are counted, and too many lock an account",
			version, answer.Checked.Format(time.RFC3339))
		if answer.Outcome == wire.NotChecked {
			answer.Code, answer.Reason = wire.VerifyUnknown, answer.Reason+"; what came of it is not known"
		}
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), verifyTime)
	defer cancel()
	tried := b.tryPassword(ctx, c, u)
	answer.Code, answer.Reason = tried.Code, tried.Reason
	conclude := func(outcome string) {
		if err := b.Syncer.Conclude(ctx, u.ID, version, outcome); err != nil {
			b.Log.Error("what came of a verify is not kept; it counts as made", "batch_user", u.Name, "err", err)
		}
	}
	switch tried.Outcome {
	case launch.VerifyRight:
		answer.Outcome = wire.Accepted
		conclude(wire.Accepted)
	case launch.VerifyWrong:
		answer.Outcome, answer.Code = wire.Rejected, wire.CredentialRejected
		conclude(wire.Rejected)
		if now, known, err := b.Syncer.Report(ctx, u.ID, version, false); err != nil || !known {
			b.Log.Error("a rejected password is not looked for in Vault", "batch_user", u.Name, "err", err)
		} else if now.Newer {
			answer.Reason += fmt.Sprintf("; Vault has version %d, which is in force now and can be verified", now.Version)
		}
	case launch.VerifyUntried:
		answer.Checked = time.Time{}
		conclude("")
	default:
		answer.Code = wire.VerifyUnknown
		answer.Reason = "PAM may have tried the password, and what came of it is not known: " + answer.Reason
	}
	return nil
}

// tryPassword writes the password from locked memory into a pipe that PAM's own
// process reads, and nobody else.
func (b *Broker) tryPassword(ctx context.Context, c *caller, u *snapshot.User) launch.Verified {
	untried := func(err error) launch.Verified {
		b.Log.Error("password not verified", "batch_user", u.Name, "err", err)
		return launch.Verified{Outcome: launch.VerifyUntried, Code: wire.CredentialMissing, Reason: "the password cannot be opened; status says more"}
	}
	read, write, err := os.Pipe()
	if err != nil {
		return untried(err)
	}
	defer read.Close() // the launcher has its own
	err = b.Arena.Borrow(ctx, func(slot *lockmem.Buffer) error {
		if err := b.Secrets.OpenSecret(u.Held, slot); err != nil {
			return err
		}
		_, err := write.Write(slot.Bytes()) // a pipe takes that much at once
		return err
	})
	if err := errors.Join(err, write.Close()); err != nil {
		return untried(err)
	}
	v, err := b.Launcher.Verify(ctx, launch.Verify{Account: u.BatchUser.Username, Service: cmp.Or(u.BatchUser.PAM, loginService), By: c.user}, read)
	refused, no := errors.AsType[*launch.Refused](err)
	switch {
	case no && refused.Code != launch.CodeUnavailable:
		return launch.Verified{Outcome: launch.VerifyUntried, Code: refused.Code, Reason: refused.Reason}
	case err != nil:
		return launch.Verified{Outcome: launch.VerifyUnsure, Reason: err.Error()}
	}
	return v
}
