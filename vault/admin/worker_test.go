package admin_test

import (
	"crypto/rand"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"batchwarden/vault/admin"
	"batchwarden/vault/errand"
	"batchwarden/vault/remote"
	"batchwarden/vault/sealed"
	"batchwarden/vault/snapshot"
)

// worker is a machine's sync worker, and what its daemon would remember.
type worker struct {
	*bench
	conf    remote.Config
	known   map[snapshot.ID]errand.Known
	indexes map[string]errand.Index
	token   *sealed.Token
	key     [errand.KeySize]byte // of the token
	put     []string             // of the last run
}

func (b *bench) worker(m admin.Machine) *worker {
	b.Helper()
	c := b.addMachine(m)
	id, err := b.unwrap(b.Context(), c.WrappedSecretID)
	must(b.T, err)
	file := func(name, text string) string {
		path := b.TempDir() + "/" + name
		must(b.T, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	return &worker{bench: b, known: map[snapshot.ID]errand.Known{}, indexes: map[string]errand.Index{}, conf: remote.Config{
		Machine: m.Name, Platforms: m.Platforms, Groups: m.Groups, Address: b.server.Address, CAFile: b.server.CAFile, Mount: "batch",
		Auth: remote.Auth{Method: remote.AppRole, RoleIDFile: file("role_id", c.RoleID), SecretIDFile: file("secret_id", id)},
	}}
}

func (w *worker) run(sweep bool) *errand.Report {
	w.Helper()
	keys := &errand.Keys{Token: w.key}
	_, err := rand.Read(keys.Batch[:])
	must(w.T, err)
	task := &errand.Task{Generation: 1, Sweep: sweep, Token: w.token, Held: map[string]int{}}
	for id := range w.known {
		task.Held[id.Scope]++
	}
	for _, x := range w.indexes {
		task.Indexes = append(task.Indexes, x)
	}
	source, err := remote.New(w.conf)
	must(w.T, err)
	w.put = nil
	report, err := source.Sync(w.Context(), keys, task, remote.Out{
		Put: func(r sealed.Record) error {
			w.put = append(w.put, r.ID.Name)
			w.known[r.ID] = errand.Known{ID: r.ID, Version: r.Version, Created: r.Created}
			return nil
		},
		Token: func(t sealed.Token) error {
			w.token, w.key = &t, keys.Batch
			return nil
		},
		Known: func() ([]errand.Known, error) { return slices.Collect(maps.Values(w.known)), nil },
	})
	must(w.T, err)
	for _, s := range report.Scopes {
		delete(w.indexes, s.Scope)
		if s.Index != nil {
			w.indexes[s.Scope] = *s.Index
		}
	}
	for _, r := range report.Removed {
		delete(w.known, r.ID)
	}
	if report.Token != nil {
		w.token, w.key = report.Token, keys.Batch
	}
	slices.Sort(w.put)
	return report
}

// TestWorkerFindsWhatAdminsDo lets a worker poll, which looks at nothing but
// indexes, after each change.
func TestWorkerFindsWhatAdminsDo(t *testing.T) {
	b := start(t)
	ctx := t.Context()
	w := b.worker(admin.Machine{Name: "a", Platforms: []string{"unix"}, Groups: []string{"g"}})
	policy := bigPolicy(2 << 20)
	finds := func(want string) {
		t.Helper()
		r := w.run(false)
		var removed []string
		for _, x := range r.Removed {
			removed = append(removed, x.ID.Name)
		}
		slices.Sort(removed)
		if got := strings.TrimSpace(fmt.Sprint(strings.Join(w.put, " "), " -", strings.Join(removed, " "))); got != want || r.Code != errand.OK || len(r.Faults) > 0 {
			t.Errorf("a poll found %q, want %q; %s %s %v", got, want, r.Code, r.Detail, r.Faults)
		}
	}
	do := func(_ []admin.Step, err error) {
		t.Helper()
		must(t, err)
	}
	do(b.admin.PutBatchUser(ctx, "machines/a", "own", user("p"), false))
	do(b.admin.PutBatchUser(ctx, "groups/g", "theirs", user("p"), false))
	do(b.admin.PutPolicy(ctx, "groups/g", "opcon", "opcon", policy, 0))
	finds("opcon own theirs -")
	finds("-")
	do(b.admin.SetPassword(ctx, "groups/g", "theirs", []byte("q")))
	finds("theirs -")
	do(b.admin.PutPolicy(ctx, "groups/g", "opcon", "opcon", bigPolicy(2000), 1))
	finds("opcon -")
	do(b.admin.DeleteBatchUser(ctx, "groups/g", "theirs", false))
	do(b.admin.PutBatchUser(ctx, "machines/a", "second", user("p"), false))
	finds("second -theirs")
	do(b.admin.RemoveMachine(ctx, "a", false))
	if r := w.run(false); len(w.known) != 0 {
		t.Errorf("after the mark the worker knows %v; %s %s", w.known, r.Code, r.Detail)
	}
}

// TestWorkersTakeWhatIsTaken holds what is checked here against what the worker
// refuses: what an admin may put, every machine takes.
func TestWorkersTakeWhatIsTaken(t *testing.T) {
	b := start(t)
	members := map[string][]any{
		"username": {"u", "dom\\u", strings.Repeat("x", 256), strings.Repeat("x", 257), "", 1, "a\tb", nil},
		"password": {"p", "é\"\\\n", strings.Repeat("x", 1024), strings.Repeat("x", 1025), "", "a\x00b", "\uFFFD", 7, nil},
		"domain":   {"D", "", 1, nil}, "group": {"g", "\x1b[0m"}, "pam": {"x", false},
		"platform": {"unix", "windows", "zos", "", "linux", 1}, "kind": {"password", "none", "", "key", 1},
		"format": {1, 2, 0, "1", 1.5, nil}, "launch": {true, false, "true", nil}, "retrieve": {true, 1},
		"max_stale": {"72h", "1m30s", "", "-1h", "0s", "72", 3600}, "expires": {"2027-01-01T00:00:00Z", "", "2027-01-01", 1},
		"names":    {map[string]any{}, map[string]any{"opcon": "users/x", "x_": 1}, map[string]any{"opcon": 1}, map[string]any{"opcon": ""}, []any{}, "x", nil},
		"services": {map[string]any{"stonebranch": []any{"FIN"}}, map[string]any{"stonebranch": "FIN"}, map[string]any{"stonebranch": []any{1}}, map[string]any{"a": []any{}}, 1},
		"x_theirs": {1, map[string]any{}, nil}, "X_theirs": {1}, "other": {nil},
	}
	w := b.worker(admin.Machine{Name: "a", Platforms: []string{"unix"}})
	accepted, refused := map[string]string{}, map[string]string{}
	i := 0
	for member, values := range members {
		for _, v := range values {
			doc := user("p")
			doc[member] = v
			name := fmt.Sprintf("c%03d", i)
			what := fmt.Sprintf("%s: %.40q", member, fmt.Sprint(v))
			i++
			if err := admin.CheckBatchUser(doc); err != nil {
				refused[name] = what
			} else {
				accepted[name] = what
			}
			must(t, b.server.PutDocument(t.Context(), "machines/a/batch_users/"+name, doc))
		}
	}
	r := w.run(true)
	for name, what := range accepted {
		if !slices.Contains(w.put, name) {
			j := slices.IndexFunc(r.Faults, func(f errand.Fault) bool { return strings.HasSuffix(f.Path, "/"+name) })
			t.Errorf("%s is taken here and refused by the worker: %v", what, r.Faults[max(j, 0)])
		}
	}
	for name, what := range refused {
		if slices.Contains(w.put, name) && what != `kind: "none"` { // with a password: the worker drops it, here it is a mistake
			t.Errorf("%s is refused here and taken by the worker", what)
		}
	}
	if len(accepted) < 20 || len(refused) < 20 {
		t.Errorf("%d taken and %d refused prove little", len(accepted), len(refused))
	}
}
