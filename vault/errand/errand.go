// Package errand is what the daemon and its sync worker say to each other over
// two pipes.
//
// The daemon sends two keys of 32 octets, then the task in one frame; or nothing,
// when it needs no worker after all. The worker answers with frames: any number of
// sealed records, then one report, then the end of the pipe. Before its first
// record it may ask once for what is known, as most polls need not: then the
// daemon sends that too, in one or more frames, and the end of its pipe. A frame
// is its length as four octets, high order first, and that much: one octet that
// says what it is, and the rest. Tasks, tokens, reports and the question are JSON.
// Records and what is known are many, so they have a layout of their own
// (layout.go).
//
// The two programs are of one installation, and of different versions for a
// moment during an upgrade. Members of the JSON that one of them does not know
// pass. A layout never changes: another one is another kind of frame, and one of
// an unknown kind fails that run, after which the daemon tries again.
//
// The worker's side is Receive, Orders and Writer, the daemon's is Send, SendKnown
// and Reader. What either reads is bounded before it is taken.
package errand

import (
	"errors"
	"time"

	"batchwarden/vault/sealed"
	"batchwarden/vault/snapshot"
)

// The bounds. The longest record, a policy document of sealed.MaxDocument, fits a frame.
const (
	KeySize   = 32
	MaxFrame  = 16 << 20
	MaxKnown  = 16 << 20  // all frames of what is known together
	MaxAnswer = 256 << 20 // all frames of one worker together
)

// ErrTooLong reports a frame or an answer beyond its bound.
var ErrTooLong = errors.New("errand: too long")

// Task is what the daemon asks for.
type Task struct {
	Machine    string         `json:"machine,omitempty"` // that it is for; the worker reads its own configuration
	Generation uint64         `json:"generation"`        // of the batch whose key was sent
	Token      *sealed.Token  `json:"token,omitempty"`
	Held       map[string]int `json:"held,omitempty"` // by scope: how many documents are known
	Refused    []Refused      `json:"refused,omitempty"`
	Indexes    []Index        `json:"indexes,omitempty"`
	Sweep      bool           `json:"sweep,omitempty"`   // look at everything, whatever the indexes hint
	Sources    []snapshot.ID  `json:"sources,omitempty"` // read the sources of these too; a sweep reads all
	Only       []snapshot.ID  `json:"only,omitempty"`    // look at these and at nothing else
}

// Known is one document that the daemon holds. With all of them it is found what
// is missing from Vault, and only what is newer is read.
type Known struct {
	ID      snapshot.ID
	Version int64
	Created time.Time
	Turn    int64 // as in snapshot.Entry, like the next two
	Mark    []byte
	Source  string
}

// Refused is a version of a document that was read before and refused. It is
// not read again: its fault is repeated as long as it is the current one.
type Refused struct {
	ID      snapshot.ID `json:"id"`
	Version int64       `json:"version"`
	Created time.Time   `json:"created"`
	Detail  string      `json:"detail"`
}

// Index is one version of a scope's index: everything that it hinted at has been
// looked at.
type Index struct {
	Scope   string    `json:"scope"`
	Version int64     `json:"version"`
	Created time.Time `json:"created"`
}

// The codes of reports and scopes. They are part of the daemon's status and
// never change meaning.
const (
	OK           = "ok"
	Unreachable  = "vault.unreachable"   // no answer: network, name, time
	TLS          = "vault.tls"           // an answer, from whom is not proved
	Sealed       = "vault.sealed"        // the server says that it is sealed
	LoginRefused = "vault.login_refused" // wrong or withdrawn credentials
	WrappedUsed  = "vault.wrapped_used"  // the wrapping token was used before, or is not one for us: somebody else may have what was in it
	Forbidden    = "vault.forbidden"     // 403 where this machine should be allowed
	Missing      = "vault.missing"       // 404 with a text: no such mount
	Limited      = "vault.limited"       // 429
	Error        = "vault.error"         // any other refusal of the server's
	Answer       = "vault.answer"        // an answer cut short, or not one of Vault's
	Identity     = "vault.identity"      // the token belongs to another machine
	Setup        = "vault.setup"         // the machine's own set-up: files, methods
)

// Report ends a worker's answer. Texts in it are for people and hold no secret.
type Report struct {
	Code   string `json:"code"` // OK when every scope was read, else the first trouble
	Detail string `json:"detail,omitempty"`

	Scopes  []Scope   `json:"scopes,omitempty"`
	Removed []Removed `json:"removed,omitempty"`
	Faults  []Fault   `json:"faults,omitempty"`

	Token        *sealed.Token `json:"token,omitempty"`      // for the next worker; nil: keep none
	KeepToken    bool          `json:"keep_token,omitempty"` // instead of Token: the one of the task is still the one
	TokenExpires time.Time     `json:"token_expires,omitzero"`
	SecretID     *SecretID     `json:"secret_id,omitempty"` // nil: none is used, or Vault does not tell
	Requests     int           `json:"requests"`
}

// SecretID is how long the secret_id that the machine logs in with is good, as of the last login or renewal.
type SecretID struct {
	Gone    bool      `json:"gone,omitempty"`   // it was used up, expired or destroyed: the next login will be refused
	Expires time.Time `json:"expires,omitzero"` // zero: never
	Uses    int       `json:"uses,omitempty"`   // logins that are left; 0: any number
}

// Scope is the outcome for one scope. Read means that its lists and metadata
// were answered whole: every known document of it that is neither in Removed nor
// in Faults is confirmed. A scope that is OK and not Read was only polled: its
// index hinted at nothing else than what was looked at.
type Scope struct {
	Scope  string `json:"scope"`
	Read   bool   `json:"read,omitempty"`
	Code   string `json:"code"`
	Detail string `json:"detail,omitempty"`
	Index  *Index `json:"index,omitempty"` // for the next task; nil: there is none
}

// Removed is a known document that is in Vault no more, or not for this machine.
type Removed struct {
	ID  snapshot.ID `json:"id"`
	Why string      `json:"why"`
}

// Fault is a document that was refused, or could not be read although the rest
// could. The last good version of it stays, unconfirmed.
type Fault struct {
	Path   string `json:"path"` // below the mount, as snapshot.ID's String
	Detail string `json:"detail"`

	// The version that was refused, which need not be read again; zero when
	// reading it again may help.
	Version int64     `json:"version,omitempty"`
	Created time.Time `json:"created,omitzero"`
}

// Message is one frame of an answer: exactly one of the four is set. A token
// on its own is to be kept at once: what it was made from can be used only once.
type Message struct {
	Put       *sealed.Record `json:"-"` // a frame of its own kind
	Token     *sealed.Token  `json:"token,omitempty"`
	Report    *Report        `json:"report,omitempty"`
	WantKnown bool           `json:"want_known,omitempty"` // once, and before any record
}
