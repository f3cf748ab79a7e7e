// Package policy says what a request for authorization, a decision about it
// and an engine that decides are. It holds no rules: those are in automic,
// stonebranch and opcon, one package for each controller's model.
//
// Everything here is a pure function of its arguments: no files, no network,
// no clock, no randomness, nothing that changes behind an engine's back.
package policy

import (
	"encoding/json"
	"errors"
	"slices"
)

const (
	// Denied is the code of a denial.
	Denied = "policy.denied"
	// Invalid is the code of a request that is none: a member that the
	// action does not list, an unknown action, a value that contradicts
	// what the daemon knows.
	Invalid = "request.invalid"
)

// ErrNewer reports that a document has a format that this program does not
// know yet. The last good document stays in force.
var ErrNewer = errors.New("newer than this version of batchwarden understands; upgrade it, or write the document in the older format")

// A Subject is the controller's user on whose behalf an agent asks.
type Subject struct {
	User  string   `json:"user,omitempty"`
	Roles []string `json:"roles,omitempty"` // roles that the request names directly (opcon)
	By    string   `json:"by,omitempty"`    // who acts for User (stonebranch)
}

// A Request asks whether Subject may do Action to Object.
type Request struct {
	Subject Subject `json:"subject"`
	Action  string  `json:"action"`
	Object  Object  `json:"object"`
}

// A Decision is an engine's answer. The zero Decision denies.
type Decision struct {
	Allowed  bool
	Code     string   // "" when allowed, else Denied or Invalid
	Rule     string   // the number of the rule that decided, as "OC5"
	Reason   string   // one sentence for people
	Withheld []string // variables that an allowed launch does not get (stonebranch)

	granted *Request // set by Allow alone
}

// Allow is how an engine grants r. It keeps r, not a copy: once a
// request was decided upon, nobody may change it.
func Allow(r *Request, rule, reason string) Decision {
	return Decision{Allowed: true, Rule: rule, Reason: reason, granted: r}
}

// Deny is how an engine denies.
func Deny(rule, reason string) Decision {
	return Decision{Code: Denied, Rule: rule, Reason: reason}
}

// Refuse is how an engine answers a request that is not valid.
func Refuse(err *InvalidError) Decision {
	return Decision{Code: Invalid, Reason: err.text()}
}

// Grant returns what the decision grants; false unless an engine allowed it.
// Setting Allowed by hand makes no Grant.
func (d Decision) Grant() (Grant, bool) {
	if !d.Allowed || d.granted == nil {
		return Grant{}, false
	}
	return Grant{request: d.granted.clone(), rule: d.Rule, withheld: slices.Clone(d.Withheld)}, true
}

// MarshalJSON writes {"allowed","code","rule","reason"} and, where there are
// any, "withheld". A denial always has a code.
func (d Decision) MarshalJSON() ([]byte, error) {
	if !d.Allowed && d.Code == "" {
		d.Code = Denied
	}
	return json.Marshal(struct {
		Allowed  bool     `json:"allowed"`
		Code     string   `json:"code"`
		Rule     string   `json:"rule"`
		Reason   string   `json:"reason"`
		Withheld []string `json:"withheld,omitempty"`
	}{d.Allowed, d.Code, d.Rule, d.Reason, d.Withheld})
}

// A Grant is the proof that an engine allowed one request. Only an allowing
// Decision makes one; the zero Grant is not valid and grants nothing.
type Grant struct {
	request  *Request
	rule     string
	withheld []string
}

// Valid reports whether an engine made the grant.
func (g Grant) Valid() bool { return g.request != nil }

// Request returns a copy of what was granted; the zero Request if g is not valid.
func (g Grant) Request() Request {
	if g.request == nil {
		return Request{}
	}
	return *g.request.clone()
}

// Rule returns the number of the rule that granted.
func (g Grant) Rule() string { return g.rule }

// Withheld returns the names of the variables that the job must not get.
func (g Grant) Withheld() []string { return slices.Clone(g.withheld) }

// An Engine is one policy document, compiled. It is immutable and may be
// used by any number of goroutines.
type Engine interface {
	// Decide answers r. It allocates nothing unless r is invalid; Reason is
	// one of a few constant texts and Explain has the details.
	Decide(r *Request) Decision
	// Explain answers r as Decide does and says how the answer came about.
	Explain(r *Request) (Decision, *Trace)
	// Privileged returns the privileged names that s amounts to, sorted:
	// the role with all rights (Role_ocadm, ops_admin) when s has it, in
	// the document or by naming it, and s.User when the document
	// gives it to that user. A caller may speak for s only if it may use
	// those names.
	Privileged(s Subject) []string
}

// A Host is what the daemon knows about its machine in one realm.
type Host struct {
	Agent         string   // what the controller calls this machine
	Platform      string   // unix, windows, zos
	AgentServices []string // business services of the agent (stonebranch)
}

// A BatchUser is what the daemon knows about a batch user in one realm.
type BatchUser struct {
	Name     string   // what the realm calls it
	Platform string   // its own platform; empty: the host's
	Services []string // its business services (stonebranch)
	Username string   // the account of the operating system
	Group    string
}

// A Model is one controller's kind of policy.
type Model interface {
	// Parse compiles a JSON or YAML document. The error names every fault
	// with its place; it is ErrNewer when the format is not known yet.
	Parse(file string, doc []byte) (Engine, error)
	// FillLaunch makes r the question whether b may be used on h for a
	// launch or a retrieve: it sets the action and all that the daemon
	// knows. The error is an *InvalidError: r says something else.
	FillLaunch(r *Request, h Host, b BatchUser) error
	// FillControl makes r the question whether its subject may do c with a
	// job: it sets the action and all that the daemon knows of the
	// job. The error is an *InvalidError: r says something else.
	FillControl(r *Request, c Control, j Job) error
}

// A Control is what somebody wants with a job that was launched.
type Control int

const (
	Signal Control = iota // end it, or send it a signal
	Output                // read what it has written
)

// A Job is what the daemon knows about a job that was launched.
type Job struct {
	Host      Host
	BatchUser BatchUser // as it was at the launch
	Name      string    // of the object that the launch named (automic)
}

// An InvalidError says which member of a request is at fault and why.
type InvalidError struct {
	Field string // "object.parents[2].name"; "" for the request as a whole
	Text  string
}

func (e *InvalidError) Error() string { return "policy: " + e.text() }

func (e *InvalidError) text() string {
	if e.Field == "" {
		return "the request " + e.Text
	}
	return e.Field + ": " + e.Text
}

func (r *Request) clone() *Request {
	c := *r
	c.Subject.Roles = slices.Clone(c.Subject.Roles)
	c.Object = c.Object.clone()
	return &c
}
