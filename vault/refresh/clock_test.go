package refresh

import (
	"testing"
	"time"
)

func TestClock(t *testing.T) {
	begin := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	wall, up := begin, time.Hour
	c := NewClock(func() time.Time { return wall }, func() time.Duration { return up }, "first")
	pass := func(d time.Duration) { wall, up = wall.Add(d), up+d }
	is := func(want, behind time.Duration) {
		t.Helper()
		if got := c.Now().Sub(begin); got != want {
			t.Errorf("now is %v after the beginning, want %v", got, want)
		}
		if got := c.Behind(); got != behind {
			t.Errorf("behind by %v, want %v", got, behind)
		}
	}
	is(0, 0)
	pass(time.Minute)
	is(time.Minute, 0)
	wall = wall.Add(-24 * time.Hour)
	is(time.Minute, 24*time.Hour)
	pass(time.Hour)
	is(61*time.Minute, 24*time.Hour)
	wall = begin.Add(2 * time.Hour)
	is(2*time.Hour, 0)
	wall = wall.Add(-48 * time.Hour)
	is(2*time.Hour, 48*time.Hour)

	m := c.mark()
	next := func(boot string, newUp time.Duration) {
		up = newUp
		c = NewClock(func() time.Time { return wall }, func() time.Duration { return up }, boot)
		c.restore(m)
	}
	t.Run("a restart of the daemon: the time in between counts", func(t *testing.T) {
		next("first", up+30*time.Minute)
		is(150*time.Minute, 48*time.Hour+30*time.Minute)
	})
	t.Run("a restart of the machine: what passes after it counts", func(t *testing.T) {
		next("second", time.Minute)
		is(2*time.Hour, 48*time.Hour)
		pass(10 * time.Minute)
		is(130*time.Minute, 48*time.Hour)
	})
	t.Run("where starts have no name it may be another one", func(t *testing.T) {
		m.Boot = ""
		wall = begin
		next("", up+time.Hour)
		is(2*time.Hour, 2*time.Hour)
	})
	t.Run("a clock that is right wins over a mark", func(t *testing.T) {
		wall = begin.Add(1000 * time.Hour)
		next("third", time.Minute)
		is(1000*time.Hour, 0)
	})
}

// A clock that was set back makes nothing fresher: not while the daemon runs,
// not over a restart, and not over one of the machine.
func TestAClockSetBackDoesNotFreshen(t *testing.T) {
	h := newHost(t)
	h.sync(wholeScope(), batchUser("payroll", 1))
	h.pass(10 * time.Hour)
	older := func(when string, than time.Duration) {
		t.Helper()
		if age := h.age("payroll"); age != than {
			t.Errorf("%s: %v old, want %v", when, age, than)
		}
	}
	older("after ten hours", 10*time.Hour)
	h.wall = h.wall.Add(-9 * time.Hour)
	older("set back", 10*time.Hour)
	h.pass(time.Hour)
	older("an hour later", 11*time.Hour)
	h.restart()
	older("after a restart", 11*time.Hour)
	h.wall = h.wall.Add(-48 * time.Hour)
	h.reboot("second")
	older("after another setting back and a reboot", 11*time.Hour)
	h.pass(time.Hour)
	older("an hour after the reboot", 12*time.Hour)
	h.sync(wholeScope())
	older("confirmed by Vault", 0)
	h.pass(time.Minute)
	older("a minute later", time.Minute)
}

// The highest time is on the disk also when a machine has been offline for
// long, and when it was not stopped but cut off.
func TestTheClockIsKeptWhileOffline(t *testing.T) {
	h := newHost(t)
	h.sync(wholeScope(), batchUser("payroll", 1))
	for range 60 {
		h.pass(time.Hour)
		h.send(task{}, unreachable())
	}
	h.wall, h.up, h.boot = h.wall.Add(-59*time.Hour), time.Minute, "second"
	h.start() // without the last write
	if age := h.age("payroll"); age < 59*time.Hour {
		t.Errorf("%v old, want 60 hours, or a little less", age)
	}
}
