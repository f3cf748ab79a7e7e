package refresh

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"batchwarden/vault/sealed"
	"batchwarden/vault/snapshot"
)

// disk is what the local vault had last, and what it does not have yet.
type disk struct {
	removed map[snapshot.ID]bool // not served any more, and still in the vault
	failed  bool                 // the last write did
	saved   memory
	at      time.Time
}

// behind is whether something must be written now.
func (r *Refresher) behind(now time.Time) bool {
	d := &r.disk
	return d.failed || len(d.removed) > 0 || r.memory.unlike(&d.saved) || now.Sub(d.at) >= min(saveEvery, r.sweepEvery())
}

// write makes the change, and with it all that the local vault does not have
// yet. With sealed.ErrUnwritten it is made, but is not on the disk; with any
// other error nothing of what c puts is in the vault.
func (r *Refresher) write(ctx context.Context, c sealed.Change) error {
	r.memory.Clock = r.o.Clock.mark()
	state, err := json.Marshal(r.memory)
	if err != nil {
		return fmt.Errorf("refresh: state: %w", err)
	}
	c.State, c.Remove = state, slices.Collect(maps.Keys(r.disk.removed))
	err = r.o.Store.Apply(ctx, c)
	r.disk.failed = err != nil
	if err == nil || errors.Is(err, sealed.ErrUnwritten) {
		clear(r.disk.removed)
		r.disk.saved, r.disk.at = r.memory, r.o.Clock.Now()
		return err
	}
	if len(c.Opened) > 0 || c.Token != nil {
		// What Vault has taken away stays away all the same.
		return errors.Join(err, r.write(ctx, sealed.Change{}))
	}
	return err
}

// keepToken writes a token that cannot be had again.
func (r *Refresher) keepToken(ctx context.Context, t *sealed.Token) {
	if err := r.o.Store.Apply(ctx, sealed.Change{Generation: t.Generation, Token: t}); err != nil {
		r.o.Log.Error("the sync worker's token is not on the disk", "err", err)
		r.disk.failed = true
	}
}

// saveIfDue is for attempts that brought nothing: the clock goes on all the same.
func (r *Refresher) saveIfDue(ctx context.Context) {
	if r.behind(r.o.Clock.Now()) {
		r.save(ctx)
	}
}

func (r *Refresher) save(ctx context.Context) {
	if err := r.write(ctx, sealed.Change{}); err != nil {
		r.o.Log.Error("the state of the synchronization is not on the disk", "err", err)
	}
}

// endTime bounds the last write.
const endTime = 3 * time.Second

// end writes what a restart should know.
func (r *Refresher) end(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTime)
	defer cancel()
	r.turnBack()
	r.leaving.Wait()
	r.save(ctx)
}
