// Package pam asks PAM about accounts and keeps the sessions of jobs, by batchwarden-pam, a program of ours in C
// (helper/): our other programs have no C library.
//
// A session is a process of its own for as long as the job lasts, and the job is not its child. What the session's
// modules set for the process that opens it is reported, for the job to have: environment, umask, nice value and
// limits. What cannot be told is not carried over: keyrings, the audit session, groups (pam_group; a job has the
// account's own, exactly). A module that makes a mount namespace is refused, as the job would not be in it.
package pam

import (
	"context"
	"fmt"
	"os"
	"time"
)

// Timeout is how long PAM may take for one step: to open a session or to end one, or to check a password.
const Timeout = 30 * time.Second

// Program is the path of batchwarden-pam. The zero value finds no program.
type Program string

// Question is who wants what.
type Question struct {
	Service string // the name of a file in /etc/pam.d
	User    string
	By      string // PAM_RUSER: the user who asks; may be empty
}

// Why says what it is about an account that PAM refuses it for.
type Why string

const (
	Missing Why = "missing" // PAM knows no such account
	Expired Why = "expired" // it, or its password
	Locked  Why = "locked"  // its password has a lock, or too many attempts failed
	Denied  Why = "denied"  // anything else: nologin, the time of day, the wrong password, limits on sessions
)

// Refused is PAM's no. Every other error of this package means that PAM could not say.
type Refused struct {
	Why  Why
	Text string // PAM's own words and those of its modules, for people
}

func (r *Refused) Error() string { return fmt.Sprintf("pam: %s: %s", r.Why, r.Text) }

// Limit is one that a session's modules have set. A number is the kernel's own, as for setrlimit.
type Limit struct {
	Resource   int
	Soft, Hard uint64
}

// Session is open until Close, or until the process given to Hold has ended and this program has, too.
type Session struct {
	Env    []string // NAME=VALUE, in PAM's order
	Umask  *uint32  // nil: not set
	Nice   *int     // nil: not set
	Limits []Limit  // those that were set

	s *session
}

// Open asks whether the user may have a session now, and opens it. The error is a *Refused when PAM says no.
func (p Program) Open(ctx context.Context, q Question) (*Session, error) {
	return open(ctx, string(p), q)
}

// Hold makes the session last as long as the process that the pidfd names, should this program end before it. The
// pidfd remains the caller's.
func (s *Session) Hold(pidfd *os.File) error { return s.s.hold(pidfd) }

// Close ends the session and waits for that. An error says what its modules could not undo; the session is over.
func (s *Session) Close() error { return s.s.close() }

// Outcome is what came of a Verify.
type Outcome int

const (
	Unsure  Outcome = iota // PAM may have tried the password, and did not say
	Untried                // nobody did, and no attempt is counted anywhere
	Wrong                  // PAM tried it, and it is not the account's
	Right                  // PAM tried it, and it is
)

// Verify has PAM try a password, which is what can be read from the file, to its end and without a line feed after it. It
// is never in this program's memory. The error says why the outcome is not Right; a *Refused where the account is the
// reason why nobody tried: one that is missing, locked or expired, or with which failed attempts are counted already
// (pam_faillock), is told before PAM is asked and before the password is read. Every other attempt counts with modules
// that count them: do not repeat one. The file remains the caller's.
func (p Program) Verify(ctx context.Context, q Question, password *os.File) (Outcome, error) {
	return verify(ctx, string(p), q, password)
}
