package remote

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"batchwarden/platform/secret"
	"batchwarden/vault/documents"
	"batchwarden/vault/errand"
	"batchwarden/vault/snapshot"
)

const (
	maxTTL   = 100 * 365 * 24 * time.Hour // of what a source announces
	markSize = 16
)

// prefixes are the places that sources may lie below, as components.
type prefixes [][]string

// readPrefixes checks what is configured. mount is the one of batch users.
func readPrefixes(list []string, mount string) (prefixes, error) {
	var p prefixes
	for _, s := range list {
		c, err := components(strings.Trim(s, "/"), mount)
		if err != nil {
			return nil, fmt.Errorf("remote: sources: %q %w", s, err)
		}
		p = append(p, c)
	}
	return p, nil
}

// check refuses a path that is not below one of the prefixes. Paths are compared
// by components: ldap/static-cred does not cover ldap/static-credentials.
func (p prefixes) check(path, mount string) error {
	c, err := components(path, mount)
	if err != nil {
		return fmt.Errorf("source: %q %w", path, err)
	}
	for _, prefix := range p {
		if len(c) > len(prefix) && below(c, prefix) {
			return nil
		}
	}
	return fmt.Errorf("source: %q is not below any of this machine's sync.sources", path)
}

// components takes a path apart and refuses what no source's path can be where
// batch users lie in mount.
func components(path, mount string) ([]string, error) {
	c, err := documents.SourcePath(path)
	if err != nil {
		return nil, err
	}
	if m := strings.Split(strings.Trim(mount, "/"), "/"); below(c, m) {
		return nil, errors.New("lies in the mount of the batch users")
	}
	return c, nil
}

// below reports whether the path is prefix or lies below it.
func below(path, prefix []string) bool {
	if len(path) < len(prefix) {
		return false
	}
	for i := range prefix {
		if path[i] != prefix[i] {
			return false
		}
	}
	return true
}

// sourced is what lies at a source.
type sourced struct {
	secret.Mute
	path     string
	username string // empty: it does not say
	password []byte
	rotates  time.Time // zero: it does not say
	mark     []byte
}

// sources reads the sources that are due and brings the documents whose password
// is another one: all of them in a sweep, else those that the task names. It
// reports whether one was forbidden.
func (r *run) sources(ctx context.Context, v *view) (refused bool) {
	if v.part && !slices.ContainsFunc(r.task.Sources, func(id snapshot.ID) bool { return id.Scope == v.scope }) {
		return false
	}
	k := r.knowledge(v.scope)
	var ids []snapshot.ID
	due := func(id snapshot.ID) {
		known, have := k.known.get(id)
		if _, done := r.handed.Load(id); done || !have || known.Source == "" {
			return
		}
		s, seen := v.seen[id]
		if !seen && v.part {
			s = sight{version: known.Version, created: known.Created}
			v.seen[id] = s
		} else if !seen {
			return
		}
		if s.state == present && !s.read && compare(s, known) == 0 {
			ids = append(ids, id)
		}
	}
	if v.part {
		for _, id := range r.task.Sources {
			if id.Scope == v.scope {
				due(id)
			}
		}
	} else {
		for _, id := range sorted(v.seen) {
			due(id)
		}
	}
	sights := make([]sight, len(ids))
	forbid := make([]bool, len(ids))
	each(len(ids), func(i int) { sights[i], forbid[i] = r.turn(ctx, ids[i], v.seen[ids[i]]) })
	for i, id := range ids {
		v.seen[id] = sights[i]
		refused = refused || forbid[i]
	}
	return refused
}

// turn reads the source of a known document, and the document too when another
// password lies there.
func (r *run) turn(ctx context.Context, id snapshot.ID, s sight) (after sight, refused bool) {
	known, _ := r.knowledge(id.Scope).known.get(id)
	got, t := r.readSource(ctx, id, known.Source)
	switch {
	case t != nil:
		s.source = t
		return s, t.code == errand.Forbidden
	case hmac.Equal(got.mark, known.Mark):
		clear(got.password)
		return s, false
	}
	after = r.fetchWith(ctx, id, got)
	return after, after.state == forbidden
}

// fromSource fills in what lies at the source of the batch user in e. have was
// read there already, if it is the same place.
func (r *run) fromSource(ctx context.Context, e *snapshot.Entry, have *sourced) (secret []byte, bad *fault) {
	u := e.BatchUser
	if err := r.source.sources.check(u.Source, r.source.conf.Mount); err != nil {
		return nil, &fault{&trouble{detail: clean(err.Error())}, never}
	}
	if have == nil || have.path != u.Source {
		var t *trouble
		if have, t = r.readSource(ctx, e.ID, u.Source); t != nil {
			return nil, &fault{&trouble{detail: t.detail}, soon}
		}
	}
	if have.username != "" && have.username != u.Username {
		clear(have.password)
		return nil, &fault{&trouble{detail: fmt.Sprintf("source: %q is of another username than the document", u.Source)}, later}
	}
	e.Mark, e.Rotates = have.mark, have.rotates
	e.Turn = 1
	if known, have := r.knowledge(e.ID.Scope).known.get(e.ID); have {
		e.Turn += known.Turn
		if known.Turn > 0 && hmac.Equal(known.Mark, e.Mark) {
			e.Turn = known.Turn
		}
	}
	return have.password, nil
}

// readSource reads what lies at path, once, and follows nothing. The detail of
// its trouble is the document's fault.
func (r *run) readSource(ctx context.Context, id snapshot.ID, path string) (*sourced, *trouble) {
	if err := r.source.sources.check(path, r.source.conf.Mount); err != nil {
		return nil, &trouble{errand.Setup, clean(err.Error())}
	}
	at := fmt.Sprintf("source: %q: ", path)
	a, t := r.get(ctx, path, nil)
	switch {
	case t != nil:
		return nil, &trouble{t.code, at + t.detail}
	case a.status == http.StatusNotFound && len(a.errors) == 0:
		return nil, &trouble{errand.Missing, at + "nothing is there"}
	case a.status >= 400:
		t := r.refusal(a, "read")
		return nil, &trouble{t.code, at + t.detail}
	}
	s, err := parseSource(a.body, a.date)
	if err != nil {
		return nil, &trouble{errand.Answer, at + clean(err.Error())}
	}
	s.path, s.mark = path, mark(r.markKey(), id, s)
	return s, nil
}

// mark is the same as long as the source says the same of the same document.
func mark(key []byte, id snapshot.ID, s *sourced) []byte {
	h := hmac.New(sha256.New, key)
	for _, part := range [][]byte{[]byte(id.String()), []byte(s.username), s.password} {
		fmt.Fprintf(h, "%d:", len(part))
		h.Write(part)
	}
	return h.Sum(nil)[:markSize]
}

// parseSource reads what an engine answers: of all that it may say, username,
// password and ttl. now is the server's time, zero when it does not say. No
// error quotes a value.
func parseSource(body []byte, now time.Time) (*sourced, error) {
	var got struct {
		Data map[string]json.RawMessage `json:"data"`
	}
	if err := json.Unmarshal(body, &got); err != nil || got.Data == nil {
		return nil, errors.New("the answer holds no data")
	}
	s := &sourced{}
	if text, ok := got.Data["username"]; ok && json.Unmarshal(text, &s.username) != nil {
		return nil, errors.New("username: must be a string")
	}
	var password string
	text, ok := got.Data["password"]
	switch {
	case !ok:
		return nil, errors.New("password: is required")
	case json.Unmarshal(text, &password) != nil || !bytes.HasPrefix(bytes.TrimSpace(text), []byte{'"'}):
		return nil, errors.New("password: must be a string")
	}
	s.password = []byte(password)
	if err := documents.CheckPassword(s.password); err != nil {
		return nil, fmt.Errorf("password: %w", err)
	}
	if text, ok := got.Data["ttl"]; ok && string(text) != "null" {
		left, err := parseTTL(text)
		if err != nil {
			return nil, err
		}
		if now.IsZero() {
			now = time.Now()
		}
		s.rotates = now.Add(left).UTC()
	}
	return s, nil
}

// parseTTL reads seconds, as a number or as text, or a duration. What lies in
// the past is due now.
func parseTTL(text json.RawMessage) (time.Duration, error) {
	wrong := errors.New("ttl: must be a number of seconds")
	var word string
	if json.Unmarshal(text, &word) != nil {
		word = string(text)
	}
	var seconds float64
	if json.Unmarshal([]byte(word), &seconds) != nil {
		d, err := time.ParseDuration(word)
		if err != nil {
			return 0, wrong
		}
		seconds = d.Seconds()
	}
	if seconds > maxTTL.Seconds() {
		return 0, wrong
	}
	return time.Duration(max(0, seconds) * float64(time.Second)), nil
}
