// Package remotetest is the contract of a source of documents, as tests against
// a real server: what is brought, what is removed, and above all what is not.
package remotetest

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"batchwarden/vault/errand"
	"batchwarden/vault/remote"
	"batchwarden/vault/sealed"
	"batchwarden/vault/snapshot"
	"batchwarden/vault/vaulttest"
)

// Source carries out one errand, as remote.Source does.
type Source interface {
	Sync(ctx context.Context, keys *errand.Keys, task *errand.Task, out remote.Out) (*errand.Report, error)
}

// NewSource makes a source for a machine that is set up as c says. Failing to
// is a report too: remote.Unable's.
type NewSource func(t *testing.T, c remote.Config) Source

// Run holds what newSource makes against the contract.
func Run(t *testing.T, newSource NewSource) {
	for _, c := range []struct {
		name string
		test func(*testing.T, NewSource)
	}{
		{"changes", changes},
		{"scopes", scopes},
		{"removals", removals},
		{"losing_much", losingMuch},
		{"data_alone", dataAlone},
		{"deletions", deletions},
		{"losing_half", losingHalf},
		{"removed_machine", removedMachine},
		{"polls", polls},
		{"many_without_index", manyWithoutIndex},
		{"sources", sources},
		{"sources_elsewhere", sourcesElsewhere},
		{"bad_documents", badDocuments},
		{"impossible_names", impossibleNames},
		{"policies_in_parts", policiesInParts},
		{"tokens", tokens},
		{"wrapped_secret_ids", wrappedSecretIDs},
		{"other_logins", otherLogins},
		{"rotation", rotation},
		{"server_troubles", serverTroubles},
		{"damaged_answers", damagedAnswers},
		{"lost_permissions", lostPermissions},
		{"identity", identity},
		{"older_backup", olderBackup},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, newSource) })
	}
}

// canary begins every password of these tests. It must be in no report.
const canary = "canary-5e1f-"

func user(password string) map[string]any {
	return map[string]any{"username": "u", "password": canary + password, "launch": true}
}

func policy(user string) map[string]any {
	return map[string]any{"model": "opcon", "users": map[string]any{user: map[string]any{}}}
}

// server is a new server with nothing in it but the set-up.
func server(t *testing.T) *vaulttest.Server {
	t.Helper()
	s, err := vaulttest.Start(t.Context(), vaulttest.Options{})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	must(t, s.Init(t.Context()))
	return s
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// held is one document as a daemon would keep it.
type held struct {
	errand.Known
	entry  snapshot.Entry
	secret string
}

// machine stands for a daemon: it keeps what a source brings.
type machine struct {
	t          *testing.T
	newSource  NewSource
	conf       remote.Config
	held       map[snapshot.ID]held
	generation uint64
	token      *sealed.Token
	tokenKey   [32]byte
	puts       []snapshot.ID // of the last sync
	asked      int           // for what is known, in the last sync
	indexes    map[string]errand.Index
	refused    map[snapshot.ID]errand.Refused
}

// newMachine entitles a machine and sets it up.
func newMachine(t *testing.T, newSource NewSource, s *vaulttest.Server, name string, o vaulttest.MachineOptions) *machine {
	t.Helper()
	role, secret, err := s.AddMachineWith(t.Context(), name, "unix", o)
	must(t, err)
	m := &machine{t: t, newSource: newSource, held: map[snapshot.ID]held{}, indexes: map[string]errand.Index{}, refused: map[snapshot.ID]errand.Refused{}}
	m.conf = remote.Config{
		Machine: name, Platforms: []string{"unix"}, Groups: o.Groups,
		Address: s.Address, CAFile: s.CAFile, Mount: vaulttest.Mount,
		Auth: remote.Auth{Method: remote.AppRole, RoleIDFile: file(t, "role_id", role), SecretIDFile: file(t, "secret_id", secret)},
	}
	return m
}

func file(t *testing.T, name, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	must(t, os.WriteFile(path, []byte(text+"\n"), 0o600))
	return path
}

// scope is the machine's own.
func (m *machine) scope() string { return "machines/" + m.conf.Machine }

// sync sweeps and keeps what that brought.
func (m *machine) sync() *errand.Report {
	m.t.Helper()
	return m.run(errand.Task{Sweep: true})
}

// poll looks at what the indexes hint at.
func (m *machine) poll() *errand.Report {
	m.t.Helper()
	return m.run(errand.Task{})
}

// run carries out one errand and keeps what it brought.
func (m *machine) run(task errand.Task) *errand.Report {
	m.t.Helper()
	m.generation++
	keys := &errand.Keys{Token: m.tokenKey}
	if _, err := rand.Read(keys.Batch[:]); err != nil {
		m.t.Fatal(err)
	}
	task.Generation, task.Token = m.generation, m.token
	task.Held = map[string]int{}
	var known []errand.Known
	for id, h := range m.held {
		known = append(known, h.Known)
		task.Held[id.Scope]++
	}
	task.Indexes, task.Refused = slices.Collect(maps.Values(m.indexes)), slices.Collect(maps.Values(m.refused))
	m.puts, m.asked = nil, 0
	report, err := m.newSource(m.t, m.conf).Sync(m.t.Context(), keys, &task, remote.Out{
		Put: func(r sealed.Record) error {
			m.puts = append(m.puts, r.ID)
			m.held[r.ID] = open(m.t, r, m.generation, &keys.Batch)
			return nil
		},
		Token: func(t sealed.Token) error {
			m.token, m.tokenKey = &t, keys.Batch
			return nil
		},
		Known: func() ([]errand.Known, error) {
			m.asked++
			return known, nil
		},
	})
	must(m.t, err)
	slices.SortFunc(m.puts, func(a, b snapshot.ID) int { return strings.Compare(a.String(), b.String()) })
	for _, r := range report.Removed {
		delete(m.held, r.ID)
	}
	m.remember(report)
	switch {
	case report.Token != nil:
		m.token, m.tokenKey = report.Token, keys.Batch
	case !report.KeepToken:
		m.token = nil
	}
	text, err := json.Marshal(report)
	must(m.t, err)
	if strings.Contains(string(text), canary) {
		m.t.Errorf("a password shows in the report: %s", text)
	}
	return report
}

// remember keeps what the next task says of indexes and of refused versions.
func (m *machine) remember(report *errand.Report) {
	for _, s := range report.Scopes {
		delete(m.indexes, s.Scope)
		if s.Index != nil {
			m.indexes[s.Scope] = *s.Index
		}
	}
	for _, f := range report.Faults {
		for _, kind := range []snapshot.Kind{snapshot.BatchUserKind, snapshot.PolicyKind} {
			for _, s := range report.Scopes {
				id := snapshot.ID{Scope: s.Scope, Kind: kind, Name: f.Path[strings.LastIndex(f.Path, "/")+1:]}
				if f.Version > 0 && id.String() == f.Path {
					m.refused[id] = errand.Refused{ID: id, Version: f.Version, Created: f.Created, Detail: f.Detail}
				}
			}
		}
	}
}

// open opens a record and checks what is inside against what is outside. It may
// be called from anywhere.
func open(t *testing.T, r sealed.Record, generation uint64, key *[32]byte) held {
	t.Helper()
	h := held{Known: errand.Known{ID: r.ID, Version: r.Version, Created: r.Created}}
	if r.Generation != generation || r.Version < 1 || r.Created.IsZero() {
		t.Errorf("%s: generation %d, version %d of %s", r.ID, r.Generation, r.Version, r.Created)
	}
	e, secret, err := sealed.Unseal(key, &r)
	if err != nil {
		t.Error(err)
		return h
	}
	h.entry, h.secret, h.Turn, h.Mark = e, string(secret), e.Turn, e.Mark
	if e.BatchUser != nil {
		h.Source = e.BatchUser.Source
	}
	return h
}

// syncOK is a sync in which nothing goes wrong.
func (m *machine) syncOK() *errand.Report {
	m.t.Helper()
	r := m.sync()
	if r.Code != errand.OK || len(r.Faults) != 0 {
		m.t.Fatalf("got %q, %q, faults %v", r.Code, r.Detail, r.Faults)
	}
	for _, s := range r.Scopes {
		if !s.Read || s.Code != errand.OK {
			m.t.Errorf("scope %+v was not read", s)
		}
	}
	return r
}

// holds checks the paths that the machine holds, without its own scope where that leads.
func (m *machine) holds(want ...string) {
	m.t.Helper()
	var got []string
	for id := range maps.Keys(m.held) {
		got = append(got, m.short(id))
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		m.t.Errorf("the machine holds %v, want %v", got, want)
	}
}

// brought checks which documents the last sync put.
func (m *machine) brought(want ...string) {
	m.t.Helper()
	var got []string
	for _, id := range m.puts {
		got = append(got, m.short(id))
	}
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(got, want) {
		m.t.Errorf("brought %v, want %v", got, want)
	}
}

func (m *machine) short(id snapshot.ID) string { return strings.TrimPrefix(id.String(), m.scope()+"/") }

// password checks what a batch user of the machine's own scope has.
func (m *machine) password(name, want string) {
	m.t.Helper()
	id := snapshot.ID{Scope: m.scope(), Kind: snapshot.BatchUserKind, Name: name}
	if got := m.held[id].secret; got != canary+want {
		m.t.Errorf("%s: not the password %q", id, want)
	}
}

// keeps checks that a sync ends in code, removes nothing and confirms nothing
// of the machine's own scope.
func (m *machine) keeps(code string) *errand.Report {
	m.t.Helper()
	before := len(m.held)
	r := m.sync()
	if r.Code != code {
		m.t.Errorf("got code %q (%s), want %q", r.Code, r.Detail, code)
	}
	if r.Detail == "" {
		m.t.Errorf("%s has no words for people", r.Code)
	}
	if len(r.Removed) != 0 || len(m.held) != before {
		m.t.Errorf("%s removed %v", r.Code, r.Removed)
	}
	for _, s := range r.Scopes {
		if s.Read && s.Scope == m.scope() {
			m.t.Errorf("%s confirms %s", r.Code, s.Scope)
		}
	}
	return r
}

// faults checks the paths and the words of the report's faults.
func (m *machine) faults(r *errand.Report, want map[string]string) {
	m.t.Helper()
	got := map[string]string{}
	for _, f := range r.Faults {
		got[strings.TrimPrefix(f.Path, m.scope()+"/")] = f.Detail
	}
	for path, text := range want {
		if !strings.Contains(got[path], text) || got[path] == "" {
			m.t.Errorf("fault of %s: got %q, want %q", path, got[path], text)
		}
	}
	if len(got) != len(want) {
		m.t.Errorf("got faults %v, want %d", got, len(want))
	}
}

// count is how many requests since mark begin with the words.
func count(t *testing.T, s *vaulttest.Server, mark int, begins string) int {
	t.Helper()
	n := 0
	for _, line := range requests(t, s)[mark:] {
		if strings.HasPrefix(line, begins) {
			n++
		}
	}
	return n
}

func requests(t *testing.T, s *vaulttest.Server) []string {
	t.Helper()
	lines, err := s.Requests()
	must(t, err)
	return lines
}

func names(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("u%02d", i)
	}
	return list
}
