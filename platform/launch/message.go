package launch

import (
	"time"

	"batchwarden/platform/peer"
)

// The private protocol. Either side sends frames of at most MaxFrame octets of JSON with at most MaxFiles
// descriptors. The launcher's first frame is a Hello with the public listening socket as its descriptor, or one with
// Refused set, after which it closes; the daemon's first frame is a Hello too. Then the daemon sends Requests, each
// with its own number, and the launcher answers each once, in any order. A frame that cannot be understood ends the
// session, and so does a number that is still in use.
//
// Daemon and launcher of different versions work together as long as Protocol is the same, and it stays the same as
// long as things are only added: members, which the other side passes over, and calls, which a launcher that does not
// know them answers with CodeUnsupported. What is no use unless the launcher understands it has a name in Hello.Can.
const (
	Protocol = 1
	MaxFrame = 8 << 20
	MaxFiles = 4
	// MaxOpen is how many requests may be unanswered at one time.
	MaxOpen = 8192
	// MaxWait is the longest that the launcher lets a request wait for something to happen.
	MaxWait = 60 * time.Second
)

// Hello begins a session.
type Hello struct {
	Protocol int      `json:"protocol"`
	Version  string   `json:"version,omitempty"`
	Can      []string `json:"can,omitempty"` // of the launcher: Abilities, as far as it knows them
	Refused  *Refused `json:"refused,omitempty"`
}

// What was added to the protocol after its first version, and is not asked of a launcher that does not say that it
// can.
const (
	canVerify   = CallVerify
	canLogLevel = CallLogLevel
	canCheckAs  = "check as" // Request.As; without it a check would be about somebody else
)

// Abilities are those of a launcher of this version.
func Abilities() []string { return []string{canVerify, canLogLevel, canCheckAs} }

// needs is what a launcher has to be able to for a request; "" for what all of them can.
func (r *Request) needs() string {
	switch {
	case r.Call == CallVerify, r.Call == CallLogLevel:
		return r.Call
	case r.Call == CallCheck && r.As != nil:
		return canCheckAs
	}
	return ""
}

// Calls of a Request.
const (
	// Spec; descriptors: the requester's connection and, for StdioPassed, a socket that stdin, stdout and stderr lie
	// in (localsock.Pack) -> Job, Again
	CallStart  = "start"
	CallJob    = "job"    // Owner, ID, Wait -> Job
	CallJobs   = "jobs"   // Owner, After (serial) -> Jobs, More
	CallEnded  = "ended"  // After (EndSeq), Wait -> Jobs
	CallOutput = "output" // Owner, ID, Stream -> a descriptor
	CallSignal = "signal" // Owner, ID, Signal, Wait (grace) -> Job
	CallSync   = "sync"   // descriptors: the worker's stdin and stdout -> Exit
	CallStatus = "status" // -> State
	// Witness, Settle -> Witness: the highest so far
	CallWitness = "witness"
	// Want; descriptor: the connection -> Peer
	CallAttest = "attest"
	// Owner, ID, After (serial): an ended job is removed
	CallForget = "forget"
	// Spec, As; descriptor: the requester's connection -> Checks
	CallCheck = "check"
	// -> a descriptor: the listening socket that systemd connects to for credentials
	CallSystemd = "systemd"
	// Names -> Numbers
	CallResolve = "resolve"
	// Verify; descriptor: the pipe that the password is in -> Verified
	CallVerify = "verify"
	// Level, "" to ask -> Level: of the launcher's log
	CallLogLevel = "log_level"
	CallCancel   = "cancel" // Number: the request that nobody waits for any more; not answered itself
)

// Request is one frame of the daemon.
type Request struct {
	Number uint64        `json:"n"`
	Call   string        `json:"call"`
	Spec   *Spec         `json:"spec,omitempty"`
	Owner  string        `json:"owner,omitempty"`
	ID     string        `json:"id,omitempty"`
	Stream string        `json:"stream,omitempty"`
	Signal string        `json:"signal,omitempty"`
	After  uint64        `json:"after,omitempty"`
	Wait   time.Duration `json:"wait,omitempty"`

	Witness uint64 `json:"witness,omitempty"`
	Settle  bool   `json:"settle,omitempty"`

	Want *peer.Want `json:"want,omitempty"`

	As *uint32 `json:"as,omitempty"` // the uid of a requester who is not there; nothing is started for one

	Names *Names `json:"names,omitempty"`

	Verify *Verify `json:"verify,omitempty"`

	Level string `json:"level,omitempty"`
}

// Answer is one frame of the launcher.
type Answer struct {
	Number  uint64    `json:"n"`
	Refused *Refused  `json:"refused,omitempty"`
	Job     *Job      `json:"job,omitempty"`
	Again   bool      `json:"again,omitempty"`
	Jobs    []Job     `json:"jobs,omitempty"`
	More    bool      `json:"more,omitempty"`
	Exit    *SyncExit `json:"exit,omitempty"`
	State   *State    `json:"state,omitempty"`
	Witness uint64    `json:"witness,omitempty"`

	Peer *peer.Attested `json:"peer,omitempty"`

	Checks []Check `json:"checks,omitempty"`

	Numbers *Numbers `json:"numbers,omitempty"`

	Verified *Verified `json:"verified,omitempty"`

	Level string `json:"level,omitempty"`
}

// SyncExit is how a sync worker ended; ExitCode -1 when a signal did it.
type SyncExit struct {
	ExitCode int    `json:"exit_code"`
	Reason   string `json:"reason,omitempty"`
}

// State is what the launcher says about itself.
type State struct {
	Running     int      `json:"running"`
	Kept        int      `json:"kept"`
	Containment string   `json:"containment"`
	Problems    []string `json:"problems,omitempty"`
}
