package broker

import (
	"testing"
	"time"

	"batchwarden/daemon/config"
)

func TestAllowance(t *testing.T) {
	if a := newAllowance(&config.Client{}); a != nil {
		t.Errorf("without limits: %+v", a)
	}
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	a := newAllowance(&config.Client{Rate: config.Rate{Events: 3, Per: time.Minute}})
	try := func(after time.Duration, want time.Duration) {
		t.Helper()
		now = now.Add(after)
		wait, why := a.enter(now)
		if (why == "") != (want == 0) || wait.Round(time.Second) != want {
			t.Errorf("after %v: wait %v, %s; want %v", after, wait, why, want)
		}
	}
	for range 3 {
		try(0, 0)
	}
	try(0, 20*time.Second)
	try(5*time.Second, 15*time.Second)
	try(15*time.Second, 0)
	try(0, 20*time.Second)
	try(time.Hour, 0) // it holds no more than three
	try(0, 0)
	try(0, 0)
	try(0, 20*time.Second)

	a = newAllowance(&config.Client{Concurrent: 2})
	try(0, 0)
	try(0, 0)
	try(0, time.Second)
	a.leave()
	try(0, 0)
	if p := overloaded("x", 1500*time.Millisecond); p.RetryAfter != 2 || p.Status != 429 {
		t.Errorf("got %+v", p)
	}
	if p := overloaded("x", time.Millisecond); p.RetryAfter != 1 {
		t.Errorf("got %+v", p)
	}
}
