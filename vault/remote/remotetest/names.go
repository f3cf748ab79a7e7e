package remotetest

import (
	"encoding/json"
	"strings"
	"testing"

	"batchwarden/vault/errand"
	"batchwarden/vault/vaulttest"
)

// impossibleNames puts names into a list that no document of ours can have,
// more than are worth naming.
func impossibleNames(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	m := newMachine(t, newSource, s, "db01", vaulttest.MachineOptions{})
	p := newProxy(t, s)
	p.configure(m)
	good := strings.Repeat("g", 61)
	must(t, s.PutBatchUser(ctx, m.scope(), good, user("good")))
	must(t, s.PutBatchUser(ctx, m.scope(), "plain", user("good")))
	long := strings.Repeat("x", 62)
	must(t, s.PutBatchUser(ctx, m.scope(), long, user("good"))) // Vault itself takes it
	bad := []string{long, ".", "..", "", "a/b", "folder/", "a b", "a\x00b", "a\nb", "a\x1b[2Jb", "é", "?list=true", "%2e%2e", "../policies/opcon"}
	list := append([]string{good, "plain"}, bad...)
	for range 1000 {
		list = append(list, "no name")
	}
	body, err := json.Marshal(map[string]any{"data": map[string]any{"keys": list}})
	must(t, err)
	p.damage(t, func(r *reply) {
		if r.lists("batch_users") && strings.Contains(r.request.URL.Path, "machines") {
			r.body = body
		}
	})
	mark := len(requests(t, s))
	r := m.sync()
	if r.Code != errand.OK || !r.Scopes[0].Read {
		t.Errorf("got %q (%s), read %v", r.Code, r.Detail, r.Scopes[0].Read)
	}
	m.holds("batch_users/"+good, "batch_users/plain")
	if len(r.Faults) != 101 || !strings.Contains(r.Faults[100].Detail, "914 more names are not names") {
		t.Errorf("got %d faults, the last %+v", len(r.Faults), r.Faults[len(r.Faults)-1])
	}
	for _, f := range r.Faults {
		if strings.ContainsAny(f.Path, "\x00\n\x1b") {
			t.Errorf("a fault's path is %q", f.Path)
		}
	}
	if n := count(t, s, mark, "GET /v1/batch/data/machines/db01/batch_users/"); n != 2 {
		t.Errorf("%d documents were read, want 2", n)
	}
	m.sync()
	m.brought()
}
