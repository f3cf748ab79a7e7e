package refresh

import (
	"testing"
	"time"

	"batchwarden/vault/errand"
)

// TestOtherSettings: a scope that is not configured any more is not served any more, and one that is again is; what was
// refused is asked for again; and the interval is another.
func TestOtherSettings(t *testing.T) {
	h := newHost(t)
	before := *h.r.settings()
	faulty := errand.Fault{Path: scope + "/policies/opcon", Version: 1, Created: created, Detail: "no such model"}
	report := wholeScope()
	report.Faults = []errand.Fault{faulty}
	if s := h.sync(report, batchUser("payroll", 1)); s.Code != OK || len(s.Faults) != 1 || h.version("payroll") != 1 {
		t.Fatalf("first sync: %+v", s)
	}
	if h.poll(report); len(h.orders().Refused) != 1 {
		t.Fatalf("the worker is told of %v", h.orders().Refused)
	}
	change := func(s Settings) {
		t.Helper()
		inForce := h.r.Configure(s)
		select {
		case <-inForce:
			t.Error("in force before Run had its turn")
		case <-h.r.renewed:
		}
		h.r.renew()
		select {
		case <-inForce:
		default:
			t.Error("not in force")
		}
	}
	other := before
	other.Scopes, other.Interval = []string{"machines/other"}, time.Second
	if change(other); h.version("payroll") != 0 {
		t.Error("a scope that is not configured any more is served")
	}
	if d := h.r.delay(OK); d > time.Second {
		t.Errorf("the next attempt is after %s", d)
	}
	if task := h.r.due(h.r.o.Clock.Now()); !task.sweep {
		t.Error("not everything is looked at")
	}
	if h.poll(errand.Report{Code: OK}); len(h.orders().Refused) != 0 {
		t.Errorf("what was refused is not read again: %v", h.orders().Refused)
	}
	if change(before); h.version("payroll") != 1 {
		t.Error("a scope that is configured again is not served")
	}
	// Who does not wait, and several at once, come into force with the next turn.
	h.r.Configure(other)
	h.r.Configure(before)
	<-h.r.renewed
	if h.r.renew(); len(h.r.renewed) != 0 || len(h.r.renews) != 0 || !h.r.serves(scope) {
		t.Error("one turn is not enough")
	}
}
