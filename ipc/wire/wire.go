// Package wire is the vocabulary of the socket API: the JSON that requests and
// answers are made of, and the stable codes of its problem documents.
// ../openapi.yaml describes the same for people and for other languages.
package wire

import (
	"encoding/json"
	"time"
)

// API is the version of the API that whoami reports. It grows by adding; a
// change that takes something away is another number.
const API = 1

// Limits of what a caller may send. They are checked before anything is parsed.
const (
	MaxBody   = 4 << 20 // octets in a launch body; every other body: MaxSmall
	MaxSmall  = 64 << 10
	MaxWait   = 60 * time.Second // the longest ?wait=
	MaxArgs   = 4096
	MaxEnv    = 4096
	MaxLabels = 64
	MaxID     = 128
	MaxText   = 1 << 20 // octets of a script, and of stdin
	MaxLimits = 16
)

// Subject is the controller's user on whose behalf the caller asks.
type Subject struct {
	User  string   `json:"user,omitempty"`
	Roles []string `json:"roles,omitempty"`
	By    string   `json:"by,omitempty"`
}

// IsZero reports that nobody is named.
func (s Subject) IsZero() bool { return s.User == "" && len(s.Roles) == 0 && s.By == "" }

// Authorize is the body of POST /v1/authorize. Action defaults to "launch".
// With BatchUser set the question is the one that a launch as that batch user
// would ask: the daemon fills in what it knows better than the caller.
type Authorize struct {
	Realm     string          `json:"realm"`
	Subject   Subject         `json:"subject"`
	Action    string          `json:"action,omitempty"`
	Object    json.RawMessage `json:"object,omitempty"`
	BatchUser string          `json:"batch_user,omitempty"`
}

// Decision is the answer to Authorize. Rule, Reason and Trace are there only
// when the caller asked to have the decision explained and may.
type Decision struct {
	Allowed    bool            `json:"allowed"`
	Code       string          `json:"code"`
	Rule       string          `json:"rule,omitempty"`
	Reason     string          `json:"reason,omitempty"`
	Withheld   []string        `json:"withheld,omitempty"`
	DecisionID string          `json:"decision_id"`
	Trace      json.RawMessage `json:"trace,omitempty"`
	TraceText  string          `json:"trace_text,omitempty"`
}

// Retrieve is the body of POST /v1/batch-users/{name}/retrieve.
type Retrieve struct {
	Realm   string          `json:"realm"`
	Subject Subject         `json:"subject"`
	Object  json.RawMessage `json:"object,omitempty"`
}

// Secret is what goes with a password: all of the same record. The password
// itself is never in a value of this package.
type Secret struct {
	Username  string
	Domain    string
	Version   int64
	RotatesIn *int64 // seconds; nil: nobody has announced it
}

// Headers of a retrieved password. All four belong to the same record.
const (
	HeaderUsername  = "Batchwarden-Username"
	HeaderDomain    = "Batchwarden-Domain"
	HeaderVersion   = "Batchwarden-Version"
	HeaderRotatesIn = "Batchwarden-Rotates-In"
)

// Outcomes of a Report.
const (
	Rejected = "rejected"
	Accepted = "accepted"
)

// Report is the body of POST /v1/batch-users/{name}/report: how a password did
// where it was used.
type Report struct {
	Version int64  `json:"version"`
	Outcome string `json:"outcome"`
}

// Reported is its answer: with Newer another version is in force than the one
// that the report was about.
type Reported struct {
	Newer   bool  `json:"newer"`
	Version int64 `json:"version"` // the one in force
}

// Launch is the body of POST /v1/jobs. Exactly one of Command, CommandLine and
// Script says what to run.
type Launch struct {
	ID          string            `json:"id,omitempty"`
	Realm       string            `json:"realm"`
	Subject     Subject           `json:"subject"`
	Object      json.RawMessage   `json:"object,omitempty"`
	BatchUser   string            `json:"batch_user"`
	Command     []string          `json:"command,omitempty"`
	CommandLine string            `json:"command_line,omitempty"`
	Script      *Script           `json:"script,omitempty"`
	Login       bool              `json:"login,omitempty"`
	Stdin       string            `json:"stdin,omitempty"`
	Dir         string            `json:"dir,omitempty"`
	Env         map[string]string `json:"env,omitempty"`
	Labels      map[string]string `json:"labels,omitempty"`
	Timeout     Duration          `json:"timeout,omitzero"`
	Stdio       string            `json:"stdio,omitempty"` // capture (the default), passed, null
	Unix        *Unix             `json:"unix,omitempty"`
}

// Script is a text to be run. It lies in a file that only the job's user can
// read, and that is removed when the job has ended. Without an interpreter it
// is what #! in its first line names, or the account's shell.
type Script struct {
	Text        string   `json:"text"`
	Interpreter []string `json:"interpreter,omitempty"`
	Args        []string `json:"args,omitempty"`
}

// Unix is what only a job on a Unix system has.
type Unix struct {
	Umask  string            `json:"umask,omitempty"`  // octal
	Nice   int               `json:"nice,omitempty"`   // -20 to 19; 0: as the service has it
	Limits map[string]uint64 `json:"limits,omitempty"` // soft and hard, by the names of setrlimit(2)
}

// Signal is the body of POST /v1/jobs/{id}/signal. Subject and Object are for
// clients whose entry says subject_required.
type Signal struct {
	Signal  string          `json:"signal"`         // TERM, KILL, HUP …; CANCEL: TERM, then KILL, and the job is failed, job.canceled
	Grace   Duration        `json:"grace,omitzero"` // KILL for those that are left after it
	Subject Subject         `json:"subject,omitzero"`
	Object  json.RawMessage `json:"object,omitempty"`
}

// States of a job.
const (
	Starting = "starting"
	Running  = "running"
	Exited   = "exited" // it ran; exit_code or signal tells how it ended
	Failed   = "failed" // it was granted, but could not be started; or it was stopped at its timeout
	Lost     = "lost"   // it ran; how it ended cannot be known any more
)

// Job is one job as its client sees it.
type Job struct {
	ID                string            `json:"id"`
	Client            string            `json:"client"`
	Realm             string            `json:"realm"`
	Subject           Subject           `json:"subject"`
	BatchUser         string            `json:"batch_user"`
	State             string            `json:"state"`
	PID               int               `json:"pid,omitempty"`
	User              string            `json:"user,omitempty"`
	ExitCode          *int              `json:"exit_code,omitempty"`
	Signal            string            `json:"signal,omitempty"`
	CoreDumped        bool              `json:"core_dumped,omitempty"`
	Started           time.Time         `json:"started,omitzero"`
	Ended             time.Time         `json:"ended,omitzero"`
	Rusage            *Rusage           `json:"rusage,omitempty"`
	Survivors         int               `json:"survivors"`
	Labels            map[string]string `json:"labels,omitempty"`
	CredentialVersion int64             `json:"credential_version,omitempty"`
	CommandSHA256     string            `json:"command_sha256,omitempty"`
	ScriptSHA256      string            `json:"script_sha256,omitempty"` // of the script's text
	Withheld          []string          `json:"withheld,omitempty"`
	Code              string            `json:"code,omitempty"`
	Reason            string            `json:"reason,omitempty"`
	DecisionID        string            `json:"decision_id,omitempty"`
}

// Done reports whether the job will not change any more.
func (j *Job) Done() bool { return j.State != Starting && j.State != Running }

// Rusage is what the job and the children it waited for have used.
type Rusage struct {
	CPUSeconds float64 `json:"cpu_seconds"`
	MaxRSS     int64   `json:"max_rss"` // octets
}

// JobFilter narrows a list of jobs; the zero value does not.
type JobFilter struct {
	State  string
	Since  time.Time         // started at or after
	Labels map[string]string // all of them
	After  string            // the id of the last job of the page before
	Limit  int               // 0: no limit
}

// Jobs is the answer of GET /v1/jobs.
type Jobs struct {
	Jobs []Job `json:"jobs"`
}

// BatchUser is one credential, without its secret.
type BatchUser struct {
	Name       string            `json:"name"`
	Username   string            `json:"username"`
	Domain     string            `json:"domain,omitempty"`
	Group      string            `json:"group,omitempty"`
	Platform   string            `json:"platform"`
	Scope      string            `json:"scope"`
	Names      map[string]string `json:"names,omitempty"`
	Kind       string            `json:"kind"`
	Version    int64             `json:"version"`
	AgeSeconds int64             `json:"age_seconds"` // since Vault last confirmed it
	State      string            `json:"state"`       // ready, stale, expired, rejected, ambiguous
	Launch     bool              `json:"launch"`
	Retrieve   bool              `json:"retrieve"`
	Expires    time.Time         `json:"expires,omitzero"`
	Rotates    time.Time         `json:"rotates,omitzero"` // when the place that the password lies in announced the next one
	Fault      string            `json:"fault,omitempty"`
}

// BatchUsers is the answer of GET /v1/batch-users.
type BatchUsers struct {
	BatchUsers []BatchUser `json:"batch_users"`
}

// Health is the answer of GET /v1/health; Reasons say why not.
type Health struct {
	Healthy bool      `json:"healthy"`
	State   string    `json:"state"`
	Reasons []Finding `json:"reasons,omitempty"`
}

// Finding is something that a person should know or mend.
type Finding struct {
	Code   string `json:"code"`
	Detail string `json:"detail"`
	Path   string `json:"path,omitempty"` // what it is about
}

// Whoami is the answer of GET /v1/whoami.
type Whoami struct {
	Peer     Peer     `json:"peer"`
	Client   string   `json:"client,omitempty"` // the entry that matched
	Operator bool     `json:"operator"`
	Reason   string   `json:"reason,omitempty"` // why no entry matched
	Entries  []Match  `json:"entries,omitempty"`
	May      []string `json:"may,omitempty"`
	Realms   []string `json:"realms,omitempty"`
	Version  string   `json:"version"`
	API      int      `json:"api"`
	Features []string `json:"features"`
}

// Match is one client entry, held against the caller. Entries are looked at in
// their order, up to the one that matches.
type Match struct {
	Client  string `json:"client"`
	Matched bool   `json:"matched"`
	Reason  string `json:"reason,omitempty"` // why it does not match
}

// Peer is the caller as the system attests it.
type Peer struct {
	PID    int      `json:"pid"`
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"`
	User   string   `json:"user,omitempty"` // "" when the uid has no name

	// Attested: the launcher looked at the process. Without it only the socket was asked, and nothing below is known.
	Attested bool   `json:"attested"`
	Exe      string `json:"exe,omitempty"` // of a script: the interpreter
	NoExe    string `json:"no_exe,omitempty"`
	SHA256   string `json:"sha256,omitempty"` // of that file, where a client entry wants to know
	NoSHA256 string `json:"no_sha256,omitempty"`
	Unit     string `json:"unit,omitempty"` // the system service that the process belongs to
}

// States of the service.
const (
	StateStarting = "starting" // nothing to serve yet
	StateOnline   = "online"   // the last contact with Vault succeeded
	StateOffline  = "offline"  // serving what was synced before
)

// Status is the answer of GET /v1/status.
type Status struct {
	State      string         `json:"state"`
	Machine    string         `json:"machine"`
	Version    string         `json:"version"`
	Started    time.Time      `json:"started"`
	Sync       Sync           `json:"sync"`
	BatchUsers BatchUserCount `json:"batch_users"`
	Policies   []Policy       `json:"policies"`
	Memory     Memory         `json:"memory"`
	LocalVault LocalVault     `json:"local_vault"`
	Launcher   Launcher       `json:"launcher"`
	Jobs       JobCount       `json:"jobs"`
	Suspension *Suspension    `json:"suspension,omitempty"` // nothing is started
	Problems   []Finding      `json:"problems"`
}

// Sync is the state of the synchronisation with Vault, and the answer of
// POST /v1/sync, which returns when its outcome is in force.
type Sync struct {
	Outcome      string    `json:"outcome"` // ok, or the code of the failure
	Detail       string    `json:"detail,omitempty"`
	Address      string    `json:"address,omitempty"`
	LastSuccess  time.Time `json:"last_success,omitzero"`
	LastAttempt  time.Time `json:"last_attempt,omitzero"`
	LastSweep    time.Time `json:"last_sweep,omitzero"` // when everything was looked at
	NextAttempt  time.Time `json:"next_attempt,omitzero"`
	OfflineSince time.Time `json:"offline_since,omitzero"`
	Changed      int       `json:"changed"` // of the last attempt
	Removed      int       `json:"removed"`
	Requests     int       `json:"requests"`
	Arrived      int       `json:"arrived,omitempty"` // documents that the attempt being made has brought so far
	Faults       []Finding `json:"faults,omitempty"`
	TokenExpires time.Time `json:"token_expires,omitzero"`
	SecretID     *SecretID `json:"secret_id,omitempty"` // absent: none is used, or Vault does not tell
}

// SecretID is how long the secret_id that the machine logs in with is good, as of the last login or renewal.
type SecretID struct {
	Gone    bool      `json:"gone,omitempty"`   // used up, expired or destroyed: the next login will be refused
	Expires time.Time `json:"expires,omitzero"` // absent: never
	Uses    int       `json:"uses,omitempty"`   // logins that are left; absent: any number
}

// HostKey is the body of POST /v1/rekey, beside the pipe that holds the key,
// and its answer. The key itself is in neither.
type HostKey struct {
	Kind string `json:"kind"`         // keyfile, credential, tpm2, dpapi
	ID   string `json:"id,omitempty"` // its name; when given, the key must be that one
}

// BatchUserCount counts the batch users by what can be done with them.
type BatchUserCount struct {
	Total    int `json:"total"`
	Ready    int `json:"ready"`
	Stale    int `json:"stale"`
	Rejected int `json:"rejected"`
	Shared   int `json:"shared_passwords"` // readable by every machine of a platform
}

// Policy is the document in force in one realm.
type Policy struct {
	Realm      string `json:"realm"`
	Model      string `json:"model"`
	Version    int64  `json:"version"`
	Scope      string `json:"scope,omitempty"`
	AgeSeconds int64  `json:"age_seconds"` // since Vault last confirmed it
	State      string `json:"state"`       // active, stale, refused, missing
	Detail     string `json:"detail,omitempty"`
}

// Memory says where secrets are kept.
type Memory struct {
	Backend  string `json:"backend"`
	Degraded string `json:"degraded,omitempty"` // what is missing, in a sentence
	Dumpable bool   `json:"dumpable"`
}

// LocalVault is the state of the encrypted store on this machine.
type LocalVault struct {
	Records     int    `json:"records"`
	Bytes       int64  `json:"bytes"`
	Key         string `json:"key"`
	KeyID       string `json:"key_id"`
	Quarantined int    `json:"quarantined"`
	Error       string `json:"error,omitempty"`
	Foreign     string `json:"foreign,omitempty"`    // another machine's vault was found here and set aside
	WentBack    string `json:"went_back,omitempty"`  // it is older than one that was here before
	Unwritable  string `json:"unwritable,omitempty"` // the last change is not on the disk
}

// Launcher is the state of the privileged companion.
type Launcher struct {
	Connected   bool      `json:"connected"`
	Since       time.Time `json:"since,omitzero"`
	Version     string    `json:"version,omitempty"`
	Containment string    `json:"containment,omitempty"` // how the processes of a job are kept together
	Detail      string    `json:"detail,omitempty"`
}

// JobCount counts jobs.
type JobCount struct {
	Running int            `json:"running"`
	Kept    int            `json:"kept"`
	States  map[string]int `json:"states"`          // of all of them
	Oldest  time.Time      `json:"oldest,omitzero"` // start of the one that runs longest
}

// Problem is an RFC 9457 problem document, and the error that carries it.
type Problem struct {
	Type       string   `json:"type"` // always about:blank; Code tells problems apart
	Title      string   `json:"title"`
	Status     int      `json:"status"`
	Detail     string   `json:"detail,omitempty"`
	Code       string   `json:"code"`
	Field      string   `json:"field,omitempty"` // the member of the request that is at fault
	DecisionID string   `json:"decision_id,omitempty"`
	Withheld   []string `json:"withheld,omitempty"`
	RetryAfter int      `json:"retry_after,omitempty"` // seconds, as in the header Retry-After
}

// Error says what happened, for people.
func (p *Problem) Error() string {
	if p.Detail == "" {
		return p.Code + ": " + p.Title
	}
	return p.Code + ": " + p.Detail
}

// ContentType of a problem document.
const ContentType = "application/problem+json"
