package main

import (
	"fmt"
	"time"

	"batchwarden/ipc/wire"
)

// What waits here is told, or asks on a connection that stays: asking anew every
// few milliseconds took a quarter of the machine from what was measured.

// status asks the daemon.
func (m *many) status() (s wire.Status, err error) { return s, get(m.root, "/v1/status", &s) }

// hear returns the events that came after those before.
func (m *many) hear(wait time.Duration) ([]wire.Event, error) {
	var page wire.Events
	err := get(m.root, fmt.Sprintf("/v1/events?after=%d&wait=%v", m.heard, wait), &page)
	if err == nil {
		m.heard = page.Next
	}
	return page.Events, err
}

// caughtUp passes over all events that there are.
func (m *many) caughtUp() error {
	for m.heard = 0; ; {
		if events, err := m.hear(0); err != nil || len(events) == 0 {
			return err
		}
	}
}

// told waits for an event.
func (m *many) told(is func(wire.Event) bool) error {
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		events, err := m.hear(time.Second)
		if err != nil {
			return err
		}
		for _, e := range events {
			if is(e) {
				return nil
			}
		}
	}
	return fmt.Errorf("not told within %v", patience)
}

// complete waits until the daemon, which has just been started, has everything.
// A machine that is busy takes its time.
func (m *many) complete() error {
	m.heard = 0 // another daemon's numbers
	deadline := time.Now().Add(5 * time.Minute)
	for some := false; !some && time.Now().Before(deadline); {
		events, err := m.hear(time.Second)
		if err != nil { // it does not listen yet, or so much happened that what came next is not kept
			m.heard = 0
			time.Sleep(10 * time.Millisecond)
		}
		for _, e := range events {
			some = some || e.Type == wire.BatchUserChanged
		}
	}
	for ; ; time.Sleep(5 * time.Millisecond) { // it says so a moment after it is so
		s, err := m.status()
		if err == nil && s.State == wire.StateOnline && s.BatchUsers.Total == len(m.names)+2 { // payroll and reports
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("the first sync does not end: %+v, %+v, %w", s.BatchUsers, s.Sync, err)
		}
	}
}

// polled waits for an attempt that began after the time, and wants it well.
func (m *many) polled(after time.Time) (wire.Sync, error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		s, err := m.status()
		if err != nil {
			return wire.Sync{}, err
		}
		if s.Sync.LastAttempt.After(after) && s.Sync.Outcome == "ok" {
			return s.Sync, nil
		}
		if time.Now().After(deadline) {
			return s.Sync, fmt.Errorf("no poll: %+v", s.Sync)
		}
	}
}

// brought is when the first poll after that one began that brought something. It
// is told a moment after what it brought is in force.
func (m *many) brought(after time.Time) (time.Time, error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) {
		s, err := m.status()
		if err != nil {
			return time.Time{}, err
		}
		if s.Sync.Changed > 0 && s.Sync.LastAttempt.After(after) {
			return s.Sync.LastAttempt, nil
		}
		if time.Now().After(deadline) {
			return time.Time{}, fmt.Errorf("no poll says that it changed anything: %+v", s.Sync)
		}
	}
}
