package daemon

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestSeldom: the system is asked once in the time, what passes in between counts, and what it counts beside that, as
// sleep does, is seen when it is asked again.
func TestSeldom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start, slept, asked := time.Now(), time.Duration(0), 0
		up := seldom(time.Second, func() time.Duration {
			asked++
			return time.Since(start) + slept
		})
		for i, want := range []time.Duration{0, 400, 800, 1200 + 5000, 1600 + 5000} {
			if got := up(); got != want*time.Millisecond {
				t.Errorf("look %d: %v, want %v", i, got, want*time.Millisecond)
			}
			slept = 5 * time.Second
			time.Sleep(400 * time.Millisecond)
		}
		if asked != 2 {
			t.Errorf("asked %d times, want 2", asked)
		}
	})
}
