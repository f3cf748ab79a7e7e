// Package broker turns one request into one decision, one audit record and at
// most one process or one secret handed out.
//
// launch.go tells the whole story of a job from top to bottom; retrieve.go and
// authorize.go are shorter ones. They share the steps: who is asking
// (caller.go), what is known (view.go), what is asked and whether the policy
// allows it (question.go).
package broker

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/config"
	"batchwarden/daemon/policy"
	"batchwarden/ipc/wire"
	"batchwarden/platform/account"
	"batchwarden/platform/launch"
	"batchwarden/platform/lockmem"
	"batchwarden/platform/peer"
	"batchwarden/vault/snapshot"
)

// Launcher starts jobs and knows them; *launch.Launcher.
type Launcher interface {
	Attest(ctx context.Context, conn *net.UnixConn, want peer.Want) (peer.Attested, error)
	Start(ctx context.Context, requester *net.UnixConn, s launch.Spec, stdio ...*os.File) (job launch.Job, again bool, err error)
	Job(ctx context.Context, owner, id string, wait time.Duration) (launch.Job, error)
	Jobs(ctx context.Context, owner string) ([]launch.Job, error)
	Ended(ctx context.Context, after uint64) ([]launch.Job, error)
	Output(ctx context.Context, owner, id, stream string) (*os.File, error)
	Signal(ctx context.Context, owner, id, signal string, grace time.Duration) (launch.Job, error)
	Forget(ctx context.Context, owner, id string, serial uint64) error
	Check(ctx context.Context, requester *net.UnixConn, s launch.Spec, as *uint32) ([]launch.Check, error)
	Verify(ctx context.Context, v launch.Verify, password *os.File) (launch.Verified, error)
	Resolve(ctx context.Context, n launch.Names) (launch.Numbers, error)
	LogLevel(ctx context.Context, name string) (now string, err error)
	Status() launch.Status
}

// Secrets opens a batch user's password into locked memory; *sealed.Store.
type Secrets interface {
	OpenSecret(u *snapshot.Held, into *lockmem.Buffer) error
}

// Syncer brings what this machine knows up to date; *refresh.Refresher.
type Syncer interface {
	Sync(ctx context.Context) (wire.Sync, error)
	Status() wire.Sync
	// Report takes how a version of a password did where it was used. False:
	// there is no such batch user any more.
	Report(ctx context.Context, id snapshot.ID, version int64, accepted bool) (wire.Reported, bool, error)
	// Begin writes down that a version of a password is about to be tried on this
	// machine, and returns when, with first; or the earlier attempt. An error is
	// a *wire.Problem.
	Begin(ctx context.Context, id snapshot.ID, version int64) (a Attempt, first bool, err error)
	// Conclude keeps what came of it; "": nothing was tried.
	Conclude(ctx context.Context, id snapshot.ID, version int64, outcome string) error
}

// Attempt is the one time that a version of a password was tried.
type Attempt struct {
	At      time.Time
	Outcome string // wire.Accepted or wire.Rejected; "" when nobody knows
}

// Monitor measures, and tells monitoring what it wants to know; *metrics.Metrics.
type Monitor interface {
	// LaunchStep is told how long a step of a launch took, by the names in monitor.go.
	LaunchStep(step string, took time.Duration)
	// Page is everything, as Prometheus reads it.
	Page() ([]byte, error)
	// Unwritten says why it could not be left where the configuration wants it; "" when it is there.
	Unwritten() string
}

// Parts is what a broker is assembled from.
type Parts struct {
	Config   *config.Config // at first; Adopt puts another one in its place
	Models   map[string]policy.Model
	Audit    *audit.Log
	Launcher Launcher
	Secrets  Secrets
	Arena    *lockmem.Arena
	Syncer   Syncer
	Local    func() wire.LocalVault // the state of the local vault
	Memory   func() wire.Memory     // the state of the locked memory
	Clock    Clock
	Monitor  Monitor // nil: nobody measures
	Version  string
	Log      *slog.Logger
	Level    *slog.LevelVar // of Log

	// Suspension is the one that an earlier start left behind, or nil; KeepSuspension puts a new one, or that there is
	// none, where the next start finds it.
	Suspension     *wire.Suspension
	KeepSuspension func(*wire.Suspension) error
}

// Clock tells the time that ages and expiries are judged by; *refresh.Clock.
type Clock interface {
	Now() time.Time
	Behind() time.Duration // the wall clock, behind Now
}

// Broker decides. Its methods may be called from any goroutine.
type Broker struct {
	Parts
	view    atomic.Pointer[view] // all that is in force, swapped whole
	started time.Time
	events  *events
	ends    position // of the journal, in the audit

	changing sync.Mutex    // held while the next view is made of the last
	unnamed  chan struct{} // there are names that nobody has resolved yet

	amiss atomic.Pointer[[]wire.Finding] // with the configuration's files

	steering   sync.Mutex // held while the suspension changes
	suspension atomic.Pointer[wire.Suspension]
}

// New assembles a broker that knows nothing yet: until Activate it denies
// everything. Names of accounts in the client entries are looked up now in this
// host's files, and by WatchNames wherever the system has them.
func New(p Parts) *Broker {
	b := &Broker{Parts: p, started: time.Now(), events: newEvents(p.Clock.Now()), unnamed: make(chan struct{}, 1)}
	b.suspension.Store(p.Suspension)
	b.view.Store(&view{
		config: p.Config, callers: newCallers(p.Config, namesIn(p.Config).In(account.System()), nil), known: snapshot.New(p.Config.Machine, nil),
	})
	return b
}

// Config is the configuration in force. Whatever serves a request goes by its caller's view instead, so that it sees one
// configuration from its beginning to its end.
func (b *Broker) Config() *config.Config { return b.view.Load().config }

// newDecisionID names one decision: unique, unpredictable, and the thread that
// runs through answer, audit and journal.
func newDecisionID() string { return rand.Text() }
