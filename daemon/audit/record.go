package audit

import "time"

// Kinds of records.
const (
	Launch      = "launch"         // may this job run? written before it is started
	NotStarted  = "launch.failed"  // it was allowed, and the launcher refused or failed
	JobEnded    = "job.ended"      // from the launcher's journal
	Authorize   = "authorize"      // a question, nothing was done
	Retrieve    = "retrieve"       // may the password be handed out? written before it is
	Delivered   = "retrieve.ended" // it was handed out, or could not be
	Signal      = "signal"         // may this job be sent a signal? written before it is
	Output      = "output"         // may this job's output be read for that subject?
	Forget      = "forget"         // may this ended job be forgotten? written before it is
	DryRun      = "dry_run"        // would this job be started? nothing was
	Suspend     = "suspend"        // nothing is started from here on
	Resume      = "resume"         // and from here on it is again
	Synced      = "sync"           // something changed in what this machine is entitled to
	Report      = "report"         // a caller says how a password did where it was used
	LocalVault  = "local_vault"    // the vault on this machine's disk is not what it should be
	PolicyState = "policy"         // a document came into force, or was refused
	Rekey       = "rekey"          // may another key open the local vault? written before it does
	NotRekeyed  = "rekey.failed"   // it was allowed, and could not be done
)

// Verdicts.
const (
	Allow = "allow"
	Deny  = "deny"
)

// Record is one line. What does not apply is absent.
type Record struct {
	Time       time.Time `json:"time"`
	Kind       string    `json:"kind"`
	DecisionID string    `json:"decision_id,omitempty"`
	Verdict    string    `json:"verdict,omitempty"`
	Code       string    `json:"code,omitempty"`
	Rule       string    `json:"rule,omitempty"`
	Reason     string    `json:"reason,omitempty"`

	Client   string `json:"client,omitempty"`
	Operator bool   `json:"operator,omitempty"`
	Peer     *Peer  `json:"peer,omitempty"`

	Realm     string   `json:"realm,omitempty"`
	Subject   *Subject `json:"subject,omitempty"`
	Action    string   `json:"action,omitempty"`
	BatchUser string   `json:"batch_user,omitempty"`
	Username  string   `json:"username,omitempty"` // the account on this host
	Withheld  []string `json:"withheld,omitempty"`

	CredentialVersion int64 `json:"credential_version,omitempty"`
	PolicyVersion     int64 `json:"policy_version,omitempty"`

	Job *Job `json:"job,omitempty"`

	HostKey *HostKey `json:"host_key,omitempty"`

	Changed []string `json:"changed,omitempty"` // paths in Vault
	Removed []string `json:"removed,omitempty"`
}

// Peer is the caller as the kernel attested it.
type Peer struct {
	PID  int    `json:"pid"`
	UID  uint32 `json:"uid"`
	GID  uint32 `json:"gid"`
	User string `json:"user,omitempty"`
	Unit string `json:"unit,omitempty"` // whose credential systemd asked for
}

// Subject is on whose behalf the caller asked.
type Subject struct {
	User  string   `json:"user,omitempty"`
	Roles []string `json:"roles,omitempty"`
	By    string   `json:"by,omitempty"`
}

// HostKey names the key that opens the local vault, and the one that did
// before. The keys themselves are nowhere.
type HostKey struct {
	Kind    string `json:"kind,omitempty"`
	ID      string `json:"id,omitempty"`
	OldKind string `json:"old_kind,omitempty"`
	OldID   string `json:"old_id,omitempty"`
}

// Job is a job as the record needs it: sums of what was run, not the text.
type Job struct {
	ID            string `json:"id"`
	CommandSHA256 string `json:"command_sha256,omitempty"` // of the arguments, NUL after each
	EnvSHA256     string `json:"env_sha256,omitempty"`     // of the sorted K=V, NUL after each
	Serial        uint64 `json:"serial,omitempty"`         // in the launcher's journal
	PID           int    `json:"pid,omitempty"`
	State         string `json:"state,omitempty"`
	ExitCode      *int   `json:"exit_code,omitempty"`
	Signal        string `json:"signal,omitempty"`
	Survivors     int    `json:"survivors,omitempty"`

	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`
	EndSeq  uint64    `json:"end_seq,omitempty"` // its end in the journal: a second line with the same number is the same end
}
