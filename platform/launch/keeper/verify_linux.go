package keeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"batchwarden/platform/account"
	"batchwarden/platform/launch"
	"batchwarden/platform/pam"
)

var outcomes = map[pam.Outcome]string{
	pam.Right: launch.VerifyRight, pam.Wrong: launch.VerifyWrong, pam.Untried: launch.VerifyUntried, pam.Unsure: launch.VerifyUnsure,
}

// verify has PAM try a password on an account that a job could have, one at a time: a daemon that was taken over must not
// find out root's by trying, nor any other's quickly. We hand the pipe on and do not read it.
func (k *keeper) verify(ctx context.Context, v *launch.Verify, password *os.File) (*launch.Verified, error) {
	if v == nil || v.Account == "" || len(v.Account) > maxName || strings.ContainsFunc(v.Account, control7) || len(v.By) > maxName {
		return nil, &launch.Refused{Code: launch.CodeInvalid, Reason: "there is no account to verify a password of"}
	}
	if err := isPipe(password); err != nil {
		return nil, &launch.Refused{Code: launch.CodeInvalid, Reason: "a password comes in a pipe: " + err.Error()}
	}
	if !k.root {
		return nil, &launch.Refused{Code: launch.CodeRefused, Reason: notRoot}
	}
	a, err := k.Accounts.Fresh(v.Account)
	switch {
	case errors.Is(err, account.ErrMissing):
		return nil, &launch.Refused{Code: launch.CodeMissing, Reason: fmt.Sprintf("account %q does not exist on this machine", v.Account)}
	case err != nil:
		return nil, &launch.Refused{Code: launch.CodeFailed, Reason: "the accounts of this machine cannot be asked: " + err.Error()}
	}
	if k.Target == nil {
		err = errors.New("this launcher has no limits")
	} else {
		err = k.Target(a)
	}
	if err != nil {
		return nil, &launch.Refused{Code: launch.CodeRefused, Reason: err.Error()}
	}
	if !k.verifying.CompareAndSwap(false, true) {
		return nil, &launch.Refused{Code: launch.CodeOverloaded, Reason: "another password is being verified"}
	}
	defer k.verifying.Store(false)
	outcome, err := k.PAM.Verify(ctx, pam.Question{Service: v.Service, User: a.Name, By: v.By}, password)
	verified := &launch.Verified{Outcome: outcomes[outcome]}
	if err != nil {
		verified.Code, verified.Reason = launch.CodeFailed, err.Error()
	}
	if refused, ok := errors.AsType[*pam.Refused](err); ok {
		verified.Code = refusals[refused.Why]
	}
	if outcome == pam.Wrong {
		verified.Code = launch.CodeLogon
	}
	k.Log.Info("a password was verified", "account", a.Name, "service", v.Service, "outcome", cmp.Or(verified.Outcome, "none"), "err", err)
	return verified, nil
}
