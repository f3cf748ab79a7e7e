package daemon

import (
	"context"
	"errors"
	"os"
	"strings"
	"sync/atomic"

	"batchwarden/daemon/broker"
	"batchwarden/ipc/wire"
	"batchwarden/platform/launch"
	"batchwarden/vault/refresh"
	"batchwarden/vault/sealed"
	"batchwarden/vault/snapshot"
)

// worker lets the launcher run the sync worker, and gives its errors codes
// that an operator finds in status.
type worker struct{ launcher *launch.Launcher }

func (w worker) Sync(ctx context.Context, stdin, stdout *os.File) error {
	err := w.launcher.Sync(ctx, stdin, stdout)
	var refused *launch.Refused
	if errors.As(err, &refused) {
		return codedError{refused.Code, err}
	}
	return err
}

// codedError is an error with a stable code.
type codedError struct {
	code string
	error
}

// Problem is the code.
func (e codedError) Problem() string { return e.code }
func (e codedError) Unwrap() error   { return e.error }

// syncer shows the refresher to the broker in the words of the API.
type syncer struct {
	refresher *refresh.Refresher
	address   func() string
}

func (s syncer) Sync(ctx context.Context) (wire.Sync, error) {
	state, err := s.refresher.Sync(ctx)
	if err != nil {
		return wire.Sync{}, wire.NewProblem(wire.Overloaded, "the sync did not end in time; it goes on")
	}
	return s.wire(state), nil
}

func (s syncer) Status() wire.Sync { return s.wire(s.refresher.State()) }

func (s syncer) Report(ctx context.Context, id snapshot.ID, version int64, accepted bool) (wire.Reported, bool, error) {
	v, err := s.refresher.Report(ctx, refresh.Verdict{ID: id, Version: version, Accepted: accepted})
	if err != nil {
		return wire.Reported{}, false, wire.NewProblem(wire.Overloaded, "the report was taken, and what follows was not in force in time")
	}
	return wire.Reported{Newer: v.Newer, Version: v.Current}, v.Known, nil
}

func (s syncer) Begin(ctx context.Context, id snapshot.ID, version int64) (broker.Attempt, bool, error) {
	a, first, err := s.refresher.Begin(ctx, id, version)
	switch {
	case errors.Is(err, refresh.ErrOther):
		return broker.Attempt{}, false, wire.NewProblem(wire.Overloaded, "the password was replaced this moment; ask again")
	case ctx.Err() != nil:
		return broker.Attempt{}, false, wire.NewProblem(wire.Overloaded, "a sync is going on, and no password was tried")
	case err != nil:
		return broker.Attempt{}, false, wire.NewProblem(wire.LocalVaultUnwritable, "that the password is tried could not be written down, so it was not: "+err.Error())
	}
	return broker.Attempt(a), first, nil
}

func (s syncer) Conclude(ctx context.Context, id snapshot.ID, version int64, outcome string) error {
	return s.refresher.Conclude(ctx, id, version, outcome)
}

func (s syncer) wire(state refresh.State) wire.Sync {
	w := wire.Sync{
		Outcome: state.Code, Detail: state.Detail, Address: s.address(), LastSuccess: state.LastSuccess, LastAttempt: state.LastAttempt,
		LastSweep: state.LastSweep, NextAttempt: state.NextAttempt, OfflineSince: state.OfflineSince,
		Changed: state.Changed, Removed: state.Removed, Requests: state.Requests, Arrived: state.Arrived, TokenExpires: state.TokenExpires, SecretID: (*wire.SecretID)(state.SecretID),
	}
	for _, f := range state.Faults {
		w.Faults = append(w.Faults, wire.Finding{Code: "document.refused", Path: f.Path, Detail: f.Detail})
	}
	return w
}

// lateSyncer stands in while the parts are assembled: the broker needs a
// syncer, and the refresher needs the broker.
type lateSyncer struct{ p atomic.Pointer[syncer] }

func (l *lateSyncer) set(s syncer) { l.p.Store(&s) }

func (l *lateSyncer) Sync(ctx context.Context) (wire.Sync, error) { return l.p.Load().Sync(ctx) }

func (l *lateSyncer) Status() wire.Sync {
	if s := l.p.Load(); s != nil {
		return s.Status()
	}
	return wire.Sync{Outcome: refresh.Pending}
}

func (l *lateSyncer) Report(ctx context.Context, id snapshot.ID, version int64, accepted bool) (wire.Reported, bool, error) {
	return l.p.Load().Report(ctx, id, version, accepted)
}

func (l *lateSyncer) Begin(ctx context.Context, id snapshot.ID, version int64) (broker.Attempt, bool, error) {
	return l.p.Load().Begin(ctx, id, version)
}

func (l *lateSyncer) Conclude(ctx context.Context, id snapshot.ID, version int64, outcome string) error {
	return l.p.Load().Conclude(ctx, id, version, outcome)
}

func (l *lateSyncer) wentBack() string {
	if s := l.p.Load(); s != nil {
		return s.refresher.State().WentBack
	}
	return ""
}

func localVault(s sealed.Status, wentBack string) wire.LocalVault {
	w := wire.LocalVault{
		Records: s.Records, Bytes: s.Bytes, Key: s.KeyKind, KeyID: s.KeyID, Quarantined: len(s.Quarantined), Error: strings.Join(s.Faults, "; "),
		Foreign: foreign(s), WentBack: wentBack,
	}
	if s.Unwritable != "" {
		w.Unwritable = "the last change could not be written, so this machine goes on from memory, and after a restart without Vault from what was written before: " + s.Unwritable
	}
	return w
}

// foreign says that another machine's vault was found; "" when none was.
func foreign(s sealed.Status) string {
	if s.Foreign == "" {
		return ""
	}
	return "the local vault that was found here belongs to another machine (" + s.Foreign + "): it was set aside unopened, and everything is read from Vault anew"
}
