package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"batchwarden/daemon/policy"
	"batchwarden/vault/admin"
	"batchwarden/vault/documents"
	"batchwarden/vault/snapshot"
)

// A scopeHeld is all that lies in one scope.
type scopeHeld struct {
	users     []admin.BatchUser
	policies  map[string]*held
	byDefault map[string][]*snapshot.Held // the entries, by the platform of those that name none
}

// scopesOf are the scopes that a machine reads.
func scopesOf(m admin.Machine) []string {
	scopes := []string{"machines/" + m.Name}
	for _, g := range m.Groups {
		scopes = append(scopes, "groups/"+g)
	}
	for _, p := range m.Platforms {
		scopes = append(scopes, "platforms/"+p)
	}
	return scopes
}

// read reads every scope that one of the machines reads, once.
func (r *reviewer) read(ctx context.Context, v *admin.Admin, machines []admin.Machine) error {
	there, err := v.Scopes(ctx)
	if err != nil {
		return err
	}
	var scopes []string
	for _, m := range machines {
		for _, scope := range scopesOf(m) {
			if r.scopes[scope] == nil {
				r.scopes[scope] = &scopeHeld{policies: map[string]*held{}, byDefault: map[string][]*snapshot.Held{}}
				if slices.Contains(there, scope) {
					scopes = append(scopes, scope)
				}
			}
		}
	}
	var mu sync.Mutex
	var first error
	admin.Each(ctx, scopes, func(ctx context.Context, scope string) {
		err := r.scopes[scope].read(ctx, v, scope)
		mu.Lock()
		defer mu.Unlock()
		if first == nil && err != nil {
			first = err
		}
	})
	if first == nil {
		first = ctx.Err()
	}
	if first != nil {
		return first
	}
	for _, scope := range scopes {
		for _, u := range r.scopes[scope].users {
			if _, err := batchUserOf(u, "unix"); err != nil {
				r.notes.Add(fmt.Sprintf("%s/batch_users/%s is refused by machines, which go on with an older one if they have one: %v", scope, u.Name, err))
			}
		}
	}
	return nil
}

func (s *scopeHeld) read(ctx context.Context, v *admin.Admin, scope string) error {
	var err error
	if s.users, err = v.BatchUsers(ctx, scope); err != nil {
		return err
	}
	realms, err := v.Policies(ctx, scope)
	if err != nil {
		return err
	}
	for _, realm := range realms {
		h, err := hold(ctx, v, scope, realm)
		if err != nil {
			return err
		}
		if h.text == nil {
			continue // deleted meanwhile
		}
		if reviewer, is := h.model.(policy.Reviewer); is && h.refused == nil {
			h.subjects = reviewer.Subjects(h.engine)
		}
		s.policies[realm] = h
	}
	return nil
}

// entries are what a machine of the platforms takes from the scope.
func (s *scopeHeld) entries(platforms []string) []*snapshot.Held {
	own := platforms[0]
	if list, known := s.byDefault[own]; known {
		return list
	}
	var list []*snapshot.Held
	for _, u := range s.users {
		if b, err := batchUserOf(u, platformOf(u.Scope, platforms)); err == nil { // the others are noted
			list = append(list, heldOf(u, b))
		}
	}
	for realm, h := range s.policies {
		list = append(list, &snapshot.Held{Entry: snapshot.Entry{ID: snapshot.ID{Scope: h.scope, Kind: snapshot.PolicyKind, Name: realm},
			Version: h.version, Policy: &snapshot.Policy{Model: h.name, Document: h.text}}})
	}
	s.byDefault[own] = list
	return list
}

func heldOf(u admin.BatchUser, b *snapshot.BatchUser) *snapshot.Held {
	return &snapshot.Held{Entry: snapshot.Entry{ID: snapshot.ID{Scope: u.Scope, Kind: snapshot.BatchUserKind, Name: u.Name},
		Version: u.Version, Created: u.Created, BatchUser: b}}
}

// platformOf is the platform of batch users that name none: the scope's, else the machine's.
func platformOf(scope string, machine []string) string {
	if p, is := strings.CutPrefix(scope, "platforms/"); is {
		return p
	}
	if len(machine) > 0 {
		return machine[0]
	}
	return "unix"
}

// batchUserOf reads a document as machines do, with the defaults that they apply.
func batchUserOf(u admin.BatchUser, platform string) (*snapshot.BatchUser, error) {
	doc := map[string]any{}
	maps.Copy(doc, u.Document)
	if u.HasPassword {
		doc["password"] = "present"
	}
	text, err := json.Marshal(doc)
	if err != nil {
		return nil, err
	}
	b, _, err := documents.ParseBatchUser(text, platform)
	return b, err
}

// inRealm is a batch user as a realm of the model knows it.
func inRealm(u admin.BatchUser, realm, model string) (policy.BatchUser, error) {
	b, err := batchUserOf(u, platformOf(u.Scope, nil))
	if err != nil {
		return policy.BatchUser{}, fmt.Errorf("%s/batch_users/%s: %w", u.Scope, u.Name, err)
	}
	known, err := snapshot.New(strings.TrimPrefix(u.Scope, "machines/"), []*snapshot.Held{heldOf(u, b)}).BatchUser(realm, model, u.Name)
	if err != nil {
		return policy.BatchUser{}, err
	}
	return policy.BatchUser{Name: known.RealmName, Platform: b.Platform, Services: known.ServicesIn(realm, model)}, nil
}
