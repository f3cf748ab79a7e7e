package daemon

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"batchwarden/daemon/audit"
	"batchwarden/ipc/server"
	"batchwarden/ipc/wire"
	"batchwarden/platform/hostkey"
	"batchwarden/platform/lockmem"
	"batchwarden/platform/peer"
	"batchwarden/vault/sealed"
)

// rekeying is the broker that reloads, and beside it the one call that concerns nothing
// but the local vault and its key.
type rekeying struct {
	*reloader
	store *sealed.Store
	arena *lockmem.Arena
	audit *audit.Log
	log   *slog.Logger
}

// Rekey lets the key in the pipe open the local vault too. Root alone may: who
// names the key has to name it in the configuration next, and an operator who
// could add a key of his own would need no more than a copy of the vault's
// file. It is written down before it is done.
func (r *rekeying) Rekey(ctx context.Context, p *peer.Connection, body *wire.HostKey, pipe *os.File) (wire.HostKey, error) {
	was := r.store.Status()
	record := &audit.Record{
		Kind: audit.Rekey, DecisionID: rand.Text(), Verdict: audit.Deny, Operator: true,
		Peer:    &audit.Peer{PID: p.PID, UID: p.UID, GID: p.GID},
		HostKey: &audit.HostKey{OldKind: was.KeyKind, OldID: was.KeyID},
	}
	if p.UID != 0 {
		return wire.HostKey{}, r.refuse(record, wire.NewProblem(wire.CallerForbidden, "only root changes the key of the local vault"))
	}
	key, err := hostkey.Receive(pipe, body.Kind, r.arena)
	if err != nil {
		return wire.HostKey{}, r.refuse(record, wire.Invalid("", "the key could not be taken from the pipe: "+err.Error()))
	}
	defer r.arena.Drop(key.KEK) // the store wraps its own key with it, and does not keep it
	if body.ID != "" && body.ID != key.ID {
		return wire.HostKey{}, r.refuse(record, wire.Invalid("id", fmt.Sprintf("the key in the pipe is %s", key.ID)))
	}
	record.Verdict, record.HostKey.Kind, record.HostKey.ID = audit.Allow, key.Kind, key.ID
	if err := r.audit.Append(record); err != nil {
		r.log.Error("rekey refused: its audit record cannot be written", "err", err)
		return wire.HostKey{}, wire.NewProblem(wire.AuditUnavailable, "the decision could not be written down, so nothing was changed")
	}
	if err := r.store.Rekey(ctx, &sealed.Key{KEK: key.KEK, Kind: key.Kind, ID: key.ID, Host: key.Host}); err != nil {
		r.log.Error("the local vault's key was not changed", "err", err)
		return wire.HostKey{}, r.failed(record, err)
	}
	r.log.Info("another key opens the local vault", "kind", key.Kind, "id", key.ID)
	return wire.HostKey{Kind: key.Kind, ID: key.ID}, nil
}

// refuse notes why nothing was done.
func (r *rekeying) refuse(record *audit.Record, problem *wire.Problem) error {
	record.Code, record.Reason = problem.Code, problem.Detail
	return r.note(record, problem)
}

// failed notes that what was allowed could not be done.
func (r *rekeying) failed(record *audit.Record, err error) error {
	again := *record
	again.Kind, again.Verdict = audit.NotRekeyed, ""
	problem := wire.Invalid("", err.Error()) // root may read all of it
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		problem = wire.NewProblem(wire.Overloaded, "there was no time to change the key: it is what it was")
	case r.store.Status().Unwritable != "":
		problem = wire.NewProblem(wire.LocalVaultUnwritable, err.Error())
	}
	again.Code, again.Reason = problem.Code, err.Error()
	return r.note(&again, problem)
}

// note writes a record of what was not done, for which the caller gets a
// problem anyway.
func (r *rekeying) note(record *audit.Record, problem *wire.Problem) error {
	if err := r.audit.AppendRefusal(record); err != nil {
		r.log.Error("the audit record of a refused rekey cannot be written", "err", err)
	}
	return problem
}

var _ server.Broker = (*rekeying)(nil)
