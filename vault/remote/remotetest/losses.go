package remotetest

import (
	"strings"
	"testing"
	"time"

	"batchwarden/vault/errand"
	"batchwarden/vault/vaulttest"
)

// dataAlone takes rights from the data and leaves the metadata: nothing in that
// says so.
func dataAlone(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	m := settled(t, newSource, s, vaulttest.MachineOptions{})
	deny := func(paths ...string) {
		t.Helper()
		var rules []vaulttest.Rule
		for _, p := range paths {
			rules = append(rules, vaulttest.Rule{Path: p, Capabilities: []string{"deny"}})
		}
		must(t, s.SetRules(ctx, "db01", rules...))
	}
	data := "batch/data/" + m.scope()
	deny(data + "/batch_users/u00")
	if r := m.syncOK(); len(r.Removed) != 1 || !strings.Contains(r.Removed[0].Why, "may not read") {
		t.Errorf("removed %v", r.Removed)
	}
	m.holds("batch_users/u01", "batch_users/u02", "policies/opcon")
	m.syncOK()
	m.brought()

	deny(data + "/*") // more than half: rather the Vault policy is broken
	m.keeps(errand.Forbidden)

	deny("sys/capabilities-self", data+"/batch_users/u00", data+"/batch_users/u01")
	m.syncOK() // a server that does not say leaves all as it is, until something is to be read
	m.holds("batch_users/u01", "batch_users/u02", "policies/opcon")
	must(t, s.PutBatchUser(ctx, m.scope(), "u01", user("new")))
	m.syncOK()
	m.holds("batch_users/u02", "policies/opcon")

	deny("batch/metadata/"+m.scope()+"/batch_users/u00", "batch/metadata/"+m.scope()+"/batch_users/u01")
	m.syncOK() // nor is metadata alone enough to read what is not known
	m.holds("batch_users/u02", "policies/opcon")
	deny()
	m.syncOK()
	m.holds("batch_users/u00", "batch_users/u01", "batch_users/u02", "policies/opcon")
}

// deletions are the ways in which documents end in Vault itself.
func deletions(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	m := settled(t, newSource, s, vaulttest.MachineOptions{})
	write := func(at string, data map[string]any) {
		t.Helper()
		_, err := s.Root().Logical().WriteWithContext(ctx, at, data)
		must(t, err)
	}
	meta := "batch/metadata/" + m.scope() + "/batch_users/"

	// A deletion that is set for later is none before its time.
	write(meta+"ahead", map[string]any{"delete_version_after": "1h"})
	must(t, s.PutBatchUser(ctx, m.scope(), "ahead", user("ahead")))
	write(meta+"soon", map[string]any{"delete_version_after": "8s"}) // time enough for a look on a busy machine
	must(t, s.PutBatchUser(ctx, m.scope(), "soon", user("soon")))
	m.syncOK()
	m.holds("batch_users/ahead", "batch_users/soon", "batch_users/u00", "batch_users/u01", "batch_users/u02", "policies/opcon")
	eventually(t, func() bool {
		m.syncOK()
		return len(m.held) == 5
	})
	m.holds("batch_users/ahead", "batch_users/u00", "batch_users/u01", "batch_users/u02", "policies/opcon")

	// A current version that was destroyed, and one behind it that was not.
	must(t, s.PutBatchUser(ctx, m.scope(), "u00", user("two")))
	m.syncOK()
	write("batch/destroy/"+m.scope()+"/batch_users/u00", map[string]any{"versions": []int{1}})
	m.syncOK()
	m.password("u00", "two")
	write("batch/destroy/"+m.scope()+"/batch_users/u00", map[string]any{"versions": []int{2}})
	m.syncOK()
	m.holds("batch_users/ahead", "batch_users/u01", "batch_users/u02", "policies/opcon")

	// Metadata that was deleted takes everything with it, and what is written anew counts.
	must(t, s.DestroyBatchUser(ctx, m.scope(), "u01"))
	m.syncOK()
	m.holds("batch_users/ahead", "batch_users/u02", "policies/opcon")
	must(t, s.PutBatchUser(ctx, m.scope(), "u01", user("anew")))
	m.syncOK()
	m.password("u01", "anew")

	// A deletion that is taken back.
	must(t, s.DeleteBatchUser(ctx, m.scope(), "u02"))
	m.syncOK()
	m.holds("batch_users/ahead", "batch_users/u01", "policies/opcon")
	write("batch/undelete/"+m.scope()+"/batch_users/u02", map[string]any{"versions": []int{1}})
	m.syncOK()
	m.password("u02", "u02")

	// A whole scope, in a look and a second one.
	for _, n := range []string{"ahead", "soon", "u00", "u01", "u02"} {
		must(t, s.DestroyBatchUser(ctx, m.scope(), n))
	}
	must(t, s.Delete(ctx, "batch/metadata/"+m.scope()+"/policies/opcon"))
	m.syncOK()
	m.holds()
}

// eventually waits until the server's clock has come so far.
func eventually(t *testing.T, done func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !done(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it did not come to that")
		}
	}
}

// losingHalf takes much of a larger scope.
func losingHalf(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	m := newMachine(t, newSource, s, "db01", vaulttest.MachineOptions{})
	p := newProxy(t, s)
	p.configure(m)
	for _, n := range names(22) {
		must(t, s.PutBatchUser(ctx, m.scope(), n, user(n)))
	}
	m.syncOK()
	const list = "GET /v1/batch/metadata/machines/db01/batch_users?list"
	looks := func(t *testing.T, want int) {
		t.Helper()
		mark := len(requests(t, s))
		m.syncOK()
		if n := count(t, s, mark, list); n != want {
			t.Errorf("%d looks were taken, want %d", n, want)
		}
	}
	destroy := func(list []string) {
		for _, n := range list {
			must(t, s.DestroyBatchUser(ctx, m.scope(), n))
		}
	}
	short := func(r *reply) {
		if r.lists("batch_users") && r.nth == 1 {
			r.body = []byte(`{"data":{"keys":["u00","u01"]}}`)
		}
	}
	p.damage(t, short)
	m.keeps(errand.Answer) // the second look disagrees
	p.set(nil)
	destroy(names(22)[:11])
	looks(t, 1) // half is not more than half
	if len(m.held) != 11 {
		t.Errorf("holds %d", len(m.held))
	}
	for _, n := range names(22)[:11] {
		must(t, s.PutBatchUser(ctx, m.scope(), n, user(n)))
	}
	m.syncOK()
	destroy(names(22)[:12])
	looks(t, 2)
	if len(m.held) != 10 {
		t.Errorf("holds %d", len(m.held))
	}
	for _, n := range names(22)[:12] {
		must(t, s.PutBatchUser(ctx, m.scope(), n, user(n)))
	}
	m.syncOK()

	// An index that names what is missing does not agree; one that names the rest does.
	stale := map[string]any{}
	for _, n := range names(22) {
		stale[n] = 1
	}
	must(t, s.PutIndex(ctx, m.scope(), map[string]any{"batch_users": stale, "policies": map[string]any{}}))
	destroy(names(22)[:12])
	looks(t, 2)
	for _, n := range names(22)[:12] {
		must(t, s.PutBatchUser(ctx, m.scope(), n, user(n)))
	}
	m.syncOK()
	destroy(names(22)[:12])
	for _, n := range names(22)[:12] {
		delete(stale, n)
	}
	must(t, s.PutIndex(ctx, m.scope(), map[string]any{"batch_users": stale}))
	looks(t, 1)
	if len(m.held) != 10 {
		t.Errorf("holds %d", len(m.held))
	}
}

// removedMachine is one whose own index says so, in a poll and for as long as it does.
func removedMachine(t *testing.T, newSource NewSource) {
	ctx, s := t.Context(), server(t)
	m := settled(t, newSource, s, vaulttest.MachineOptions{})
	must(t, s.PutBatchUser(ctx, "platforms/unix", "shared", user("shared")))
	m.syncOK()
	must(t, s.PutIndex(ctx, "platforms/unix", map[string]any{"removed": true, "batch_users": map[string]any{"shared": 1}}))
	m.syncOK() // that is for machines alone
	if len(m.held) != 5 {
		t.Errorf("holds %d documents, want 5", len(m.held))
	}
	must(t, s.PutIndex(ctx, m.scope(), map[string]any{"removed": true}))
	for _, want := range [][]string{ // indexes alone
		{ownIndexMeta, ownIndex, unixIndexMeta},
		{ownIndexMeta, ownIndex, unixIndexMeta, unixIndex}, // whose version was forgotten
		{ownIndexMeta, ownIndex, unixIndexMeta, unixIndex},
	} {
		m.asks(s, func() {
			if r := m.poll(); r.Code != errand.OK || !strings.Contains(r.Detail, "removed") {
				t.Errorf("got %q, %q", r.Code, r.Detail)
			}
		}, want...)
		m.holds()
	}
	m.syncOK()
	m.holds()
	must(t, s.PutIndex(ctx, m.scope(), map[string]any{}))
	m.poll()
	if len(m.held) != 5 {
		t.Errorf("taken back: holds %d documents, want 5", len(m.held))
	}
}
