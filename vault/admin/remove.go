package admin

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// removedMark is what an identity's metadata has between the two halves of RemoveMachine.
const removedMark = "removed"

// secretID is what Vault tells of a secret_id without the secret.
type secretID struct {
	accessor string
	created  time.Time
}

func (a *Admin) secretIDs(ctx context.Context, machine string) ([]secretID, error) {
	accessors, err := a.list(ctx, a.rolePath(machine)+"/secret-id")
	if err != nil {
		return nil, err
	}
	ids := make([]secretID, 0, len(accessors))
	for _, accessor := range accessors {
		var got struct {
			Data struct {
				Created time.Time `json:"creation_time"`
			} `json:"data"`
		}
		body := map[string]any{"secret_id_accessor": accessor}
		found, err := a.ask(ctx, a.api, "PUT", a.rolePath(machine)+"/secret-id-accessor/lookup", nil, body, &got)
		if err != nil {
			return nil, err
		}
		if found { // else it ended since
			ids = append(ids, secretID{accessor, got.Data.Created})
		}
	}
	slices.SortFunc(ids, func(x, y secretID) int { return x.created.Compare(y.created) })
	return ids, nil
}

func (w *work) destroySecretIDs(ctx context.Context, machine string, ids []secretID) error {
	path := w.rolePath(machine) + "/secret-id-accessor/destroy"
	for _, id := range ids {
		if err := w.do(Delete, path, "the secret_id of "+id.created.UTC().Format(time.RFC3339), func() error {
			return w.write(ctx, path, map[string]any{"secret_id_accessor": id.accessor}, nil)
		}); err != nil {
			return err
		}
	}
	return nil
}

// RotateMachine issues another secret_id, wrapped for wrapTTL (zero: a day); those
// that are there stay good. With finish it issues none: all but the newest are
// destroyed, which is for when the machine is known to have logged in with that.
func (a *Admin) RotateMachine(ctx context.Context, name string, wrapTTL time.Duration, finish bool) (Credentials, []Step, error) {
	w := a.begin()
	c, err := w.rotate(ctx, name, wrapTTL, finish)
	return c, w.steps, err
}

func (w *work) rotate(ctx context.Context, name string, wrapTTL time.Duration, finish bool) (Credentials, error) {
	c := Credentials{Machine: name}
	m, _, err := w.machine(ctx, name)
	if err != nil {
		return c, err
	}
	if m.Removed {
		return c, fmt.Errorf("admin: machine %q: %w: it is being removed; machine add takes it back", name, ErrInUse)
	}
	if c.RoleID, err = w.roleID(ctx, name); err != nil {
		return c, err
	}
	if !finish {
		m.WrapTTL = wrapTTL
		if wrapTTL < 0 || wrapTTL > maxTTL || wrapTTL%time.Second != 0 {
			return c, fmt.Errorf("admin: %w: %v is no time to live", ErrInvalid, wrapTTL)
		}
		return c, w.issue(ctx, m, &c)
	}
	ids, err := w.secretIDs(ctx, name)
	if err != nil || len(ids) < 2 {
		return c, err
	}
	newest := ids[len(ids)-1]
	if err := w.destroySecretIDs(ctx, name, ids[:len(ids)-1]); err != nil {
		return c, err
	}
	w.notef("the secret_id of %s alone is good now for new logins of %s; tokens it has stay good", newest.created.UTC().Format(time.RFC3339), name)
	return c, nil
}

// RemoveMachine takes a machine out of service. First, without finish, the mark
// that makes the machine drop everything it holds is written, its documents are
// deleted (Vault can undelete them) and its secret_ids destroyed; its token stays
// good, so that it can read the mark. Then, with finish, once it has read it or
// never will, its role, its identity and everything below its scope are removed
// for good. AddMachine between the two takes it back, without its documents.
func (a *Admin) RemoveMachine(ctx context.Context, name string, finish bool) ([]Step, error) {
	w := a.begin()
	err := w.removeMachine(ctx, name, finish)
	return w.steps, err
}

func (w *work) removeMachine(ctx context.Context, name string, finish bool) error {
	if err := checkMachine(name); err != nil {
		return err
	}
	e, err := w.entity(ctx, name)
	if err != nil {
		return err
	}
	if finish {
		return w.finishRemoval(ctx, name, e)
	}
	if e == nil {
		return fmt.Errorf("admin: machine %q: %w", name, ErrNotFound)
	}
	if err := w.mark(ctx, name); err != nil {
		return err
	}
	if e.Metadata[removedMark] != "true" {
		e.Metadata = maps.Clone(e.Metadata)
		e.Metadata[removedMark] = "true"
		if err := w.writeEntity(ctx, Update, name, e); err != nil {
			return err
		}
	}
	if err := w.deleteScope(ctx, machineScope+"/"+name, false); err != nil {
		return err
	}
	ids, err := w.secretIDs(ctx, name)
	if err != nil {
		return err
	}
	if err := w.destroySecretIDs(ctx, name, ids); err != nil {
		return err
	}
	if len(w.steps) == 0 {
		return nil
	}
	w.notef("%s drops every credential and policy it holds when it next asks Vault: within its sync.interval (30 seconds where nothing else is set) if it runs and reaches Vault", name)
	w.notef("if it is off or cut off, it drops them when it next reaches Vault with the token it has; until then, at most for its sync.max_stale, it goes on with what it holds")
	w.notef("it cannot log in anew: once its token ends (token_max_ttl of its role) it reads no mark any more")
	w.notef("when it has dropped everything, or never will ask again: remove it once more with finish")
	return nil
}

func (w *work) finishRemoval(ctx context.Context, name string, e *entity) error {
	if e != nil && e.Metadata[removedMark] != "true" {
		return fmt.Errorf("admin: machine %q: %w: it was not marked as removed; remove it without finish first", name, ErrInUse)
	}
	role, err := w.role(ctx, name)
	if err != nil {
		return err
	}
	if e == nil {
		role = nil // a role without our entity is somebody else's
	}
	if role != nil {
		if err := w.do(Delete, w.rolePath(name), "with it every token of the machine loses its renewal", func() error {
			return w.delete(ctx, w.rolePath(name))
		}); err != nil {
			return err
		}
	}
	if err := w.deleteScope(ctx, machineScope+"/"+name, true); err != nil {
		return err
	}
	index := machineScope + "/" + name + "/index"
	d, err := w.document(ctx, index)
	if err != nil {
		return err
	}
	if d.version > 0 {
		if err := w.purge(ctx, index, "the mark"); err != nil {
			return err
		}
	}
	if e == nil { // last: without it this could not be done again
		return nil
	}
	if err := w.do(Delete, entityPath(name), "its tokens may read nothing any more", func() error {
		return w.delete(ctx, entityPath(name))
	}); err != nil {
		return err
	}
	w.notef("%s is gone from Vault; if it never read the mark, it keeps what it holds until its sync.max_stale", name)
	return nil
}

// mark writes what makes the machine drop everything.
func (w *work) mark(ctx context.Context, name string) error {
	at := machineScope + "/" + name + "/index"
	for range casTries {
		d, err := w.document(ctx, at)
		if err != nil {
			return err
		}
		x, _ := parseIndex(d.text) // one that cannot be read is replaced
		if x != nil && x.Removed {
			return nil
		}
		err = w.putDocument(ctx, at, map[string]any{"format": 1, "removed": true}, d.version, "the mark that makes the machine drop everything", nil)
		if !conflict(err) {
			return err
		}
	}
	return fmt.Errorf("admin: %q: %w", at, ErrConflict)
}

// unmark takes the mark of an earlier removal away. What lies in the scope is
// hinted at from now on.
func (w *work) unmark(ctx context.Context, name string) error {
	scope := machineScope + "/" + name
	d, err := w.document(ctx, scope+"/index")
	if err != nil {
		return err
	}
	if x, _ := parseIndex(d.text); x == nil || !x.Removed {
		return nil
	}
	return w.reindex(ctx, scope, true)
}

// deleteScope deletes every document of a scope but its index.
func (w *work) deleteScope(ctx context.Context, scope string, purge bool) error {
	for _, folder := range folders {
		names, err := w.list(ctx, w.metadataPath(scope+"/"+folder))
		if err != nil {
			return err
		}
		for _, name := range names {
			at := scope + "/" + folder + "/" + name
			switch {
			case strings.HasSuffix(name, "/"):
				err = w.deleteFolder(ctx, at, purge)
			default:
				err = w.deleteDocument(ctx, at, purge)
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// deleteFolder deletes what lies in a folder: parts, when a document is removed for good.
func (w *work) deleteFolder(ctx context.Context, at string, purge bool) error {
	at = strings.TrimSuffix(at, "/")
	if !purge || !strings.HasSuffix(at, ".parts") {
		return nil // without their head they say nothing
	}
	names, err := w.list(ctx, w.metadataPath(at))
	if err != nil {
		return err
	}
	for _, name := range names {
		if err := w.deleteDocument(ctx, at+"/"+name, true); err != nil {
			return err
		}
	}
	return nil
}
