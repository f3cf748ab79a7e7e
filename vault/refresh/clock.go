package refresh

import (
	"sync"
	"time"
)

// Clock tells a time that never goes back: the wall clock's, or where that was
// set back, the highest time seen plus the time the machine has been running
// since. A Refresher carries it over restarts. Its methods may be called from
// anywhere.
type Clock struct {
	wall func() time.Time
	up   func() time.Duration
	boot string

	mu   sync.Mutex // guards the next two
	high time.Time
	at   time.Duration // up() when it was high
}

// NewClock makes a clock of the wall clock and of the time since the machine
// was started, time asleep included. boot names that start; "" where it has no
// name.
func NewClock(wall func() time.Time, up func() time.Duration, boot string) *Clock {
	return &Clock{wall: wall, up: up, boot: boot}
}

// Now is the time that ages and expiries are judged by.
func (c *Clock) Now() time.Time {
	now, _ := c.read()
	return now
}

// Behind is how far the wall clock is behind Now.
func (c *Clock) Behind() time.Duration {
	now, wall := c.read()
	return now.Sub(wall)
}

func (c *Clock) read() (now, wall time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wall = c.wall().Round(0).UTC() // without Go's own reading, which does not count sleep
	up := c.up()
	c.high, c.at = later(c.high.Add(max(0, up-c.at)), wall), up
	return c.high, wall
}

// mark is what a restart needs to know of a clock.
type mark struct {
	High time.Time     `json:"high,omitzero"`
	Up   time.Duration `json:"up,omitempty"`
	Boot string        `json:"boot,omitempty"`
}

func (c *Clock) mark() mark {
	c.mu.Lock()
	defer c.mu.Unlock()
	return mark{c.high, c.at, c.boot}
}

// restore goes on from a mark. Of the time since then only what passed since
// the same start of the machine is known.
func (c *Clock) restore(m mark) {
	c.mu.Lock()
	defer c.mu.Unlock()
	up := c.up()
	if m.Boot == c.boot && m.Boot != "" {
		m.High = m.High.Add(max(0, up-m.Up))
	}
	c.high, c.at = later(c.high.Add(max(0, up-c.at)), m.High), up
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
