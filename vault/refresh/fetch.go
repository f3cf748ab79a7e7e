package refresh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"batchwarden/platform/lockmem"
	"batchwarden/vault/errand"
	"batchwarden/vault/sealed"
	"batchwarden/vault/snapshot"
)

// fetchTime bounds one run of the worker, from its start to its report.
const fetchTime = 3 * time.Minute

// brought is what a worker came back with.
type brought struct {
	generation uint64
	records    []sealed.Record
	report     errand.Report
}

// fetch sends the worker out. The batch key goes to it through a pipe, by
// write(2) from locked memory.
func (r *Refresher) fetch(ctx context.Context) (b brought, err error) {
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

	task := errand.Task{Token: r.o.Store.Token(), Known: r.known(), Sweep: true}
	if b.generation, err = r.sendKeys(ctx, ourOut, task.Token); err != nil {
		return b, fmt.Errorf("refresh: keys for the worker: %w", err)
	}
	task.Generation = b.generation

	ended := make(chan error, 1) // ends when the worker has, or ctx
	go func() {
		err := r.o.Worker.Sync(ctx, theirIn, theirOut)
		theirOut.Close() // so that reading ends although no report came
		ended <- err
	}()
	sent := make(chan error, 1) // ends when the task is in the pipe, or its reading end is closed
	go func() {
		sent <- errors.Join(errand.Send(ourOut, &task), ourOut.Close())
	}()
	received := r.receive(ctx, ourIn, &b)
	theirIn.Close() // a worker that left without reading must not block the sender
	workerErr := <-ended
	sendErr := <-sent
	if received == nil {
		return b, nil
	}
	if workerErr != nil {
		return b, workerErr
	}
	return b, errors.Join(fmt.Errorf("refresh: the worker did not report: %w", received), sendErr)
}

// sendKeys writes the new batch's key and the key of the last token, or zeros.
func (r *Refresher) sendKeys(ctx context.Context, w *os.File, token *sealed.Token) (generation uint64, err error) {
	err = r.o.Store.NewBatch(ctx, func(g uint64, key *lockmem.Buffer) error {
		generation = g
		_, err := w.Write(key.Bytes())
		return err
	})
	if err != nil {
		return 0, err
	}
	if token == nil {
		_, err = w.Write(make([]byte, len(errand.Keys{}.Token)))
		return generation, err
	}
	return generation, r.o.Store.WithBatch(ctx, token.Generation, func(key *lockmem.Buffer) error {
		_, err := w.Write(key.Bytes())
		return err
	})
}

func (r *Refresher) known() []errand.Known {
	list := make([]errand.Known, 0, len(r.held))
	for id, h := range r.held {
		if r.serves(id.Scope) {
			list = append(list, errand.Known{ID: id, Version: h.Version, Created: h.Created})
		}
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
		case m.Report != nil:
			b.report = *m.Report
			return nil
		}
	}
}

// accepted is what came of an attempt, by path.
type accepted struct {
	put, removed []string
	faults       []Fault
}

// accept writes what the worker brought into the local vault, in one commit,
// and then puts it into force. What cannot be used is left out and reported;
// the last good version stays.
func (r *Refresher) accept(ctx context.Context, b brought) (done accepted, err error) {
	now := time.Now().UTC()
	change := sealed.Change{Generation: b.generation, Token: b.report.Token}
	refused := map[string]string{}
	for _, f := range b.report.Faults {
		refused[f.Path] = f.Detail
	}
	fresh := map[snapshot.ID]snapshot.Held{}
	for _, record := range b.records {
		h, err := r.judge(ctx, &record)
		if err != nil {
			refused[record.ID.String()] = err.Error()
			continue
		}
		change.Put = append(change.Put, record)
		fresh[h.ID] = h
		done.put = append(done.put, h.ID.String())
	}
	for _, gone := range b.report.Removed {
		if _, had := r.held[gone.ID]; had {
			change.Remove = append(change.Remove, gone.ID)
			done.removed = append(done.removed, gone.ID.String())
		}
	}

	// What Vault has taken away is not served any more, whatever becomes of
	// the rest. A disk that does not take the removal now gets it next time.
	for _, id := range change.Remove {
		delete(r.held, id)
		r.owed[id] = true
	}
	change.Remove = slices.Collect(maps.Keys(r.owed))
	memory := r.remember(now, b.report, refused)
	if change.State, err = json.Marshal(memory); err != nil {
		return accepted{}, err
	}
	if err := r.o.Store.Apply(ctx, change); err != nil {
		r.o.Activate(r.snapshot())
		return accepted{removed: done.removed}, err
	}
	clear(r.owed)
	r.memory = memory
	for id, h := range fresh {
		r.held[id] = h
	}
	r.o.Activate(r.snapshot())
	for _, path := range slices.Sorted(maps.Keys(refused)) {
		done.faults = append(done.faults, Fault{path, refused[path]})
	}
	return done, nil
}

// judge opens a record's head and refuses what this machine did not ask for
// or could not use.
func (r *Refresher) judge(ctx context.Context, record *sealed.Record) (snapshot.Held, error) {
	if !r.serves(record.ID.Scope) {
		return snapshot.Held{}, fmt.Errorf("scope %q is not configured here", record.ID.Scope)
	}
	h, err := r.o.Store.OpenHead(ctx, record)
	if err != nil {
		return snapshot.Held{}, err
	}
	if old, had := r.held[h.ID]; had && older(&h, &old) {
		return snapshot.Held{}, fmt.Errorf("version %d of %s is older than version %d, which this machine has", h.Version, h.Created.Format(time.RFC3339), old.Version)
	}
	if h.Policy != nil {
		if err := r.o.Check(&h.Entry); err != nil {
			return snapshot.Held{}, err
		}
	}
	return h, nil
}

// older compares by (created, version): a secret that was deleted for good and
// made anew begins with version 1 again.
func older(a, b *snapshot.Held) bool {
	if !a.Created.Equal(b.Created) {
		return a.Created.Before(b.Created)
	}
	return a.Version < b.Version
}

// remember is the memory after this report: a scope that was read whole is
// confirmed, but for the documents whose newer version was refused.
func (r *Refresher) remember(now time.Time, report errand.Report, refused map[string]string) memory {
	next := memory{LastSuccess: r.memory.LastSuccess, Confirmed: map[string]time.Time{}, Behind: map[string]behindRecord{}}
	for scope, t := range r.memory.Confirmed {
		next.Confirmed[scope] = t
	}
	read := map[string]bool{}
	for _, s := range report.Scopes {
		if s.Read {
			next.Confirmed[s.Scope], read[s.Scope] = now, true
		}
	}
	for id := range r.held {
		path := id.String()
		was, wasBehind := r.memory.Behind[path]
		why, isRefused := refused[path]
		switch {
		case isRefused && wasBehind:
			next.Behind[path] = behindRecord{Since: was.Since, Why: why}
		case isRefused:
			next.Behind[path] = behindRecord{Since: r.memory.Confirmed[id.Scope], Why: why}
		case wasBehind && !read[id.Scope]:
			next.Behind[path] = was
		}
	}
	if report.Code == OK {
		next.LastSuccess = now
	}
	return next
}
