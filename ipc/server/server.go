// Package server speaks HTTP/1.1 and JSON on the public socket. It knows how
// a request is read and an answer written, with a bound on everything; what
// may be done is the Broker's to say.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"batchwarden/ipc/wire"
	"batchwarden/platform/localsock"
	"batchwarden/platform/lockmem"
	"batchwarden/platform/peer"
)

// Times within which a client has to make progress. A silent or slow client
// holds nothing but its own connection, and not for ever.
const (
	headerTime = 5 * time.Second
	bodyTime   = 15 * time.Second // from the request's first octet; net/http lifts the bound once the body was read
	answerTime = 30 * time.Second // on top of what the request asked to wait
	idleTime   = 2 * time.Minute
	maxHeader  = 16 << 10
	maxFiles   = 3 // descriptors that a request may bring
)

// Broker decides and acts. Every error it returns is a *wire.Problem, save
// what Retrieve says of its delivery.
type Broker interface {
	// Admit lets a request in or says overloaded. One that was let in has to leave.
	Admit(context.Context, *peer.Connection) (leave func(), err error)
	Stranger(*peer.Connection) bool
	Health() wire.Health
	Whoami(context.Context, *peer.Connection) wire.Whoami
	Status(context.Context, *peer.Connection) (wire.Status, error)
	Authorize(ctx context.Context, p *peer.Connection, body *wire.Authorize, explain bool) (wire.Decision, error)
	BatchUsers(context.Context, *peer.Connection) (wire.BatchUsers, error)
	BatchUser(ctx context.Context, p *peer.Connection, name string) (wire.BatchUser, error)
	Retrieve(ctx context.Context, p *peer.Connection, name string, body *wire.Retrieve, deliver func(wire.Secret, *lockmem.Buffer) error) error
	Report(ctx context.Context, p *peer.Connection, name string, body *wire.Report) (wire.Reported, error)
	Verify(ctx context.Context, p *peer.Connection, name string) (wire.Verified, error)
	Launch(ctx context.Context, p *peer.Connection, conn *net.UnixConn, body *wire.Launch, stdio []*os.File) (job wire.Job, again bool, err error)
	Job(ctx context.Context, p *peer.Connection, id string, wait time.Duration) (wire.Job, error)
	Jobs(ctx context.Context, p *peer.Connection, only wire.JobFilter) (wire.Jobs, error)
	Output(ctx context.Context, p *peer.Connection, id, stream string, subject wire.Subject, object json.RawMessage) (*os.File, error)
	Signal(ctx context.Context, p *peer.Connection, id string, body *wire.Signal) (wire.Job, error)
	Forget(ctx context.Context, p *peer.Connection, id string) error
	DryRun(ctx context.Context, p *peer.Connection, conn *net.UnixConn, body *wire.Launch, explain bool, client string) (wire.DryRun, error)
	Events(ctx context.Context, p *peer.Connection, after uint64, wait time.Duration) (wire.Events, error)
	Sync(context.Context, *peer.Connection) (wire.Sync, error)
	// Metrics is a page in Prometheus's text format.
	Metrics(context.Context, *peer.Connection) ([]byte, error)
	Reload(context.Context, *peer.Connection) (wire.Reload, error)
	Suspend(context.Context, *peer.Connection, *wire.Suspend) (wire.Suspension, error)
	Resume(context.Context, *peer.Connection) (wire.Suspension, error)
	// LogLevel changes nothing when body is nil.
	LogLevel(ctx context.Context, p *peer.Connection, body *wire.SetLogLevel) (wire.LogLevel, error)
	// Rekey reads the key from the pipe, which is open until it returns.
	Rekey(ctx context.Context, p *peer.Connection, body *wire.HostKey, key *os.File) (wire.HostKey, error)
}

// Server answers on any number of listeners.
type Server struct {
	broker Broker
	log    *slog.Logger
	http   *http.Server
	seats  *seats
	lent   sync.WaitGroup // passwords that are being handed out: net/http does not wait for connections that were taken over
}

// New returns a server that serves nothing yet.
func New(b Broker, log *slog.Logger) *Server {
	s := &Server{broker: b, log: log, seats: newSeats(b.Stranger)}
	s.http = &http.Server{
		Handler:           s.routes(),
		ReadHeaderTimeout: headerTime,
		ReadTimeout:       bodyTime,
		WriteTimeout:      wire.MaxWait + answerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       connContext,
		ErrorLog:          slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	return s
}

// Serve answers on ln until ctx ends or the listener fails; then it closes ln.
// It returns nil when ctx ended.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	err := s.http.Serve(&bounded{Listener: ln, seats: s.seats})
	if ctx.Err() != nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown lets running requests end, for as long as ctx allows.
func (s *Server) Shutdown(ctx context.Context) error {
	err := errors.Join(s.http.Shutdown(ctx), s.http.Close())
	s.lent.Wait() // each has its own bound
	return err
}

// attested is a connection and who the kernel says opened it. Identity is
// captured once, before a byte is read, and is never asked for again by name
// or pid.
type attested struct {
	conn     *net.UnixConn
	requests *localsock.Requests // the same connection, where descriptors come in
	peer     *peer.Connection
	err      error
	over     bool // it is one too many: it is told so, and closed
}

type connKey struct{}

func connContext(ctx context.Context, c net.Conn) context.Context {
	a := &attested{err: errors.New("not a Unix socket")}
	if s, ok := c.(*seated); ok {
		a = &s.attested
	}
	return context.WithValue(ctx, connKey{}, a)
}
