package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"
)

// BatchUser is a batch user as it lies in Vault, without its password.
type BatchUser struct {
	Scope       string         `json:"scope"`
	Name        string         `json:"name"`
	Version     int64          `json:"version"`
	Created     time.Time      `json:"created"`
	HasPassword bool           `json:"has_password"`
	Document    map[string]any `json:"document"`
}

const password = "password"

// PutBatchUser writes a batch user, all of it but the password: a document
// without one keeps the one that lies there. A password in a scope that every
// machine of a platform reads needs shared.
func (a *Admin) PutBatchUser(ctx context.Context, scope, name string, doc map[string]any, shared bool) ([]Step, error) {
	w := a.begin()
	err := w.putUser(ctx, scope, name, doc, shared)
	return w.steps, err
}

func checkPlace(scope, name string) error {
	if err := CheckScope(scope); err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	if err := CheckName(name); err != nil {
		return fmt.Errorf("admin: %w", err)
	}
	return nil
}

func (w *work) putUser(ctx context.Context, scope, name string, doc map[string]any, shared bool) error {
	at := scope + "/" + userFolder + "/" + name
	if err := checkPlace(scope, name); err != nil {
		return err
	}
	doc, err := plain(doc)
	if err != nil {
		return fmt.Errorf("admin: %s: %w", at, err)
	}
	old, d, err := w.user(ctx, at)
	if err != nil {
		return err
	}
	wants := doc["kind"] != "none" && doc["source"] == nil
	if old[password] != nil && wants && doc[password] == nil {
		doc[password] = old[password]
	}
	if err := CheckBatchUser(doc); err != nil {
		return fmt.Errorf("admin: %s: %w", at, err)
	}
	if strings.HasPrefix(scope, platformScope+"/") && doc[password] != nil && !shared && !reflect.DeepEqual(doc[password], old[password]) {
		return fmt.Errorf("admin: %s: %w: say shared if that is meant", at, ErrShared)
	}
	if _, set := doc["format"]; !set {
		doc["format"] = 1.0
	}
	if reflect.DeepEqual(old, doc) {
		return nil
	}
	if old == nil {
		if err := w.ambiguousUser(ctx, scope, name); err != nil {
			return err
		}
	}
	return w.writeUser(ctx, scope, name, doc, d.version, differences(old, doc))
}

// plain is doc as it comes back from Vault, which keeps numbers as floating point: a copy.
func plain(doc map[string]any) (map[string]any, error) {
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return decode(text)
}

func decode(text []byte) (map[string]any, error) {
	var out map[string]any
	if err := json.Unmarshal(text, &out); err != nil || out == nil {
		return nil, fmt.Errorf("%w: not a JSON object", ErrInvalid) // err may quote a password
	}
	return out, nil
}

// user reads a batch user's document; nil when there is none.
func (a *Admin) user(ctx context.Context, at string) (map[string]any, document, error) {
	d, err := a.document(ctx, at)
	if err != nil || d.text == nil {
		return nil, d, err
	}
	doc, err := decode(d.text)
	if err != nil {
		return nil, d, fmt.Errorf("admin: %s: %w", at, err)
	}
	return doc, d, nil
}

func (w *work) writeUser(ctx context.Context, scope, name string, doc map[string]any, cas int64, detail string) error {
	at := scope + "/" + userFolder + "/" + name
	var made written
	if err := w.putDocument(ctx, at, doc, cas, detail, &made); err != nil {
		return err
	}
	w.hint(ctx, scope, userFolder, name, made.Version)
	return nil
}

// differences names the members that change, and no value.
func differences(old, doc map[string]any) string {
	if old == nil {
		return "batch user"
	}
	names := map[string]bool{}
	for _, m := range []map[string]any{old, doc} {
		for n := range m {
			if !reflect.DeepEqual(old[n], doc[n]) {
				names[n] = true
			}
		}
	}
	return "changes " + strings.Join(slices.Sorted(maps.Keys(names)), ", ")
}

// SetPassword changes the password of a batch user, and nothing else: it is
// ErrConflict when the document changed between reading and writing it.
func (a *Admin) SetPassword(ctx context.Context, scope, name string, secret []byte) ([]Step, error) {
	w := a.begin()
	err := w.setPassword(ctx, scope, name, secret)
	return w.steps, err
}

func (w *work) setPassword(ctx context.Context, scope, name string, secret []byte) error {
	at := scope + "/" + userFolder + "/" + name
	if err := checkPlace(scope, name); err != nil {
		return err
	}
	if err := CheckPassword(secret); err != nil {
		return fmt.Errorf("admin: %s: %w", at, err)
	}
	doc, d, err := w.user(ctx, at)
	switch {
	case err != nil:
		return err
	case doc == nil:
		return fmt.Errorf("admin: batch user %s: %w", at, ErrNotFound)
	case doc["kind"] == "none":
		return fmt.Errorf("admin: %s: %w: a batch user of kind none has no password", at, ErrInvalid)
	case doc["source"] != nil:
		return fmt.Errorf("admin: %s: %w: its password lies at its source", at, ErrInvalid)
	case doc[password] == nil && strings.HasPrefix(scope, platformScope+"/"):
		return fmt.Errorf("admin: %s: %w: put the batch user with shared if that is meant", at, ErrShared)
	case doc[password] == string(secret):
		return nil
	}
	doc[password] = string(secret)
	return w.writeUser(ctx, scope, name, doc, d.version, "its password")
}

// DeleteBatchUser deletes a batch user: machines drop it when they next look.
// Vault can undelete it, unless purge removes it with all its versions.
func (a *Admin) DeleteBatchUser(ctx context.Context, scope, name string, purge bool) ([]Step, error) {
	w := a.begin()
	if err := checkPlace(scope, name); err != nil {
		return nil, err
	}
	err := w.remove(ctx, scope, userFolder, name, purge)
	return w.steps, err
}

// remove deletes one document and its hint.
func (w *work) remove(ctx context.Context, scope, folder, name string, purge bool) error {
	at := scope + "/" + folder + "/" + name
	i, err := w.info(ctx, at)
	if err != nil || i == nil {
		return err
	}
	if err := w.deleteDocument(ctx, at, purge); err != nil {
		return err
	}
	if purge && folder == policyFolder {
		if err := w.deleteFolder(ctx, at+".parts", true); err != nil {
			return err
		}
	}
	if len(w.steps) > 0 {
		w.hint(ctx, scope, folder, name, 0)
	}
	return nil
}

// BatchUsers returns the batch users of a scope, in order of name.
func (a *Admin) BatchUsers(ctx context.Context, scope string) ([]BatchUser, error) {
	if err := CheckScope(scope); err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	names, err := a.documents(ctx, scope, userFolder)
	if err != nil {
		return nil, err
	}
	var mu sync.Mutex
	users := []BatchUser{}
	err = eachErr(ctx, names, func(ctx context.Context, name string) error {
		doc, d, err := a.user(ctx, scope+"/"+userFolder+"/"+name)
		if err != nil || doc == nil {
			return err // deleted
		}
		_, has := doc[password]
		delete(doc, password)
		mu.Lock()
		defer mu.Unlock()
		users = append(users, BatchUser{Scope: scope, Name: name, Version: d.version, Created: d.created, HasPassword: has, Document: doc})
		return nil
	})
	slices.SortFunc(users, func(x, y BatchUser) int { return strings.Compare(x.Name, y.Name) })
	return users, err
}

// BatchUser returns one batch user, without its password; ErrNotFound when there is none.
func (a *Admin) BatchUser(ctx context.Context, scope, name string) (BatchUser, error) {
	u := BatchUser{Scope: scope, Name: name}
	if err := checkPlace(scope, name); err != nil {
		return u, err
	}
	at := scope + "/" + userFolder + "/" + name
	doc, d, err := a.user(ctx, at)
	if err != nil {
		return u, err
	}
	if doc == nil {
		return u, fmt.Errorf("admin: batch user %s: %w", at, ErrNotFound)
	}
	_, u.HasPassword = doc[password]
	delete(doc, password)
	u.Version, u.Created, u.Document = d.version, d.created, doc
	return u, nil
}

// Scopes returns every scope that something lies in or lay in, in order.
func (a *Admin) Scopes(ctx context.Context) ([]string, error) {
	scopes := []string{}
	for _, kind := range []string{groupScope, machineScope, platformScope} {
		names, err := a.list(ctx, a.metadataPath(kind))
		if err != nil {
			return nil, err
		}
		for _, n := range names {
			if n, folder := strings.CutSuffix(n, "/"); folder && CheckScope(kind+"/"+n) == nil {
				scopes = append(scopes, kind+"/"+n)
			}
		}
	}
	return scopes, nil
}
