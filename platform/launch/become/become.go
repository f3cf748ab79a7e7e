// Package become is the child that a job's process begins as: started by the launcher with the launcher's rights, it
// gives them up for good, proves that, and turns into the job's command by exec.
//
// It is the launcher's own binary, executed again under the name Argv0. The order of what it does is fixed; each step
// has a name, and the first that fails is reported with its errno:
//
//	orders       read from descriptor OrdersFD to its end
//	descriptors  all but 0, 1 and 2 are closed by the exec
//	session      it leads a session of its own
//	signals      no signal is blocked or ignored
//	umask
//	limits       the soft limit of open files is the launcher's own again, which the Go runtime had raised
//	account      looked up again: what the launcher's decision was about must still be so
//	groups, gid, uid   exactly those of the order, for all threads
//	proof        ids and groups are these and no others, no capability is left, and there is no way back
//	stdio        passed descriptors are taken out of their socket: no process with more rights has them open
//	chdir        as the user
//	command      found and opened as the user; see open
//	exec         by that descriptor
//
// Before the exec it says so; success shows as the end of AnswerFD after that, with no failed step in between: the
// descriptor was closed by the exec.
package become

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"syscall"

	"batchwarden/platform/account"
)

// Argv0 is the name that makes the launcher's binary a child of this kind.
const Argv0 = "batchwarden-become"

// The descriptors of such a child beside 0, 1 and 2, which are the job's.
const (
	OrdersFD = 3
	AnswerFD = 4
	PassedFD = 5 // of an Order with Passed
)

// MaxOrder bounds an encoded Order.
const MaxOrder = 8 << 20

// maxAnswer bounds everything that a child says.
const maxAnswer = 16 << 10

// Order is everything that the child needs to know.
type Order struct {
	Account account.Account `json:"account"` // what the launcher's decision was about
	GID     uint32          `json:"gid"`     // the job's primary group, one of the account's
	Argv    []string        `json:"argv"`
	Env     []string        `json:"env"` // all of it
	Dir     string          `json:"dir"`
	Umask   uint32          `json:"umask"`
	Pin     *Pin            `json:"pin,omitempty"` // the command must be this file
	// Passed: 0, 1 and 2 are to be the three descriptors that lie in the socket PassedFD.
	Passed bool `json:"passed,omitempty"`
}

// Pin names one state of one file.
type Pin struct {
	Dev, Ino     uint64
	Size         int64
	CTime, CNsec int64
}

// Steps that callers tell apart.
const (
	StepAccount = "account"
	StepChdir   = "chdir"
	StepCommand = "command"
	StepExec    = "exec"
)

// Report is what the child says. With a Step it is the failure of that step and the child ends; without, it
// announces the exec.
type Report struct {
	Step   string        `json:"step,omitempty"`
	Errno  syscall.Errno `json:"errno,omitempty"`
	Reason string        `json:"reason,omitempty"`
	ByPath bool          `json:"by_path,omitempty"` // the command is executed by its path, after comparing device and inode
}

// ErrEnded reports that the child ended before its exec without saying why.
var ErrEnded = errors.New("become: the child ended before the exec")

// Failed reports whether a step failed.
func (r Report) Failed() bool { return r.Step != "" }

func (r Report) Error() string { return fmt.Sprintf("become: %s: %s", r.Step, r.Reason) }

// Wanted reports whether a process with these arguments is to be the child: then main calls Main and nothing else.
func Wanted(args []string) bool { return len(args) > 0 && args[0] == Argv0 }

// Main is the child. It does not return.
func Main() { run() }

// ReadAnswer waits for the child's exec or failure. The error is that of reading, or of an answer that cannot be
// understood; a failed step is a Report.
func ReadAnswer(r io.Reader) (Report, error) {
	var last Report
	announced := false
	dec := json.NewDecoder(io.LimitReader(r, maxAnswer))
	for {
		var next Report
		switch err := dec.Decode(&next); {
		case errors.Is(err, io.EOF) && announced:
			return last, nil
		case errors.Is(err, io.EOF):
			return Report{}, ErrEnded
		case err != nil:
			return Report{}, fmt.Errorf("become: answer: %w", err)
		}
		if last = next; last.Failed() {
			return last, nil
		}
		announced = true
	}
}
