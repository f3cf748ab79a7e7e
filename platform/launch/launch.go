// Package launch is the daemon's end of the private socket to the launcher, which alone starts processes.
package launch

import (
	"encoding/json"
	"fmt"
	"time"
)

// Codes of refusals and of failed jobs, as the contract names them.
const (
	CodeInvalid     = "request.invalid"
	CodeRefused     = "limits.refused"
	CodeMissing     = "account.missing"
	CodeChanged     = "account.changed"
	CodeLocked      = "account.locked"
	CodeExpired     = "account.expired"
	CodeLogon       = "logon.failed"
	CodeConflict    = "id.conflict"
	CodeUnknown     = "job.unknown"
	CodeRunning     = "job.running"
	CodeOverloaded  = "overloaded"
	CodeUnavailable = "launcher.unavailable"
	CodeCaller      = "caller.forbidden" // the passed connection is not a requester's
	CodeFailed      = "launch.failed"
	CodeChdir       = "chdir.failed"
	CodeNotFound    = "exec.not_found"
	CodeForbidden   = "exec.forbidden"
	CodeTimeout     = "job.timeout"
	CodeCanceled    = "job.canceled"
	CodeRebooted    = "job.host_rebooted"
	CodeInternal    = "internal"
	CodeUnsupported = "unsupported" // the launcher is of another version, which does not know how
)

// States of a job.
const (
	StateStarting = "starting"
	StateRunning  = "running"
	StateExited   = "exited" // it ran and ended: ExitCode or Signal is set
	StateFailed   = "failed" // Code says why; one that ran and was stopped at its timeout, or canceled, has ExitCode or Signal too
	StateLost     = "lost"   // nobody saw its end, or whether it began
)

// Streams of a job's output.
const (
	Stdout = "stdout"
	Stderr = "stderr"
)

// Values of Spec.Stdio.
const (
	StdioCapture = "capture"
	StdioNull    = "null"
	StdioPassed  = "passed" // descriptors that come with the request
)

// Spec says what to start. The launcher checks all of it again.
type Spec struct {
	Owner string `json:"owner"` // whose namespace ID belongs to
	ID    string `json:"id"`
	Hash  string `json:"hash"` // of the request: the same ID with another hash is a conflict

	Account string            `json:"account"`
	Group   string            `json:"group,omitempty"` // primary group, one the account has; empty: the account's own
	Dir     string            `json:"dir,omitempty"`   // empty: the account's home
	Env     map[string]string `json:"env,omitempty"`   // added to HOME USER LOGNAME SHELL PATH
	Umask   *uint32           `json:"umask,omitempty"`
	Nice    int               `json:"nice,omitempty"`   // -20 to 19; 0: the launcher's
	Limits  map[string]uint64 `json:"limits,omitempty"` // of resources, soft and hard, by the names of setrlimit(2): "nofile"
	PAM     string            `json:"pam,omitempty"`    // the service that is asked and has a session open while the job runs; empty: none

	// What runs: exactly one of Argv, CommandLine and Script.
	Argv        []string `json:"argv,omitempty"`
	CommandLine string   `json:"command_line,omitempty"` // for the account's shell
	Script      *Script  `json:"script,omitempty"`
	Login       bool     `json:"login,omitempty"` // through the account's shell as a login shell, which reads the profiles
	Stdin       []byte   `json:"stdin,omitempty"` // what the job reads, at most MaxText octets; not with StdioPassed

	Stdio      string        `json:"stdio"`                 // StdioCapture, StdioNull or StdioPassed
	CaptureMax int64         `json:"capture_max,omitempty"` // octets kept of each stream; 0 or more than the launcher's: its own
	Timeout    time.Duration `json:"timeout,omitempty"`     // from the start; 0: none
	Grace      time.Duration `json:"grace,omitempty"`       // between TERM and KILL; 0: the launcher's
	Keep       time.Duration `json:"keep,omitempty"`        // after the end; 0: the launcher's

	// Started is the start of the requester's process, from Attest: another process is refused. 0: not compared.
	Started uint64 `json:"started,omitempty"`

	Note json.RawMessage `json:"note,omitempty"` // the daemon's own, at most MaxNote octets: journalled and given back
}

// Script is a text that becomes a file, which only the job's user can read and which is there as long as the job is.
type Script struct {
	Text        []byte   `json:"text"`                  // at most MaxText octets
	Interpreter []string `json:"interpreter,omitempty"` // empty: what #! in the first line says, else the account's shell
	Args        []string `json:"args,omitempty"`        // after the file's name
}

// MaxText bounds Script.Text and Spec.Stdin.
const MaxText = 1 << 20

// Cancel, in the place of a signal's name, is TERM, and KILL for those that are left after the grace; the job then ends as
// failed, with CodeCanceled.
const Cancel = "CANCEL"

// MaxGrace is the longest that a job may take to end after a Signal with a grace.
const MaxGrace = time.Hour

// MaxNote bounds Spec.Note.
const MaxNote = 128 << 10

// Job is what the launcher knows about one launch.
type Job struct {
	Owner      string    `json:"owner"`
	ID         string    `json:"id"`
	Serial     uint64    `json:"serial"`
	Hash       string    `json:"hash"`
	State      string    `json:"state"`
	PID        int       `json:"pid,omitempty"`
	User       string    `json:"user"`
	ExitCode   *int      `json:"exit_code,omitempty"`
	Signal     string    `json:"signal,omitempty"` // "KILL"
	CoreDumped bool      `json:"core_dumped,omitempty"`
	Started    time.Time `json:"started,omitzero"`
	Ended      time.Time `json:"ended,omitzero"`
	// The same two by the clock that nobody sets: the time since the machine was started, time asleep included.
	StartedBoot time.Duration `json:"started_boot,omitempty"`
	EndedBoot   time.Duration `json:"ended_boot,omitempty"`
	// Of the first process and those that it waited for; of a job that outlived its launcher, of all its processes.
	CPUSeconds float64 `json:"cpu_seconds,omitempty"`
	// Octets; that of the launcher's own child before exec is the least. 0: not known, as of a job that outlived its launcher.
	MaxRSS    int64           `json:"max_rss,omitempty"`
	Survivors int             `json:"survivors,omitempty"` // processes that its first one left behind, and that were ended
	Captured  bool            `json:"captured,omitempty"`  // Output has something to read
	ByPath    bool            `json:"by_path,omitempty"`   // a script: executed by its path after comparing device and inode
	Code      string          `json:"code,omitempty"`
	Reason    string          `json:"reason,omitempty"`
	Note      json.RawMessage `json:"note,omitempty"`
	EndSeq    uint64          `json:"end_seq,omitempty"` // ascending in the order of ends; 0 while it runs
}

// Over reports whether nothing about the job will change any more.
func (j Job) Over() bool { return j.EndSeq != 0 }

// Refused is the error of a request that the launcher would not carry out. Nothing was started and no ID is taken.
type Refused struct {
	Code   string `json:"code"`
	Reason string `json:"reason"`
}

func (r *Refused) Error() string { return fmt.Sprintf("launch: %s: %s", r.Code, r.Reason) }

// Status is the state of the connection to the launcher and what the launcher last said about itself.
type Status struct {
	Connected   bool
	Since       time.Time // of Connected, either way
	Version     string
	Detail      string // why it is not connected
	JobsRunning int
	JobsKept    int      // that have ended
	Containment string   // how jobs are kept together: "cgroup /sys/fs/cgroup/…" or "session, subreaper: …" with the reason
	Problems    []string // of limits.yaml, and of the launcher itself
}

// SyncFailed is the error of a sync worker that did not end with 0.
type SyncFailed struct {
	ExitCode int    // -1 when a signal ended it
	Reason   string // for people
}

func (e *SyncFailed) Error() string { return "launch: the sync worker " + e.Reason }
