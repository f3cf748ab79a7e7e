package refresh

import (
	"context"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"batchwarden/vault/errand"
)

// journal is a worker that notes when it was started, and when it was told what
// for.
type journal struct {
	*play
	began chan time.Time
	told  chan time.Time
	lost  chan error
}

func (j *journal) Sync(ctx context.Context, stdin, stdout *os.File) error {
	j.began <- time.Now()
	err := j.play.Sync(ctx, stdin, stdout)
	if err != nil {
		j.lost <- err
	}
	return err
}

// TestDeparture: a worker is there before its attempt is due, and an interval
// lies between two beginnings. Who asks for an attempt gets a worker that begins
// then: what it reads may have just been changed.
func TestDeparture(t *testing.T) {
	const interval = 400 * time.Millisecond
	h := newHost(t)
	j := &journal{&h.worker, make(chan time.Time, 100), make(chan time.Time, 100), make(chan error, 100)}
	begin := time.Now()
	h.options.Interval = interval
	h.start()
	h.r.o.Clock = NewClock(time.Now, func() time.Duration { return time.Since(begin) }, "first")
	h.r.o.Worker = j
	sweeps := make(chan bool, 100)
	h.worker.answer = func(o *errand.Task) (answer, error) {
		j.told <- time.Now()
		sweeps <- o.Sweep
		return answer{report: wholeScope()}, nil
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- h.r.Run(ctx) }()
	h.r.Kick()
	const soon = departure / 2
	if waited := -time.Until(<-j.began) + time.Until(<-j.told); waited > soon {
		t.Errorf("the first worker waited %v", waited)
	}
	<-sweeps
	last := time.Now()
	for range 3 {
		began, told := <-j.began, <-j.told
		if waited := told.Sub(began); waited < soon {
			t.Errorf("a worker began %v before it was needed, want %v", waited, departure)
		}
		if between := told.Sub(last); between < interval*9/10-soon || between > interval+soon {
			t.Errorf("%v between two attempts, want %v", between, interval)
		}
		last = told
		if <-sweeps {
			t.Error("a sweep")
		}
	}

	// The next one has begun when somebody asks.
	<-j.began
	asked := time.Now()
	if s, err := h.r.Sync(ctx); err != nil || s.Code != OK {
		t.Errorf("%+v, %v", s, err)
	}
	if began := <-j.began; began.Before(asked) {
		t.Error("who asked got a worker that had begun before")
	}
	if err := <-j.lost; err == nil {
		t.Error("the worker that was not needed was told something")
	}
	<-j.told
	if !<-sweeps {
		t.Error("who asked got no sweep")
	}

	<-j.began // and the end comes while one waits
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// TestDepartureInVain: a worker that could not be started ahead is started when
// it is needed.
func TestDepartureInVain(t *testing.T) {
	h := newHost(t)
	launcher := &launcher{play: &h.worker}
	launcher.away.Store(true)
	h.r.o.Worker = launcher
	h.r.departAhead(t.Context())
	for len(h.r.ahead.ended) == 0 {
		time.Sleep(time.Millisecond)
	}
	launcher.away.Store(false)
	if s := h.sync(wholeScope()); s.Code != OK {
		t.Errorf("%+v", s)
	}
	h.r.end(t.Context())
}

// launcher can be away.
type launcher struct {
	*play
	away atomic.Bool
}

func (l *launcher) Sync(ctx context.Context, stdin, stdout *os.File) error {
	if l.away.Load() {
		return os.ErrClosed
	}
	return l.play.Sync(ctx, stdin, stdout)
}
