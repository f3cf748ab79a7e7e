package refresh

import (
	"context"
	"slices"
	"testing"
	"time"

	"batchwarden/vault/errand"
	"batchwarden/vault/snapshot"
)

// report is what Report does, without Run.
func (h *host) report(name string, version int64, accepted bool) Verdict {
	h.t.Helper()
	q := &verdict{Verdict{ID: batchUser(name, 1).ID, Version: version, Accepted: accepted}, make(chan Verdict, 1)}
	h.r.judgeReports(h.t.Context(), []*verdict{q})
	return <-q.reply
}

func TestARejectedPassword(t *testing.T) {
	h := newHost(t)
	h.sync(wholeScope(), batchUser("payroll", 3), batchUser("reports", 1))
	id := batchUser("payroll", 1).ID
	runs := func() int { return len(h.worker.tasks) }
	open := func() bool { return !h.user("payroll").Rejected.IsZero() }

	t.Run("an older version than the one in force", func(t *testing.T) {
		before := runs()
		if v := h.report("payroll", 2, false); !v.Known || !v.Newer || v.Current != 3 || runs() != before || open() {
			t.Errorf("%+v, %d runs, open %v", v, runs()-before, open())
		}
	})
	t.Run("Vault has a newer one", func(t *testing.T) {
		h.brings(polled(), batchUser("payroll", 4))
		v := h.report("payroll", 3, false)
		if !v.Newer || v.Current != 4 || open() {
			t.Errorf("%+v, open %v", v, open())
		}
		if o := h.orders(); !slices.Equal(o.Only, []snapshot.ID{id}) || len(o.Sources) != 0 || o.Sweep {
			t.Errorf("told: %+v", o)
		}
	})
	t.Run("Vault has no newer one", func(t *testing.T) {
		h.brings(polled())
		before := runs()
		for range 3 {
			if v := h.report("payroll", 4, false); v.Newer || v.Current != 4 || !open() {
				t.Errorf("%+v, open %v", v, open())
			}
		}
		if runs() != before+1 {
			t.Errorf("Vault was asked %d times, want once", runs()-before)
		}
		if !h.user("reports").Rejected.IsZero() {
			t.Error("another one is rejected too")
		}
		since := h.user("payroll").Rejected
		h.pass(time.Hour)
		h.poll(polled())
		h.start() // cut off
		if !open() || !h.user("payroll").Rejected.Equal(since) {
			t.Errorf("after a restart: rejected since %v, want %v", h.user("payroll").Rejected, since)
		}
		h.sync(wholeScope())
		if !open() {
			t.Error("a sweep of our own closed it")
		}
	})
	t.Run("a newer one closes it", func(t *testing.T) {
		h.poll(polled(), batchUser("payroll", 5))
		if open() {
			t.Error("open")
		}
		h.restart()
		if open() {
			t.Error("open after a restart")
		}
	})
	t.Run("somebody finds it accepted", func(t *testing.T) {
		h.brings(polled())
		h.report("payroll", 5, false)
		if v := h.report("payroll", 4, true); !open() || !v.Newer {
			t.Errorf("an older version accepted: %+v, open %v", v, open())
		}
		if v := h.report("payroll", 5, true); open() || v.Newer || v.Current != 5 {
			t.Errorf("%+v, open %v", v, open())
		}
		h.start()
		if open() {
			t.Error("open after a restart")
		}
	})
	t.Run("an operator's sync gives it another chance", func(t *testing.T) {
		h.brings(polled())
		h.report("payroll", 5, false)
		h.r.forgive()
		if open() {
			t.Error("open")
		}
		before := runs()
		if h.report("payroll", 5, false); runs() != before+1 || !open() {
			t.Errorf("rejected again: %d runs, open %v", runs()-before, open())
		}
		h.r.forgive()
		h.send(task{sweep: true}, unreachable())
		h.start()
		if open() {
			t.Error("open after a restart, Vault being away")
		}
	})
	t.Run("Vault is away", func(t *testing.T) {
		h.brings(unreachable())
		if v := h.report("payroll", 5, false); v.Newer || !open() {
			t.Errorf("%+v, open %v: whether or not Vault is there, the account must not be locked", v, open())
		}
		h.report("payroll", 5, true)
	})
	t.Run("our login is refused", func(t *testing.T) {
		h.poll(errand.Report{Code: errand.LoginRefused})
		before := runs()
		if v := h.report("payroll", 5, false); v.Newer || !open() || runs() != before {
			t.Errorf("%+v, open %v, %d runs: want no further login", v, open(), runs()-before)
		}
		h.poll(wholeScope())
	})
	t.Run("Vault has it no more", func(t *testing.T) {
		h.report("payroll", 5, true)
		gone := polled()
		gone.Removed = []errand.Removed{{ID: id}}
		h.brings(gone)
		if v := h.report("payroll", 5, false); v.Known {
			t.Errorf("%+v", v)
		}
		if v := h.report("nobody", 1, false); v.Known {
			t.Errorf("one that was never there: %+v", v)
		}
	})
}

// A look because of a report says nothing about how this machine stands with
// Vault, and moves no poll.
func TestALookLeavesTheStateAlone(t *testing.T) {
	h := newHost(t)
	part := errand.Report{Code: errand.Forbidden, Scopes: []errand.Scope{{Scope: scope, Code: OK, Read: true}, {Scope: "groups/x", Code: errand.Forbidden}}}
	before := h.sync(part, batchUser("payroll", 1))
	h.pass(time.Second)
	h.brings(polled())
	h.report("payroll", 1, false)
	after := h.State()
	if after.Code != errand.Forbidden || !after.NextAttempt.Equal(before.NextAttempt) || !after.LastAttempt.Equal(before.LastAttempt) || after.OfflineSince.IsZero() {
		t.Errorf("before %+v, after %+v", before, after)
	}
	if len(h.r.indexes) != 0 {
		t.Errorf("it noted the index: %v", h.r.indexes)
	}
}

func TestARejectedPasswordWithASource(t *testing.T) {
	h := newHost(t)
	h.sync(wholeScope(), sourced("payroll", 4, time.Time{}))
	h.brings(polled(), sourced("payroll", 5, time.Time{}))
	v := h.report("payroll", 4, false)
	if o := h.orders(); !slices.Equal(o.Sources, o.Only) || len(o.Only) != 1 {
		t.Errorf("told: %+v", o)
	}
	if !v.Newer || v.Current != 5 {
		t.Errorf("%+v, want the next turn", v)
	}
	h.brings(polled())
	h.report("payroll", 5, false)
	if h.user("payroll").Rejected.IsZero() {
		t.Error("not rejected")
	}
	h.poll(polled(), sourced("payroll", 6, time.Time{})) // of the same version of the document
	if !h.user("payroll").Rejected.IsZero() {
		t.Error("the next turn is rejected too")
	}
}

// Many callers with the same bad password are one look at Vault.
func TestReportsAtOnce(t *testing.T) {
	h := newHost(t)
	h.sync(wholeScope(), batchUser("payroll", 1))
	h.brings(polled())
	before := len(h.worker.tasks)
	ctx, cancel := context.WithCancel(t.Context())
	h.options.Interval = time.Hour
	ended := make(chan error, 1)
	answers := make(chan Verdict, 20)
	for range cap(answers) {
		go func() {
			v, err := h.r.Report(ctx, Verdict{ID: batchUser("payroll", 1).ID, Version: 1})
			if err != nil {
				t.Error(err)
			}
			answers <- v
		}()
	}
	go func() { ended <- h.r.Run(ctx) }()
	for range cap(answers) {
		if v := <-answers; !v.Known || v.Newer {
			t.Errorf("%+v", v)
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	looks := 0
	for _, o := range h.worker.tasks[before:] {
		if len(o.Only) > 0 {
			looks++
		}
	}
	if looks != 1 {
		t.Errorf("%d looks, want one", looks)
	}
	if _, err := h.r.Report(ctx, Verdict{}); err == nil {
		t.Error("no error after the end")
	}
}

// A local vault that is older than one that was here before is a problem until
// everything was compared with Vault.
func TestTheVaultGoesBack(t *testing.T) {
	h := newHost(t)
	h.sync(wholeScope(), batchUser("payroll", 1))
	h.poll(polled())
	if s := h.poll(polled()); s.WentBack != "" || h.witness.highest != h.vault.Status().Commits || len(h.noticed) != 0 {
		t.Fatalf("%+v, witness %d at change %d", s, h.witness.highest, h.vault.Status().Commits)
	}
	h.witness.highest += 5
	h.witness.away = true
	h.start()
	if s := h.sync(wholeScope()); s.WentBack != "" {
		t.Errorf("with nobody to ask: %q", s.WentBack)
	}
	h.witness.away = false
	h.start()
	for range 2 {
		if s := h.send(task{sweep: true}, unreachable()); s.WentBack == "" {
			t.Error("nothing is said")
		}
	}
	if !slices.Equal(h.noticed, []string{WentBack}) {
		t.Errorf("noticed %q, want it once", h.noticed)
	}
	h.start()
	if s := h.poll(errand.Report{Code: errand.Forbidden, Scopes: []errand.Scope{{Scope: scope, Code: errand.Forbidden}}}); s.WentBack == "" {
		t.Error("after a restart nothing is said")
	}
	if s := h.sync(wholeScope()); s.WentBack != "" || h.witness.highest != h.vault.Status().Commits {
		t.Errorf("after a sweep: %q, witness %d at change %d", s.WentBack, h.witness.highest, h.vault.Status().Commits)
	}
	h.restart()
	if s := h.sync(wholeScope()); s.WentBack != "" {
		t.Errorf("after a sweep and a restart: %q", s.WentBack)
	}
}
