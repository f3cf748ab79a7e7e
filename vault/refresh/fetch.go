package refresh

import (
	"context"
	"errors"
	"fmt"
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

// fetch sends the worker out. The batch key goes to it through a pipe, by
// write(2) from locked memory.
func (r *Refresher) fetch(ctx context.Context, what task) (b brought, err error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	theirIn, ourOut, err := os.Pipe()
	if err != nil {
		return b, err
	}
	ourIn, theirOut, err := os.Pipe()
	if err != nil {
		return b, errors.Join(err, theirIn.Close(), ourOut.Close())
	}
	defer ourIn.Close()    // read only
	defer theirIn.Close()  // the worker has its own descriptor
	defer ourOut.Close()   // a worker that did not read its orders has failed anyway
	defer theirOut.Close() // closed early below; a second time does no harm

	orders := r.orders(what)
	if b.generation, err = r.sendKeys(ctx, ourOut, &orders); err != nil {
		return b, fmt.Errorf("refresh: keys for the worker: %w", err)
	}

	ended := make(chan error, 1) // ends when the worker has, or ctx
	go func() {
		err := r.o.Worker.Sync(ctx, theirIn, theirOut)
		theirOut.Close() // so that reading ends although no report came
		ended <- err
	}()
	sent := make(chan error, 1) // ends when the task is in the pipe, or its reading end is closed
	go func() {
		orders.Known = r.known() // while the worker starts; nothing of it changes before fetch is done
		sent <- errors.Join(errand.Send(ourOut, &orders), ourOut.Close())
	}()
	r.spare = 0
	received := r.receive(ctx, ourIn, &b)
	theirIn.Close() // a worker that left without reading must not block the sender
	workerErr := <-ended
	sendErr := <-sent
	if received == nil {
		if len(b.records) == 0 && b.report.Token == nil && !b.token {
			r.spare = b.generation
		}
		return b, nil
	}
	if workerErr != nil {
		return b, workerErr
	}
	return b, errors.Join(fmt.Errorf("refresh: the worker did not report: %w", received), sendErr)
}

// orders is what the worker is told, but for what is known.
func (r *Refresher) orders(what task) errand.Task {
	t := errand.Task{Token: r.o.Store.Token(), Sweep: what.sweep, Sources: what.sources, Only: what.only}
	for _, f := range r.refused {
		t.Refused = append(t.Refused, f)
	}
	for _, x := range r.indexes {
		t.Indexes = append(t.Indexes, x)
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
func (r *Refresher) known() []errand.Known {
	list := make([]errand.Known, 0, len(r.held))
	for _, h := range r.held {
		if !r.serves(h.ID.Scope) {
			continue
		}
		k := errand.Known{ID: h.ID, Version: h.Version, Created: h.Created, Turn: h.Turn, Mark: h.Mark}
		if h.BatchUser != nil {
			k.Source = h.BatchUser.Source
		}
		list = append(list, k)
	}
	return list
}

// receive reads messages until the report.
func (r *Refresher) receive(ctx context.Context, in *os.File, b *brought) error {
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
		case m.Token != nil:
			b.token = true
			r.keepToken(ctx, m.Token)
		case m.Report != nil:
			b.report = *m.Report
			return nil
		}
	}
}
