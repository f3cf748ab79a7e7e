package refresh

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"batchwarden/platform/lockmem"
	"batchwarden/vault/errand"
	"batchwarden/vault/sealed"
)

func unreachable() errand.Report { return errand.Report{Code: errand.Unreachable} }

// secret opens a password as a retrieve does.
func (h *host) secret(name string) string {
	h.t.Helper()
	arena, err := lockmem.New(1)
	if err != nil {
		h.t.Fatal(err)
	}
	defer func() { _ = arena.Close() }()
	var text string
	err = arena.Borrow(h.t.Context(), func(slot *lockmem.Buffer) error {
		if err := h.vault.OpenSecret(h.user(name).Held, slot); err != nil {
			return err
		}
		text = string(slot.Bytes())
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return text
}

// On a full disk all is in force, it is said that it is not written, and every
// attempt tries that again.
func TestAFullDisk(t *testing.T) {
	h := newHost(t)
	h.sync(wholeScope(), batchUser("payroll", 1), batchUser("reports", 1))
	h.disk.full = true

	gone := wholeScope()
	gone.Removed = []errand.Removed{{ID: batchUser("reports", 1).ID, Why: "deleted"}}
	if s := h.sync(gone, batchUser("payroll", 2)); s.Code != NotWritten || s.Detail == "" || !s.OfflineSince.IsZero() || s.Changed != 1 || s.Removed != 1 {
		t.Errorf("%+v", s)
	}
	if h.version("payroll") != 2 || h.version("reports") != 0 || h.secret("payroll") != "password-of-payroll" {
		t.Errorf("payroll %d, reports %d", h.version("payroll"), h.version("reports"))
	}
	for _, report := range []errand.Report{polled(), unreachable()} {
		tried := len(h.disk.changes)
		if s := h.poll(report); s.Code == OK || len(h.disk.changes) != tried+1 {
			t.Errorf("%+v, tried %d times", s, len(h.disk.changes)-tried)
		}
	}
	h.disk.full = false
	if s := h.poll(polled()); s.Code != OK {
		t.Errorf("with room again: %+v", s)
	}
	written := len(h.disk.changes)
	if h.poll(polled()); len(h.disk.changes) != written {
		t.Error("what is on the disk was written once more")
	}
}

// What the vault would never take must not keep the rest from it.
func TestARecordThatTheVaultRefuses(t *testing.T) {
	h := newHost(t)
	h.sync(wholeScope(), batchUser("payroll", 1), batchUser("reports", 1))
	gone := wholeScope()
	gone.Removed = []errand.Removed{{ID: batchUser("reports", 1).ID, Why: "deleted"}}
	gone.Scopes[0].Index = polled().Scopes[0].Index
	h.pass(time.Minute)
	h.brings(gone, batchUser("payroll", 2))
	b, err := h.r.fetch(t.Context(), task{sweep: true})
	if err != nil {
		t.Fatal(err)
	}
	b.report.Token = &sealed.Token{Generation: b.generation} // without a box
	if _, err := h.r.accept(t.Context(), task{sweep: true}, b); err == nil || errors.Is(err, sealed.ErrUnwritten) {
		t.Errorf("got %v, want the vault's refusal", err)
	}
	if h.age("payroll") != time.Minute || len(h.r.indexes) != 0 {
		t.Errorf("%v old, indexes %v: as if it had been looked at", h.age("payroll"), h.r.indexes)
	}
	if h.version("payroll") != 1 || h.version("reports") != 0 {
		t.Errorf("in force: payroll %d, reports %d", h.version("payroll"), h.version("reports"))
	}
	if s := h.sync(wholeScope(), batchUser("payroll", 2)); s.Code != OK {
		t.Errorf("%+v", s)
	}
	h.start()
	if h.version("payroll") != 2 || h.version("reports") != 0 {
		t.Errorf("after the next sync and a restart: payroll %d, reports %d", h.version("payroll"), h.version("reports"))
	}
}

// A token that goes ahead is there for the next worker, whatever becomes of the
// run that it came from.
func TestATokenThatGoesAhead(t *testing.T) {
	for name, a := range map[string]answer{
		"the login fails then":           {early: true, report: errand.Report{Code: errand.LoginRefused}},
		"the worker ends without a word": {early: true, silent: true},
		"the old one is kept":            {early: true, report: errand.Report{Code: OK, KeepToken: true}},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			h.worker.answer = func(*errand.Task) (answer, error) { return a, nil }
			h.r.attempt(t.Context(), task{sweep: true})
			h.start() // the daemon is cut off
			h.sync(wholeScope())
			if h.worker.had != "early token" {
				t.Errorf("the next worker got %q", h.worker.had)
			}
		})
	}
}

// A poll that finds nothing writes nothing; what it learns of the clock and of
// Vault's last word is written now and then.
func TestAQuietPollWritesNothing(t *testing.T) {
	h := newHost(t)
	h.sync(wholeScope(), batchUser("payroll", 1))
	written, changed := len(h.disk.changes), h.changed
	generation := h.orders().Generation
	for range 4 {
		h.pass(time.Minute)
		h.poll(polled())
	}
	if len(h.disk.changes) != written || h.changed != changed {
		t.Errorf("%d changes were written, %d snapshots came into force", len(h.disk.changes)-written, h.changed-changed)
	}
	if next := h.orders().Generation; next != generation+1 {
		t.Errorf("batch %d, want %d, which nothing was sealed with", next, generation+1)
	}
	h.pass(time.Minute)
	h.poll(polled())
	if len(h.disk.changes) != written+1 {
		t.Fatalf("%d changes were written after five minutes, want one", len(h.disk.changes)-written)
	}
	if c := h.disk.changes[written]; len(c.Put)+len(c.Opened)+len(c.Remove) > 0 || c.Token != nil || !json.Valid(c.State) {
		t.Errorf("written: %+v", c)
	}
	changes := len(h.disk.changes)
	h.poll(polled(), batchUser("payroll", 2))
	if len(h.disk.changes) != changes+1 {
		t.Errorf("a changed password was written in %d changes, want one", len(h.disk.changes)-changes)
	}
}
