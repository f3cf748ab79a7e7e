package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"batchwarden/daemon/broker"
	"batchwarden/ipc/wire"
	"batchwarden/platform/launch"
	"batchwarden/platform/localsock"
	"batchwarden/platform/lockmem"
	"batchwarden/platform/peer"
)

// Bounds of what systemd is answered with. It asks by connecting and sends
// nothing, so there is nothing to wait for but ourselves and its reading.
const (
	askedTime     = 15 * time.Second // from the connection to its end
	handedTime    = time.Second      // for reading the password
	maxAsked      = 16               // connections at one time; more wait to be accepted
	acceptedAgain = 100 * time.Millisecond
)

// credentials answers systemd, which connects for LoadCredential=ID:SOCKET and
// reads until the end; the audit file and the log say what became of it.
//
// Whoever is refused reads nothing, save systemd: it would take nothing for an
// empty password, and start the unit with that. It reads more than a credential
// may have, and does not start the unit.
type credentials struct {
	launcher *launch.Launcher
	broker   *broker.Broker
	log      *slog.Logger
	sessions chan struct{} // one that nobody has looked at yet
}

func newCredentials(l *launch.Launcher, b *broker.Broker, log *slog.Logger) *credentials {
	return &credentials{launcher: l, broker: b, log: log, sessions: make(chan struct{}, 1)}
}

// session says that the launcher has connected: it has bound its socket anew.
func (c *credentials) session() {
	select {
	case c.sessions <- struct{}{}:
	default: // that is known already
	}
}

// run serves the socket of the latest session until ctx ends.
func (c *credentials) run(ctx context.Context) error {
	var serving sync.WaitGroup
	defer serving.Wait()
	end := func() {}
	defer func() { end() }()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-c.sessions:
		}
		door, err := c.launcher.SystemdSocket(ctx)
		if err != nil {
			c.log.Error("systemd_socket is not served", "err", err)
			continue
		}
		end()
		doorCtx, cancel := context.WithCancel(ctx)
		end = cancel
		serving.Go(func() { c.serve(doorCtx, door) }) // ends with doorCtx
	}
}

// serve answers on the listener until ctx ends, and closes it.
func (c *credentials) serve(ctx context.Context, door *net.UnixListener) {
	stop := context.AfterFunc(ctx, func() { _ = door.Close() }) // ends the accept below
	defer stop()
	var answering sync.WaitGroup
	defer answering.Wait()
	seats := make(chan struct{}, maxAsked)
	for {
		select {
		case seats <- struct{}{}:
		case <-ctx.Done():
			return
		}
		conn, err := door.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = conn.Close() // it has been told nothing
			}
			return
		case err != nil:
			c.log.Error("systemd_socket: accept", "err", err)
			<-seats
			select {
			case <-ctx.Done():
			case <-time.After(acceptedAgain): // out of descriptors, most likely
			}
			continue
		}
		answering.Go(func() { // ends within askedTime
			defer func() { <-seats }()
			c.answer(ctx, conn)
		})
	}
}

// answer is one connection.
func (c *credentials) answer(ctx context.Context, conn *net.UnixConn) {
	defer conn.Close() // the password has been written, or the error says so
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askedTime)
	defer cancel()
	at, err := c.launcher.Attest(ctx, conn, peer.Want{Program: true, Named: true})
	if err != nil {
		at.Peer, _ = peer.Of(conn) // for the audit record; the refusal stands
	}
	systemd, err := c.broker.Credential(ctx, at, err, func(_ wire.Secret, password *lockmem.Buffer) error {
		if err := conn.SetDeadline(time.Now().Add(handedTime)); err != nil {
			return err
		}
		return localsock.WriteSecret(conn, nil, password)
	})
	if err == nil {
		return
	}
	var refusal *wire.Problem
	if errors.As(err, &refusal) {
		if systemd {
			c.refuse(conn)
		}
		c.log.Warn("credential refused", "code", refusal.Code, "reason", refusal.Detail, "pid", at.PID, "decision_id", refusal.DecisionID)
		return
	}
	c.log.Warn("credential not delivered", "pid", at.PID, "err", err)
}

// refuse sends more than a credential may have, which systemd refuses in turn.
func (c *credentials) refuse(conn *net.UnixConn) {
	const most = 1 << 20 // CREDENTIALS_TOTAL_SIZE_MAX: of all credentials of a unit, since there are any
	if err := conn.SetDeadline(time.Now().Add(handedTime)); err != nil {
		return // it is closed next
	}
	text := bytes.Repeat([]byte("batchwarden refuses this credential; its log says why\n"), 1200)
	for sent := 0; sent <= most; sent += len(text) {
		if _, err := conn.Write(text); err != nil {
			return // it knows enough: systemd closes after the first octet too many
		}
	}
}
