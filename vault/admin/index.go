package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"sync"
	"time"
)

// index is a scope's hint at the versions of its documents. It only makes
// machines look sooner than at their next sweep.
type index struct {
	Format     int64                      `json:"format"`
	Removed    bool                       `json:"removed,omitempty"`
	BatchUsers map[string]int64           `json:"batch_users,omitempty"`
	Policies   map[string]int64           `json:"policies,omitempty"`
	others     map[string]json.RawMessage // x_…, other people's business
}

// parseIndex returns nil when there is none, or none that can be read.
func parseIndex(text []byte) (*index, error) {
	if text == nil {
		return nil, nil
	}
	x := new(index)
	if err := json.Unmarshal(text, x); err != nil {
		return nil, fmt.Errorf("admin: an index that cannot be read: %w", err)
	}
	if x.Format > 1 {
		return nil, fmt.Errorf("admin: an index of format %d: %w", x.Format, errors.ErrUnsupported)
	}
	if err := json.Unmarshal(text, &x.others); err != nil {
		return nil, err
	}
	maps.DeleteFunc(x.others, func(name string, _ json.RawMessage) bool { return !strings.HasPrefix(name, "x_") })
	return x, nil
}

func (x *index) folder(name string) map[string]int64 {
	if name == userFolder {
		return x.BatchUsers
	}
	return x.Policies
}

func (x *index) document() map[string]any {
	doc := map[string]any{"format": 1}
	for name, value := range x.others {
		doc[name] = value
	}
	for _, folder := range folders {
		if m := x.folder(folder); len(m) > 0 {
			doc[folder] = m
		}
	}
	return doc
}

// hint notes in the scope's index that a document has the version now; 0 is that
// it was deleted. A failure is a warning: machines find it at their next sweep.
func (w *work) hint(ctx context.Context, scope, folder, name string, version int64) {
	at := scope + "/index"
	if w.conf.DryRun {
		return // it follows from the document's own step
	}
	err := w.tryHint(ctx, scope, folder, name, version)
	if err != nil {
		w.warn(w.dataPath(at), fmt.Errorf("the index does not hint at it, so machines find it at their next sweep: %w", err))
	}
}

func (w *work) tryHint(ctx context.Context, scope, folder, name string, version int64) error {
	at := scope + "/index"
	var err error
	for try := range casTries {
		if err = pause(ctx, try); err != nil {
			return err
		}
		var d document
		if d, err = w.document(ctx, at); err != nil {
			return err
		}
		x, perr := parseIndex(d.text)
		switch {
		case perr != nil:
			return perr
		case x == nil:
			err = w.reindex(ctx, scope, false)
		case x.Removed:
			return fmt.Errorf("the machine is marked as removed and drops everything: machine add takes it back: %w", ErrInUse)
		default:
			err = w.amend(ctx, scope, folder, name, version, x, d.version)
		}
		if !conflict(err) {
			return err
		}
	}
	return err
}

func (w *work) amend(ctx context.Context, scope, folder, name string, version int64, x *index, cas int64) error {
	if x.BatchUsers == nil {
		x.BatchUsers = map[string]int64{}
	}
	if x.Policies == nil {
		x.Policies = map[string]int64{}
	}
	m := x.folder(folder)
	now, hinted := m[name]
	if version < now || version == 0 { // somebody else's change came later, or it begins anew: only Vault knows
		i, err := w.info(ctx, scope+"/"+folder+"/"+name)
		if err != nil {
			return err
		}
		version = 0
		if i != nil && i.live() {
			version = i.Current
		}
	}
	switch {
	case version == now && (hinted || version == 0):
		return nil
	case version == 0:
		delete(m, name)
	default:
		m[name] = version
	}
	return w.quietly(func() error {
		return w.putDocument(ctx, scope+"/index", x.document(), cas, "", nil)
	})
}

// quietly runs act without its steps: the index is part of the change that it follows.
func (w *work) quietly(act func() error) error {
	n := len(w.steps)
	err := act()
	w.steps = w.steps[:n]
	return err
}

// pause waits a little before a try that is not the first, so that two do not meet for ever.
func pause(ctx context.Context, try int) error {
	if try == 0 {
		return ctx.Err()
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(time.Duration(rand.IntN(20*try)+1) * time.Millisecond):
		return nil
	}
}

// Reindex makes the scope's index say what lies there, for when documents were
// written by other means. The mark of a removed machine stays.
func (a *Admin) Reindex(ctx context.Context, scope string) ([]Step, error) {
	w := a.begin()
	if err := CheckScope(scope); err != nil {
		return nil, err
	}
	err := w.reindex(ctx, scope, false)
	return w.steps, err
}

// reindex writes the index anew. Only unmark lets it replace the mark of a removal.
func (w *work) reindex(ctx context.Context, scope string, unmark bool) error {
	at := scope + "/index"
	d, err := w.document(ctx, at)
	if err != nil {
		return err
	}
	old, _ := parseIndex(d.text) // one that cannot be read is replaced
	if old != nil && old.Removed && !unmark {
		return fmt.Errorf("admin: %q: %w: it is the mark of a removed machine: machine add takes it back", at, ErrInUse)
	}
	x := &index{BatchUsers: map[string]int64{}, Policies: map[string]int64{}}
	if old != nil {
		x.others = old.others
	}
	for _, folder := range folders {
		names, err := w.documents(ctx, scope, folder)
		if err != nil {
			return err
		}
		var mu sync.Mutex
		err = eachErr(ctx, names, func(ctx context.Context, name string) error {
			i, err := w.info(ctx, scope+"/"+folder+"/"+name)
			if err != nil || i == nil || !i.live() {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			x.folder(folder)[name] = i.Current
			return nil
		})
		if err != nil {
			return err
		}
	}
	if old != nil && !old.Removed && maps.Equal(old.BatchUsers, x.BatchUsers) && maps.Equal(old.Policies, x.Policies) {
		return nil
	}
	detail := "hints at what lies in the scope"
	if unmark {
		detail = "no mark of a removal any more"
	}
	return w.putDocument(ctx, at, x.document(), d.version, detail, nil)
}

// documents lists the names of one folder of a scope, deleted ones too.
func (a *Admin) documents(ctx context.Context, scope, folder string) ([]string, error) {
	all, err := a.list(ctx, a.metadataPath(scope+"/"+folder))
	if err != nil {
		return nil, err
	}
	names := all[:0]
	for _, n := range all {
		if CheckName(n) == nil {
			names = append(names, n)
		}
	}
	return names, nil
}
