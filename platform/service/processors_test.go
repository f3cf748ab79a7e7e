package service

import (
	"context"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestProcessorsOfACrowd: half of them serve a few, and all a crowd, for as long as it is there.
func TestProcessorsOfACrowd(t *testing.T) {
	all := runtime.GOMAXPROCS(0)
	if os.Getenv("GOMAXPROCS") != "" || all < 2 {
		t.Skip("needs two processors")
	}
	ctx, cancel := context.WithCancel(t.Context())
	p := NewProcessors()
	var running sync.WaitGroup
	running.Go(func() { p.Run(ctx) })
	become := func(want int) {
		t.Helper()
		for begun := time.Now(); runtime.GOMAXPROCS(0) != want; time.Sleep(time.Millisecond) {
			if time.Since(begun) > 20*time.Second {
				t.Fatalf("%d processors are used, want %d", runtime.GOMAXPROCS(0), want)
			}
		}
	}
	become(all / 2)

	var enough atomic.Bool
	var crowd sync.WaitGroup
	for range 16 * all {
		crowd.Go(func() {
			for !enough.Load() {
				for at := time.Now(); time.Since(at) < 100*time.Microsecond; { // which an answer takes
					p.Asked()
				}
				runtime.Gosched()
			}
		})
	}
	become(all)
	enough.Store(true)
	crowd.Wait()
	become(all / 2)
	for range 2 * calm { // somebody alone
		p.Asked()
		time.Sleep(look / 4)
		if n := runtime.GOMAXPROCS(0); n != all/2 {
			t.Fatalf("%d processors serve one", n)
		}
	}
	cancel()
	running.Wait()
	if n := runtime.GOMAXPROCS(0); n != all {
		t.Errorf("%d processors are left", n)
	}
}
