// Package keeper is the launcher: it starts, contains, journals and remembers jobs for one daemon, which it does not
// trust with more than the host owner's limits allow.
package keeper

import (
	"context"
	"log/slog"
	"time"

	"batchwarden/platform/account"
	"batchwarden/platform/pam"
)

// Config is all that the launcher is told.
type Config struct {
	Version string

	PublicSocket string // bound here, served by the daemon
	Socket       string // the private one
	// SystemdSocket is bound here for systemd alone and served by the daemon; "": there is none.
	SystemdSocket string
	StateDir      string // ours alone: the journal and the captured output
	CgroupRoot    string // "auto": below the launcher's own cgroup; else a directory of a cgroup2 file system

	// BecomePath is the program that jobs begin as, absolute: root's, and nobody else can write it.
	BecomePath string

	DaemonUID, DaemonGID uint32
	Sync                 account.Account // the sync worker's
	SyncPath             string          // absolute
	SyncArgs             []string        // without the name

	// Allow is asked after the last look-up about every launch. Its error is the reason why not, for people.
	Allow func(Ask) error
	// Target is asked whether the host owner allows an account as a job's, whoever asks and whatever would run; its error is
	// the reason why not. nil: none is.
	Target func(account.Account) error
	// Max are ceilings of every job's limits, by the names of setrlimit(2); nil: there are none.
	Max func() map[string]uint64
	// Problems lists what an operator should mend; shown in the daemon's status.
	Problems func() []string

	Accounts account.Resolver // nil: the system's files
	PAM      pam.Program

	// Bounds are asked for each time that they count.
	Bounds func() Bounds
	// JournalSync is the time within which a record is on the disk; 0: before its act.
	JournalSync time.Duration

	Log   *slog.Logger
	Level *slog.LevelVar // of Log; nil: it cannot be changed
}

// Bounds are how much of jobs there may be.
type Bounds struct {
	Keep       time.Duration // ended jobs, unless the job says otherwise
	Grace      time.Duration // between TERM and KILL, likewise
	CaptureMax int64         // octets of each captured stream; a job may have less
	MaxRunning int
}

// Ask is one launch as the limits see it.
type Ask struct {
	Requester uint32 // uid at the other end of the passed connection
	Account   account.Account
	GID       uint32   // the primary group that the job would have
	Env       []string // names that the request sets
	Command   Command
	Nice      int               // that the request asks for; 0: none
	Limits    map[string]uint64 // likewise, by the names of setrlimit(2)
	Own       map[string]uint64 // of these, the hard limits that the launcher itself has
}

// Command is the file that a launch would execute. It is looked for when a method is first called, with the
// launcher's rights; once one was called, the job can execute nothing but that very state of that file.
type Command interface {
	Path() (string, error)   // absolute, links resolved
	SHA256() (string, error) // lower-case hex
}

// Run binds the sockets and serves until ctx ends. Then it stops listening and answering, and leaves running jobs
// alone: they go on, and the next launcher with that state directory takes them up. The sockets stay in the file system.
func Run(ctx context.Context, c Config) error { return run(ctx, c) }
