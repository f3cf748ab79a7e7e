package launch

import (
	"context"
	"errors"
	"os"
)

// Verify names the account that a password is held against, and the PAM service that does it.
type Verify struct {
	Account string `json:"account"`
	Service string `json:"service"` // the name of a file in /etc/pam.d
	By      string `json:"by,omitempty"`
}

// Outcomes of a Verify.
const (
	VerifyRight   = "right"
	VerifyWrong   = "wrong"
	VerifyUntried = "untried" // nobody tried it, and no attempt is counted anywhere
	VerifyUnsure  = "unsure"  // PAM may have tried it, and did not say
)

// Verified is what came of a Verify. Code and Reason say why the outcome is not VerifyRight.
type Verified struct {
	Outcome string `json:"outcome"`
	Code    string `json:"code,omitempty"`
	Reason  string `json:"reason,omitempty"`
}

// Verify has PAM try the password that can be read from a pipe, to its end, on an account that the host owner's limits
// allow as a job's. Only PAM's own process reads the pipe. With a *Refused of another code than CodeUnavailable, nothing
// was tried; with any other error it may have been. The file stays the caller's.
func (l *Launcher) Verify(ctx context.Context, v Verify, password *os.File) (Verified, error) {
	a, err := l.ask(ctx, Request{Call: CallVerify, Verify: &v}, password)
	if err == nil && a.Verified == nil {
		err = errors.New("launch: the launcher did not say what came of a password")
	}
	if err != nil {
		return Verified{}, err
	}
	return *a.Verified, nil
}
