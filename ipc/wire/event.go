package wire

import (
	"fmt"
	"time"
)

// Types of events. More may come: pass over those that you do not know.
const (
	JobStarted       = "job.started"
	JobEnded         = "job.ended" // also of one that was granted and could not be started
	BatchUserChanged = "batch_user.changed"
	PolicyActivated  = "policy.activated"
	PolicyRefused    = "policy.refused"
	StateChanged     = "state.changed"
	ConfigChanged    = "config.changed" // for operators, like the next
	ConfigRefused    = "config.refused"
	EventSuspended   = "machine.suspended"
	EventResumed     = "machine.resumed"
)

// Event is something that happened. Only what its type needs is there.
type Event struct {
	Seq       uint64    `json:"seq"`
	Time      time.Time `json:"time"`
	Type      string    `json:"type"`
	Job       *Job      `json:"job,omitempty"`
	BatchUser string    `json:"batch_user,omitempty"`
	Removed   bool      `json:"removed,omitempty"` // the batch user is not here any more
	Realm     string    `json:"realm,omitempty"`
	Version   int64     `json:"version,omitempty"` // of the batch user or policy
	State     string    `json:"state,omitempty"`
	Detail    string    `json:"detail,omitempty"`
}

// Events is the answer of GET /v1/events: what came after the number that was
// asked for, and the number to ask for next.
type Events struct {
	Events []Event `json:"events"`
	Next   uint64  `json:"next"`
}

// Suspend is the body of POST /v1/suspend, which may be absent.
type Suspend struct {
	Reason string `json:"reason,omitempty"` // for people, at most MaxReason octets on one line
}

// MaxReason bounds Suspend.Reason.
const MaxReason = 256

// Suspension is the answer of POST /v1/suspend and POST /v1/resume.
type Suspension struct {
	Suspended bool      `json:"suspended"`
	Since     time.Time `json:"since,omitzero"`
	By        string    `json:"by,omitempty"`
	Reason    string    `json:"reason,omitempty"`
}

// Words say of a machine that is suspended since when and by whom.
func (s *Suspension) Words() string {
	text := "launching is suspended on this machine"
	if !s.Since.IsZero() {
		text += " since " + s.Since.UTC().Format(time.RFC3339)
	}
	if s.By != "" {
		text += fmt.Sprintf(" by %s", s.By)
	}
	if s.Reason != "" {
		text += ": " + s.Reason
	}
	return text
}
