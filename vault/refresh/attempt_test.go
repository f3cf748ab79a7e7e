package refresh

import (
	"errors"
	"testing"
	"time"
)

func TestAVersionIsTriedOnce(t *testing.T) {
	h := newHost(t)
	h.sync(wholeScope(), batchUser("payroll", 3), batchUser("reports", 1))
	payroll := batchUser("payroll", 1).ID
	begins := func(when string, version int64, earlier *Attempt) {
		t.Helper()
		got, first, err := h.r.begin(t.Context(), payroll, version)
		want := Attempt{At: h.r.o.Clock.Now()}
		if earlier != nil {
			want = *earlier
		}
		if err != nil || first != (earlier == nil) || got.Outcome != want.Outcome || !got.At.Equal(want.At) {
			t.Errorf("%s: got %+v, first %v, %v, want %+v", when, got, first, err, want)
		}
	}
	concludes := func(version int64, outcome string) {
		t.Helper()
		if err := h.r.conclude(t.Context(), payroll, version, outcome); err != nil {
			t.Error(err)
		}
	}
	if _, _, err := h.r.begin(t.Context(), payroll, 2); !errors.Is(err, ErrOther) {
		t.Errorf("another version: %v", err)
	}
	begun := h.r.o.Clock.Now()
	begins("first", 3, nil)
	h.start() // cut off
	begins("after a crash nobody knows what came of it", 3, &Attempt{begun, ""})
	concludes(3, "")
	h.start()
	begun = h.r.o.Clock.Now()
	begins("nothing was tried", 3, nil)
	concludes(3, "accepted")
	h.pass(time.Hour)
	h.sync(wholeScope(), batchUser("reports", 2))
	h.start()
	begins("after syncs and a restart", 3, &Attempt{begun, "accepted"})
	h.r.forgive()
	begins("an operator's sync does not repeat it", 3, &Attempt{begun, "accepted"})

	h.poll(polled(), batchUser("payroll", 4))
	concludes(3, "rejected") // comes too late
	begins("a new version", 4, nil)
	h.restart()
	begins("and once", 4, &Attempt{h.r.o.Clock.Now(), ""})
}
