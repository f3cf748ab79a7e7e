package audit

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

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
	TryPassword = "verify"         // may this password be tried on this host? written before it is
	Tried       = "verify.ended"   // what came of it
	LocalVault  = "local_vault"    // the vault on this machine's disk is not what it should be
	PolicyState = "policy"         // a document came into force, or was refused
	Rekey       = "rekey"          // may another key open the local vault? written before it does
	NotRekeyed  = "rekey.failed"   // it was allowed, and could not be done
	Refused     = "refused"        // how often somebody was, after a first refusal that has a record of its own

	Started       = "service.started" // the service serves from here on
	Stopped       = "service.stopped" // and has been stopped; where it was killed there is none
	ConfigChanged = "config.changed"  // another configuration came into force; written before it did
	ConfigRefused = "config.refused"  // its files have a fault; the one in force stays
	Reload        = "reload"          // somebody wanted it read again, and may not

	Begun = "log.begun" // the first record of each file of the log
	Cut   = "log.cut"   // what stands between the record before and this one is none: a crash left it
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

	ForClient string `json:"for_client,omitempty"` // of a DryRun: the client entry that was asked about, where that is not Client

	HostKey *HostKey `json:"host_key,omitempty"`

	Service *Service `json:"service,omitempty"`
	Config  *Config  `json:"config,omitempty"`

	Changed []string `json:"changed,omitempty"` // paths in Vault
	Removed []string `json:"removed,omitempty"`

	Count int64     `json:"count,omitempty"` // of a Refused, since the first
	Since time.Time `json:"since,omitzero"`

	File *File `json:"file,omitempty"`
	Torn *Torn `json:"torn,omitempty"`
}

// File is what a Begun says of its file and those before it.
type File struct {
	Format int    `json:"format"`
	Oldest uint64 `json:"oldest"`          // first record of the oldest file that is kept
	Ends   uint64 `json:"ends,omitempty"`  // highest Job.EndSeq of a JobEnded in the files before
	Aside  string `json:"aside,omitempty"` // what the file is called now that had this one's name and was no log
}

// format is the File.Format of this version.
const format = 1

// ErrNewer reports an audit log that a newer version has written.
var ErrNewer = errors.New("a newer version of batchwarden wrote this audit log")

func newer(found int) error {
	return fmt.Errorf("%w: format %d, this version understands up to %d; install the newer version again, or move the log's files away: a new log begins", ErrNewer, found, format)
}

// Torn is text that is no record, as it stands in the file.
type Torn struct {
	Octets int64  `json:"octets"`
	SHA256 string `json:"sha256"`
}

// Peer is the caller as the kernel attested it.
type Peer struct {
	PID    int    `json:"pid,omitempty"`
	UID    uint32 `json:"uid"`
	GID    uint32 `json:"gid"`
	User   string `json:"user,omitempty"`
	Unit   string `json:"unit,omitempty"`   // its system service; of a credential, the one that systemd asked it for
	Exe    string `json:"exe,omitempty"`    // where it was looked at
	SHA256 string `json:"sha256,omitempty"` // of exe, where that was wanted
}

// Subject is on whose behalf the caller asked.
type Subject struct {
	User  string   `json:"user,omitempty"`
	Roles []string `json:"roles,omitempty"`
	By    string   `json:"by,omitempty"`
}

// Service is which program started or stopped, and since when the machine runs.
type Service struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`
	Boot    string `json:"boot,omitempty"` // the system's name for this run of the machine
}

// What had a configuration read.
const (
	ByStart    = "start"
	BySignal   = "signal"   // SIGHUP
	ByFile     = "file"     // something happened where its files lie
	ByOperator = "operator" // the record's peer
)

// Config is a configuration and what of it is another than before: places, and never what stands there.
type Config struct {
	SHA256  string   `json:"sha256"`               // as "sha256sum FILES | sha256sum" says, in their order
	Old     string   `json:"old_sha256,omitempty"` // of the one in force before; of a refused one, of the one that stays
	By      string   `json:"by,omitempty"`
	Changed []string `json:"changed,omitempty"`
	Restart []string `json:"restart_needed,omitempty"` // what stays as it was until a restart
	Faults  []string `json:"faults,omitempty"`         // file:line:column: place
}

// HostKey names the key that opens the local vault, and the one that did
// before. The keys themselves are nowhere.
type HostKey struct {
	Kind    string `json:"kind,omitempty"`
	ID      string `json:"id,omitempty"`
	OldKind string `json:"old_kind,omitempty"`
	OldID   string `json:"old_id,omitempty"`
}

// Job is a job as the record needs it: sums of what was run, and the text only
// where the configuration wants it.
type Job struct {
	ID            string            `json:"id"`
	CommandSHA256 string            `json:"command_sha256,omitempty"` // of the words, NUL after each: a command's, a command line as one, a script's interpreter and arguments
	ScriptSHA256  string            `json:"script_sha256,omitempty"`  // of a script's text
	EnvSHA256     string            `json:"env_sha256,omitempty"`     // of the sorted K=V, NUL after each
	Argv          []string          `json:"argv,omitempty"`
	Env           map[string]string `json:"env,omitempty"`
	Shortened     bool              `json:"shortened,omitempty"` // Argv or Env are not all of it
	Serial        uint64            `json:"serial,omitempty"`    // in the launcher's journal
	PID           int               `json:"pid,omitempty"`
	State         string            `json:"state,omitempty"`
	ExitCode      *int              `json:"exit_code,omitempty"`
	Signal        string            `json:"signal,omitempty"`
	Survivors     int               `json:"survivors,omitempty"`

	Started time.Time `json:"started,omitzero"`
	Ended   time.Time `json:"ended,omitzero"`
	EndSeq  uint64    `json:"end_seq,omitempty"` // its end in the journal: a second line with the same number is the same end
}

// mostText bounds the words of Argv and Env in a record, in octets.
const mostText = 8 << 10

// Tell puts into the record what is run, as much as fits.
func (j *Job) Tell(argv []string, env map[string]string) {
	left := mostText
	fits := func(word string) bool {
		if left -= len(word) + 8; left < 0 { // quotes and a comma too; the rest of JSON's growth has room in a record
			j.Shortened = true
		}
		return left >= 0
	}
	for _, word := range argv {
		if !fits(word) {
			return
		}
		j.Argv = append(j.Argv, word)
	}
	for _, name := range slices.Sorted(maps.Keys(env)) {
		if !fits(name + env[name]) {
			return
		}
		if j.Env == nil {
			j.Env = map[string]string{}
		}
		j.Env[name] = env[name]
	}
}
