package watch

import (
	"context"
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// TestDebounce: when it is told, after the times at which something happened.
func TestDebounce(t *testing.T) {
	const ms = time.Millisecond
	every := func(gap, until time.Duration) (list []time.Duration) {
		for at := time.Duration(0); at < until; at += gap {
			list = append(list, at)
		}
		return list
	}
	for _, c := range []struct {
		name         string
		events, told []time.Duration
	}{
		{"nothing", nil, []time.Duration{0}},
		{"one", []time.Duration{5 * ms}, []time.Duration{0, 205 * ms}},
		{"a rename's several", []time.Duration{5 * ms, 6 * ms, 7 * ms}, []time.Duration{0, 207 * ms}},
		{"two writes of an editor that takes its time", []time.Duration{0, 500 * ms}, []time.Duration{0, 200 * ms, 700 * ms}},
		{"two writes of one that does not", []time.Duration{0, 150 * ms}, []time.Duration{0, 350 * ms}},
		{"who never stops does not keep it from being told", every(100*ms, 5*time.Second), []time.Duration{0, 2000 * ms, 4000 * ms, 5100 * ms}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				begun, events, ended := time.Now(), make(chan struct{}), make(chan struct{})
				var told []time.Duration
				go func() {
					defer close(ended)
					debounce(ctx, events, Quiet, Longest, func() { told = append(told, time.Since(begun)) })
				}()
				for _, at := range c.events {
					time.Sleep(at - time.Since(begun))
					synctest.Wait() // what is due at the same time comes first
					events <- struct{}{}
				}
				time.Sleep(time.Minute)
				cancel()
				<-ended
				if !slices.Equal(told, c.told) {
					t.Errorf("told at %v, want %v", told, c.told)
				}
			})
		})
	}
}
