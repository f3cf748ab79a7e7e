// Package config reads what a host's owner wrote: batchwarden.yaml with the client entries of clients.d beside it,
// and limits.yaml.
//
// A file is accepted whole or not at all. Every fault of every file is reported in one go, with file, line, column
// and place, as strict.Faults. What Load returns has been checked: names are well-formed, referenced realms exist,
// paths are absolute and durations positive, and defaults are filled in, so nobody downstream checks again.
package config

import (
	"encoding/json"
	"slices"
	"time"
)

// DefaultFile and DefaultLimitsFile are where the two files lie unless told otherwise.
const (
	DefaultFile       = "/etc/batchwarden/batchwarden.yaml"
	DefaultLimitsFile = "/etc/batchwarden/limits.yaml"
)

// Config is batchwarden.yaml and clients.d/*.yaml together. It is never changed after Load returns it.
type Config struct {
	Machine   string   // as Vault knows this machine
	Platforms []string // unix, windows, zos
	Groups    []string // Vault groups, wide to narrow as written

	StateDir string
	Socket   string // the public socket
	Launcher Launcher
	Users    Users

	SystemdSocket string // "": off

	Vault      Vault
	Sync       Sync
	LocalVault LocalVault
	Realms     map[string]Realm
	Clients    []Client // in file order, batchwarden.yaml first: the first match wins
	Operators  Operators
	Jobs       Jobs
	Audit      Audit
	Metrics    Metrics
	Log        Log

	// Warnings name what was read and has no effect, in this version or ever, one sentence each.
	Warnings []string

	// Files are the files that were read, batchwarden.yaml first.
	Files []string

	// SHA256 names what was read: it is what "sha256sum FILES | sha256sum" says of Files.
	SHA256 string
}

// Launcher is where the daemon finds the launcher, and where the launcher keeps its journal.
type Launcher struct {
	Socket     string
	StateDir   string
	CgroupRoot string // "auto" or an absolute path
}

// Users are the accounts our own processes run as. They differ, and neither is root.
type Users struct {
	Daemon string
	Sync   string
}

// Vault says how to reach the Vault server and how to log in.
type Vault struct {
	Address    string // https, or http to a loopback address
	CAFile     string // "": the system's certificates
	ServerName string // "": the host of Address
	Namespace  string
	Mount      string // the KV v2 mount
	Auth       Auth
}

// Auth methods of Vault that the contract names.
const (
	AuthAppRole   = "approle"
	AuthCert      = "cert"
	AuthJWT       = "jwt"
	AuthTokenFile = "token_file"
)

// Auth is a way to log in to Vault. Only the members of its Method are set.
type Auth struct {
	Method string // one of the Auth constants
	Mount  string // of the auth method; "" for token_file
	Role   string // cert, jwt: "" leaves it to the server; approle, wrapped: whose secret_id it must be, "" for any role's

	RoleIDFile      string // approle
	SecretIDFile    string // approle
	SecretIDWrapped bool   // approle: the file holds a response-wrapping token, or is gone once that was used
	CertFile        string // cert
	KeyFile         string // cert
	JWTFile         string // jwt
	TokenFile       string // token_file
}

// Sync says how often Vault is asked and how long an answer is trusted.
type Sync struct {
	Interval       time.Duration
	Sweep          time.Duration
	MaxStale       time.Duration
	PolicyMaxStale time.Duration
	Sources        []string // prefixes a batch user's source may lie below; none by default
}

// LocalVault names the key that the local vault is encrypted with.
type LocalVault struct {
	Key string // "keyfile:/absolute/path", "tpm2:/absolute/path" or "credential"
}

// Realm is one controller's authorization world and what that controller calls this machine.
type Realm struct {
	Model         string
	Agent         string
	AgentServices []string
}

// What a client may do.
const (
	MayAuthorize = "authorize"
	MayLaunch    = "launch"
	MayRetrieve  = "retrieve"
	MayExplain   = "explain"
)

// Client is a local caller: who it is, and what it may ask for.
type Client struct {
	Name            string
	Match           Match
	Realms          []string
	May             []string // of the May constants
	Subjects        Subjects
	BatchUsers      []string // globs over batch users' names; none by default
	Rate            Rate
	Concurrent      int // 0: no limit
	PAM             string
	SubjectRequired bool

	// Subject and Object are fixed in an entry that matches a systemd unit's credential, absent in all others.
	Subject *Subject
	Object  json.RawMessage

	File string // where the entry was written
	Line int    // of its beginning
}

// Allows reports whether the entry's may list has the word.
func (c *Client) Allows(may string) bool { return slices.Contains(c.May, may) }

// InRealm reports whether the entry may name the realm.
func (c *Client) InRealm(realm string) bool { return slices.Contains(c.Realms, realm) }

// Match is what a caller has to be; everything that is not empty has to hold. User, Group or CredentialUnit is set.
type Match struct {
	User           string
	Group          string
	Exe            string // the path of the program, links resolved; a script's interpreter
	SHA256         string // of the program, in lower case
	Unit           string // of the system, "lsam.service"
	CredentialUnit string
}

// Subjects are the controller's users that a client may speak for.
type Subjects struct {
	// OwnName: no users were given, so the subject's user has to be named like the client's own OS account.
	OwnName    bool
	Users      []string // globs over the subject's user
	Roles      []string // exact names that a request may list
	Privileged []string // exact names that no glob covers
}

// Subject is a fixed subject of a credential entry.
type Subject struct {
	User  string
	Roles []string
	By    string
}

// Rate is a number of events in a time. The zero value means no limit.
type Rate struct {
	Events int
	Per    time.Duration
}

// Unlimited reports that there is no limit.
func (r Rate) Unlimited() bool { return r.Events == 0 }

// PerSecond is the rate as events per second, 0 without a limit.
func (r Rate) PerSecond() float64 {
	if r.Unlimited() {
		return 0
	}
	return float64(r.Events) / r.Per.Seconds()
}

// Operators may look at everything and steer the daemon; they launch and retrieve nothing by that.
type Operators struct {
	Users  []string
	Groups []string
}

// Jobs bounds jobs and what is kept of them.
type Jobs struct {
	Keep       time.Duration // after the end
	CaptureMax int64         // octets of each captured stream
	Grace      time.Duration // between TERM and KILL
	MaxRunning int
}

// Audit says where decisions are written and when they are durable.
type Audit struct {
	File   string
	Sync   time.Duration // 0: before the act ("always")
	Rotate int64         // octets
	Keep   int           // rotated files
	Argv   bool          // write commands' arguments and environment too

	Journald bool // copy each record to the system's journal, as well as it can
}

// Always reports that a record is durable before the act it records.
func (a Audit) Always() bool { return a.Sync == 0 }

// Metrics says where metrics go besides the socket.
type Metrics struct {
	Textfile string // for node_exporter's textfile collector; "": nowhere
}

// Log says what is logged and how.
type Log struct {
	Level  string // debug, info, warn, error
	Format string // auto, text, json
}

// Limits is limits.yaml: what the host's owner allows, whatever was synced.
type Limits struct {
	Requesters    []string // OS users whose connections may ask for launches
	AllowRoot     bool
	MinUID        uint32
	MinGID        uint32
	AllowUsers    []string // empty: does not restrict
	DenyUsers     []string
	DenyGroups    []string
	AllowCommands []Command // empty: does not restrict
	AllowEnv      []string
	Max           map[string]uint64 // ceilings by rlimit name, as in a request's unix.limits
}

// Command is a program that jobs may run: a file, or everything below a directory when Path ends with a slash.
type Command struct {
	Path   string
	SHA256 string // "": any content
}

// Dir reports that the command stands for everything below Path.
func (c Command) Dir() bool { return len(c.Path) > 0 && c.Path[len(c.Path)-1] == '/' }
