package refresh

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	"time"

	"batchwarden/platform/lockmem"
	"batchwarden/vault/errand"
	"batchwarden/vault/sealed"
)

// fetchTime bounds one run of the worker, from its start to its report.
const fetchTime = 3 * time.Minute

// brought is what a worker came back with.
type brought struct {
	generation uint64
	records    []sealed.Record
	token      bool // one came ahead of the report
	report     errand.Report
}

// journey is one run of a worker, from its start on.
type journey struct {
	in, out *os.File   // ours of its two pipes: what it says, and what it is told
	ended   chan error // what became of the worker
	over    chan struct{}
	ctx     context.Context // ends the worker
}

// depart starts a worker when the last one has ended. It gets ready, and waits for its keys.
func (r *Refresher) depart(ctx context.Context) (*journey, error) {
	r.leaving.Wait()
	theirIn, out, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	in, theirOut, err := os.Pipe()
	if err != nil {
		return nil, errors.Join(err, theirIn.Close(), out.Close())
	}
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	j := &journey{in: in, out: out, ended: make(chan error, 1), over: make(chan struct{}), ctx: ctx}
	r.leaving.Go(func() { // ends when the worker has, or ctx
		err := r.o.Worker.Sync(ctx, theirIn, theirOut)
		theirIn.Close()  // a worker that left without reading must not block the sender
		theirOut.Close() // so that reading ends although no report came
		j.ended <- err
		<-j.over
		cancel()
	})
	return j, nil
}

// departAhead starts the worker of the next attempt.
func (r *Refresher) departAhead(ctx context.Context) {
	j, err := r.depart(ctx)
	if err != nil {
		r.o.Log.Warn("a sync worker was not started ahead", "err", err) // the attempt will say more
		return
	}
	r.ahead = j
}

// turnBack tells a worker that was started ahead, and not told anything yet, that it is not needed.
func (r *Refresher) turnBack() {
	if j := r.ahead; j != nil {
		r.ahead = nil
		_, _ = j.in.Close(), j.out.Close() // neither was used
		close(j.over)
	}
}

// departed returns the worker that was started ahead, if it still is there, or starts one.
func (r *Refresher) departed(ctx context.Context) (*journey, error) {
	j := r.ahead
	if j == nil {
		return r.depart(ctx)
	}
	if len(j.ended) == 0 {
		r.ahead = nil
		return j, nil
	}
	r.turnBack() // there was nobody to start it then, perhaps
	return r.depart(ctx)
}

// fetch sends the worker out and returns with its report; the worker may end
// later, before the next one begins. The batch key goes to it through a pipe, by
// write(2) from locked memory.
func (r *Refresher) fetch(ctx context.Context, what task) (b brought, err error) {
	j, err := r.departed(ctx)
	if err != nil {
		return b, err
	}
	defer j.in.Close() // read only
	orders := r.orders(what)
	if b.generation, err = r.sendKeys(ctx, j.out, &orders); err != nil {
		_ = j.out.Close() // and so the worker ends
		close(j.over)
		if err := <-j.ended; err != nil {
			return b, err
		}
		return b, fmt.Errorf("refresh: keys for the worker: %w", err)
	}

	asked := make(chan struct{})
	sent := make(chan error, 1)
	go func() { // ends when nothing more is to be sent, or the reading end is closed; r.held stays as it is until then
		err := errand.Send(j.out, &orders)
		if err == nil {
			select {
			case <-asked:
				err = errand.SendKnown(j.out, r.known())
			case <-j.over: // nothing is waited for any more
			}
		}
		sent <- errors.Join(err, j.out.Close())
	}()
	r.spare = 0
	received := r.receive(j.ctx, j.in, &b, asked)
	close(j.over)
	if received == nil {
		<-sent
		if len(b.records) == 0 && b.report.Token == nil && !b.token {
			r.spare = b.generation
		}
		return b, nil
	}
	j.in.Close() // nobody listens to it any more
	workerErr := <-j.ended
	sendErr := <-sent
	if workerErr != nil {
		return b, workerErr
	}
	return b, errors.Join(fmt.Errorf("refresh: the worker did not report: %w", received), sendErr)
}

// orders is what the worker is told at first.
func (r *Refresher) orders(what task) errand.Task {
	t := errand.Task{Machine: r.o.Machine, Token: r.o.Store.Token(), Held: map[string]int{}, Sweep: what.sweep, Sources: what.sources, Only: what.only}
	for _, f := range r.refused {
		t.Refused = append(t.Refused, f)
	}
	for _, x := range r.indexes {
		t.Indexes = append(t.Indexes, x)
	}
	for _, h := range r.held {
		if r.serves(h.ID.Scope) {
			t.Held[h.ID.Scope]++
		}
	}
	return t
}

// sendKeys writes the batch's key and the key of the last token, or zeros. A
// token whose key is gone is no token.
func (r *Refresher) sendKeys(ctx context.Context, w *os.File, t *errand.Task) (generation uint64, err error) {
	if generation, err = r.sendBatch(ctx, w); err != nil {
		return 0, err
	}
	t.Generation = generation
	if t.Token != nil {
		sent := false
		err := r.o.Store.WithBatch(ctx, t.Token.Generation, func(key *lockmem.Buffer) error {
			sent = true
			_, err := w.Write(key.Bytes())
			return err
		})
		if sent {
			return generation, err
		}
		r.o.Log.Warn("the sync worker's token cannot be used any more", "err", err)
		t.Token = nil
	}
	_, err = w.Write(make([]byte, len(errand.Keys{}.Token)))
	return generation, err
}

// sendBatch writes the key of a batch that nothing was sealed with: the last
// one, if it was not used, else a new one.
func (r *Refresher) sendBatch(ctx context.Context, w *os.File) (generation uint64, err error) {
	sent := false
	send := func(key *lockmem.Buffer) error {
		sent = true
		_, err := w.Write(key.Bytes())
		return err
	}
	if r.spare != 0 {
		if err := r.o.Store.WithBatch(ctx, r.spare, send); sent {
			return r.spare, err
		}
	}
	r.spare = 0
	err = r.o.Store.NewBatch(ctx, func(g uint64, key *lockmem.Buffer) error {
		generation = g
		return send(key)
	})
	return generation, err
}

// known is all that this machine holds of where it looks.
func (r *Refresher) known() iter.Seq[errand.Known] {
	return func(yield func(errand.Known) bool) {
		for _, h := range r.held {
			if !r.serves(h.ID.Scope) {
				continue
			}
			k := errand.Known{ID: h.ID, Version: h.Version, Created: h.Created, Turn: h.Turn, Mark: h.Mark}
			if h.BatchUser != nil {
				k.Source = h.BatchUser.Source
			}
			if !yield(k) {
				return
			}
		}
	}
}

// receive reads messages until the report, and closes asked when the worker asks
// for what is known.
func (r *Refresher) receive(ctx context.Context, in *os.File, b *brought, asked chan<- struct{}) error {
	stop := context.AfterFunc(ctx, func() { in.Close() })
	defer stop()
	messages := errand.NewReader(in)
	for {
		m, err := messages.Next()
		switch {
		case err != nil:
			return err
		case m.Put != nil:
			b.records = append(b.records, *m.Put)
			r.arrived.Add(1)
		case m.Token != nil:
			b.token = true
			r.keepToken(ctx, m.Token)
		case m.WantKnown:
			close(asked) // errand lets it through once
		case m.Report != nil:
			b.report = *m.Report
			return nil
		}
	}
}
