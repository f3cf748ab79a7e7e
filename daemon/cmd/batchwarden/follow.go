package main

import (
	"context"
	"errors"
	"io"
	"time"

	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
)

const (
	soonest = 50 * time.Millisecond // between two looks at a job's output: while it writes
	latest  = time.Second           // and while it is silent
	patient = 2 * time.Minute       // how long a service that went away may take to come back
	retry   = time.Second
)

// stream is one of a job's outputs, and how much of it was copied.
type stream struct {
	name string
	to   io.Writer
	from client.Reading // what comes next, and for whom
}

// copy copies what is new and says how much that was.
func (s *stream) copy(ctx context.Context, c *client.Client, id string) (int64, error) {
	n, err := c.Output(ctx, id, s.name, s.from, s.to)
	s.from.Offset += n
	return n, err
}

func copyAll(ctx context.Context, c *client.Client, id string, streams []*stream) (n int64, err error) {
	for _, s := range streams {
		m, e := s.copy(ctx, c, id)
		n, err = n+m, errors.Join(err, e)
	}
	return n, err
}

// follow copies a job's output until the job has ended, and then its rest. A service that goes away for a while, to be
// restarted say, does not end it: the job does not notice either.
func (a *app) follow(ctx context.Context, c *client.Client, id string, streams []*stream) (*wire.Job, error) {
	ctx, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	var job *wire.Job // set before ended has an element
	go func() {
		var err error
		job, err = a.wait(ctx, c, id)
		ended <- err
	}()
	defer stop() // and with it, the goroutine

	pause := soonest
	for {
		timer := time.NewTimer(pause)
		select {
		case err := <-ended:
			timer.Stop()
			if err != nil {
				return nil, err
			}
			if _, err := copyAll(ctx, c, id, streams); err != nil {
				a.note("the rest of job %s's output could not be copied: %v; batchwarden output %s shows it", id, err, id)
			}
			return job, nil
		case <-timer.C:
		}
		n, err := copyAll(ctx, c, id, streams)
		switch {
		case n > 0:
			pause = soonest
		default:
			pause = min(2*pause, latest)
		}
		if _, refused := errors.AsType[*wire.Problem](err); err != nil && !refused && !errors.Is(err, client.ErrUnreachable) {
			stop()
			<-ended
			return nil, err // our own standard output is gone
		}
	}
}

// wait returns the job when it has ended.
func (a *app) wait(ctx context.Context, c *client.Client, id string) (*wire.Job, error) {
	var away time.Time // since when the service does not answer
	for {
		job, err := c.Wait(ctx, id)
		if !errors.Is(err, client.ErrUnreachable) {
			return job, err
		}
		switch {
		case away.IsZero():
			away = a.now()
			a.note("the service went away; job %s goes on, waiting for the service to come back", id)
		case a.now().Sub(away) > patient:
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(retry):
		}
	}
}
