package refresh

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"batchwarden/vault/errand"
	"batchwarden/vault/snapshot"
)

// polled is a report of a poll: nothing else than the index was looked at.
func polled() errand.Report {
	return errand.Report{Code: OK, Scopes: []errand.Scope{{Scope: scope, Code: OK, Index: &errand.Index{Scope: scope, Version: 7, Created: created}}}}
}

func TestDelay(t *testing.T) {
	r := &Refresher{}
	r.set.Store(&Settings{Interval: 30 * time.Second})
	within := func(code string, want time.Duration) {
		t.Helper()
		if d := r.delay(code); d < want*9/10 || d > want {
			t.Errorf("after %s: %s, want about %s", code, d, want)
		}
	}
	within(OK, 30*time.Second)
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		within("vault.unreachable", want*time.Second)
	}
	within(OK, 30*time.Second)
	within("vault.unreachable", time.Second)
	for _, refusal := range []string{errand.LoginRefused, errand.WrappedUsed} {
		for range 20 {
			r.delay(refusal)
		}
		within(refusal, 300*time.Second)
	}
}

func TestWhenToSweep(t *testing.T) {
	h := newHost(t)
	sweeps := func(when string, want bool) {
		t.Helper()
		if got := h.r.due(h.r.o.Clock.Now()).sweep; got != want {
			t.Errorf("%s: sweep %v, want %v", when, got, want)
		}
	}
	sweeps("at the start", true)
	h.poll(errand.Report{Code: errand.Unreachable})
	sweeps("Vault was not there", true)
	h.poll(wholeScope())
	sweeps("everything was seen", false)
	h.pass(53 * time.Minute)
	sweeps("53 minutes later", false)
	h.pass(7 * time.Minute)
	sweeps("an hour later", true)

	t.Run("a part of it failed: soon again, then less often", func(t *testing.T) {
		part := errand.Report{Code: errand.Forbidden, Scopes: []errand.Scope{{Scope: scope, Code: errand.Forbidden}}}
		for _, wait := range []time.Duration{1, 2, 4, 8} {
			h.sync(part)
			if got := h.r.sweepAt().Sub(h.wall); got != wait*time.Second {
				t.Errorf("the next sweep in %v, want %v", got, wait*time.Second)
			}
			h.pass(wait * time.Second)
		}
		for range 40 {
			h.sync(part)
		}
		if got := h.r.sweepAt().Sub(h.wall); got != time.Hour {
			t.Errorf("the next sweep in %v, want an hour", got)
		}
		sweeps("a part fails for long", false)
		h.sync(wholeScope())
	})
	t.Run("polls never let anything become stale", func(t *testing.T) {
		short := batchUser("short", 1)
		short.BatchUser.MaxStale = 30 * time.Minute
		h.sync(wholeScope(), short)
		h.pass(8 * time.Minute)
		sweeps("8 of 30 minutes", false)
		h.pass(2 * time.Minute)
		sweeps("10 of 30 minutes", true)
		short.Version, short.BatchUser.MaxStale = 2, time.Nanosecond
		h.sync(wholeScope(), short)
		sweeps("no document makes us sweep all the time", false)
		h.pass(mostSweeps)
		sweeps("but every few seconds", true)
	})
	t.Run("a policy that must be confirmed often", func(t *testing.T) {
		h.options.PolicyMaxStale = 3 * time.Minute
		h.restart()
		h.sync(wholeScope())
		h.pass(time.Minute)
		sweeps("a third of policy_max_stale", true)
	})
}

// A scope that cannot be listed stays a trouble between two sweeps: polls, which only ask for its index, used to make
// the state "ok" again.
func TestTroubleOfASweepStays(t *testing.T) {
	h := newHost(t)
	h.sync(wholeScope())
	h.sync(errand.Report{Code: errand.Forbidden, Detail: "no list", Scopes: []errand.Scope{{Scope: scope, Code: errand.Forbidden}}})
	for range 3 {
		h.pass(30 * time.Second)
		if s := h.send(task{}, polled()); s.Code != errand.Forbidden || s.Detail != "no list" || s.OfflineSince.IsZero() {
			t.Errorf("after a poll: %q %q, want the sweep's trouble", s.Code, s.Detail)
		}
	}
	if s := h.sync(wholeScope()); s.Code != OK || !s.OfflineSince.IsZero() {
		t.Errorf("after a whole sweep: %q", s.Code)
	}
	if s := h.send(task{}, polled()); s.Code != OK {
		t.Errorf("after another poll: %q", s.Code)
	}
}

func TestWhatThePollIsTold(t *testing.T) {
	h := newHost(t)
	h.sync(wholeScope(), batchUser("payroll", 1), policyDoc("good", 1))
	x := polled()
	h.poll(x)
	fault := polled()
	fault.Faults = []errand.Fault{
		{Path: batchUser("bad", 1).ID.String(), Detail: "no username", Version: 5, Created: created},
		{Path: batchUser("away", 1).ID.String(), Detail: "503"},
	}
	if s := h.poll(fault, policyDoc("faulty", 2)); len(s.Faults) != 3 {
		t.Errorf("faults: %+v", s.Faults)
	}
	s := h.poll(polled())
	o := h.orders()
	if o.Sweep || o.Held[scope] != 2 || !slices.Equal(o.Indexes, []errand.Index{*x.Scopes[0].Index}) {
		t.Errorf("told: %+v", o)
	}
	byPath := map[string]errand.Refused{}
	for _, f := range o.Refused {
		byPath[f.ID.String()] = f
	}
	if len(byPath) != 2 || byPath["machines/db01/batch_users/bad"].Version != 5 || byPath["machines/db01/policies/opcon"].Version != 2 {
		t.Errorf("refused: %+v", o.Refused)
	}
	if len(s.Faults) != 3 {
		t.Errorf("a poll forgot faults: %+v", s.Faults)
	}
	t.Run("a document that was mended is no fault any more", func(t *testing.T) {
		if s := h.poll(polled(), policyDoc("better", 3)); len(s.Faults) != 2 {
			t.Errorf("faults: %+v", s.Faults)
		}
		h.poll(polled())
		if o := h.orders(); len(o.Refused) != 1 {
			t.Errorf("refused: %+v", o.Refused)
		}
	})
	t.Run("a sweep says what the faults are", func(t *testing.T) {
		if s := h.sync(wholeScope()); len(s.Faults) != 0 {
			t.Errorf("faults: %+v", s.Faults)
		}
		h.poll(polled())
		if o := h.orders(); len(o.Refused) != 0 || len(o.Indexes) != 0 {
			t.Errorf("told: %+v", o)
		}
	})
	t.Run("a scope that could not be read keeps its index", func(t *testing.T) {
		h.poll(polled())
		h.poll(errand.Report{Code: errand.Error, Scopes: []errand.Scope{{Scope: scope, Code: errand.Error}}})
		h.poll(unreachable())
		h.poll(polled())
		if o := h.orders(); len(o.Indexes) != 1 {
			t.Errorf("told: %+v", o)
		}
	})
	t.Run("a new start looks at everything", func(t *testing.T) {
		h.restart()
		h.poll(wholeScope())
		if o := h.orders(); !o.Sweep || len(o.Refused) != 0 || len(o.Indexes) != 0 {
			t.Errorf("told: %+v", o)
		}
	})
}

// Only a sweep confirms a scope; what a poll read by itself is confirmed alone.
func TestWhatAPollConfirms(t *testing.T) {
	h := newHost(t)
	h.sync(wholeScope(), batchUser("payroll", 1), batchUser("reports", 1))
	h.pass(10 * time.Minute)
	h.poll(polled(), batchUser("payroll", 2))
	ages := func(when string, payroll, reports time.Duration) {
		t.Helper()
		if h.age("payroll") != payroll || h.age("reports") != reports {
			t.Errorf("%s: payroll %v, reports %v, want %v and %v", when, h.age("payroll"), h.age("reports"), payroll, reports)
		}
	}
	ages("after a poll", 0, 10*time.Minute)
	h.restart()
	ages("after a restart", 0, 10*time.Minute)
	h.pass(time.Minute)
	h.poll(polled())
	ages("after the next poll", time.Minute, 11*time.Minute)
	h.sync(wholeScope())
	ages("after a sweep", 0, 0)
	fault := polled()
	fault.Faults = []errand.Fault{{Path: batchUser("payroll", 3).ID.String(), Detail: "x", Version: 3, Created: created}}
	h.pass(time.Minute)
	h.poll(fault)
	fault.Scopes[0].Read = true
	h.pass(time.Minute)
	h.sync(fault)
	ages("a newer one is refused", 2*time.Minute, 0)
	h.pass(time.Minute)
	h.poll(polled(), batchUser("payroll", 4))
	ages("and mended", 0, time.Minute)
}

func sourced(name string, number int64, rotates time.Time) entry {
	e := batchUser(name, 1)
	e.BatchUser.Source, e.Turn, e.Rotates, e.Mark = "ldap/static-cred/"+name, number, rotates, []byte{byte(number)}
	return e
}

// A password that is announced to be replaced is looked for then, and again
// until it was.
func TestSourcesAreReadWhenTheyTurn(t *testing.T) {
	h := newHost(t)
	rotates := h.wall.Add(20 * time.Minute)
	h.sync(wholeScope(), sourced("payroll", 1, rotates), sourced("reports", 1, h.wall.Add(100*time.Hour)), batchUser("plain", 1))
	id := sourced("payroll", 1, rotates).ID
	due := func() []snapshot.ID { return h.r.due(h.r.o.Clock.Now()).sources }
	if len(due()) != 0 {
		t.Errorf("at once: %v", due())
	}
	h.pass(20*time.Minute - 10*time.Second)
	if s := h.poll(polled()); s.NextAttempt != rotates.Add(turned) {
		t.Errorf("next attempt %v after the rotation, want %v", s.NextAttempt.Sub(rotates), turned)
	}
	h.wall, h.up = rotates.Add(turned), h.up+11*time.Second
	for _, pause := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		if !slices.Equal(due(), []snapshot.ID{id}) {
			t.Fatalf("due: %v", due())
		}
		s := h.poll(polled())
		if o := h.orders(); !slices.Equal(o.Sources, []snapshot.ID{id}) {
			t.Errorf("told: %+v", o)
		}
		if got, want := s.NextAttempt.Sub(h.wall), pause*time.Second; got > want || got < want*9/10 {
			t.Errorf("next attempt in %v, want %v", got, want)
		}
		if len(due()) != 0 {
			t.Errorf("due again at once: %v", due())
		}
		h.pass(pause * time.Second)
	}
	if s := h.poll(polled(), sourced("payroll", 2, h.wall.Add(time.Hour))); s.Changed != 1 || h.user("payroll").SecretVersion() != 2 {
		t.Errorf("%+v, version %d", s, h.user("payroll").SecretVersion())
	}
	h.pass(10 * time.Minute)
	if len(due()) != 0 {
		t.Errorf("after the turn: %v", due())
	}
	if h.orders().Held[scope] != 3 {
		t.Errorf("told: %+v", h.orders())
	}
	for k := range h.r.known() {
		if k.ID == id && (k.Turn != 2 || len(k.Mark) != 1 || k.Source == "") {
			t.Errorf("known: %+v", k)
		}
	}

	t.Run("a Vault that is down is not asked more often for it", func(t *testing.T) {
		h.pass(50*time.Minute + turned)
		h.poll(polled())
		h.pass(time.Second)
		for range 10 {
			h.poll(unreachable())
		}
		if s := h.State(); s.NextAttempt.Sub(h.wall) < 50*time.Second {
			t.Errorf("next attempt in %v", s.NextAttempt.Sub(h.wall))
		}
		if len(due()) != 1 {
			t.Errorf("due: %v, want it still", due())
		}
	})
	t.Run("a restart goes on with it", func(t *testing.T) {
		h.restart()
		if !slices.Equal(due(), []snapshot.ID{id}) {
			t.Errorf("due: %v", due())
		}
	})
	t.Run("one that was removed is not looked for", func(t *testing.T) {
		gone := wholeScope()
		gone.Removed = []errand.Removed{{ID: id}}
		h.sync(gone)
		if len(due()) != 0 {
			t.Errorf("due: %v", due())
		}
	})
}

func (h *host) State() State { return h.r.State() }

// Run does all of that by itself: it sweeps at the start, polls, and answers
// who asks.
func TestRun(t *testing.T) {
	h := newHost(t)
	h.options.Interval, h.options.Sweep = 20*time.Millisecond, time.Hour
	h.start()
	orders := make(chan errand.Task, 1000)
	h.worker.answer = func(o *errand.Task) (answer, error) {
		orders <- *o
		if o.Sweep {
			return answer{report: wholeScope(), put: []entry{batchUser("payroll", int64(o.Generation))}}, nil
		}
		return answer{report: polled()}, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.r.Run(ctx) }()
	h.r.Kick()
	if o := <-orders; !o.Sweep {
		t.Error("the first one is no sweep")
	}
	if o := <-orders; o.Sweep || o.Held[scope] != 1 {
		t.Errorf("then came %+v", o)
	}
	s, err := h.r.Sync(ctx)
	if err != nil || s.Code != OK || s.Changed != 1 || s.NextAttempt.IsZero() || s.LastSweep.IsZero() {
		t.Errorf("%+v, %v", s, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := h.r.Sync(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("after the end: %v", err)
	}
}
