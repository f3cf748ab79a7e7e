package remote

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"batchwarden/vault/documents"
	"batchwarden/vault/errand"
	"batchwarden/vault/snapshot"
)

func TestAdmit(t *testing.T) {
	names := func(n int, form string) []snapshot.ID {
		ids := make([]snapshot.ID, n)
		for i := range ids {
			ids[i] = userID(fmt.Sprintf(form, i))
		}
		return ids
	}
	admit := func(k knowledge, ids []snapshot.ID, m *room) *view {
		v := &view{scope: here, seen: map[snapshot.ID]sight{}}
		v.admit(k, ids, m)
		return v
	}
	t.Run("a_hundred_thousand", func(t *testing.T) {
		m := &room{maxDocuments, map[snapshot.ID]bool{}}
		ids := names(100000, "u%06d")
		v := admit(knowledge{}, ids, m)
		if len(v.seen) != maxDocuments || m.left != 0 {
			t.Errorf("took %d with room for %d more", len(v.seen), m.left)
		}
		if len(v.faults) != 1 || v.faults[0].Path != here+"/batch_users" || v.faults[0].Detail != "80000 documents are left out: a machine takes 20000 in all" {
			t.Errorf("got faults %v", v.faults)
		}
		again := admit(knowledge{}, ids, m)
		if len(again.seen) != maxDocuments {
			t.Errorf("a second look took %d", len(again.seen))
		}
		if v := admit(knowledge{}, []snapshot.ID{policyID("opcon")}, m); len(v.seen) != 0 || len(v.faults) != 1 {
			t.Errorf("took %v, faults %v where there was no room", v.seen, v.faults)
		}
	})
	t.Run("what_is_known_stays", func(t *testing.T) {
		known := names(maxDocuments, "z%06d")
		k := knows(known...)
		v := admit(k, append(names(10, "a%06d"), known...), &room{0, map[snapshot.ID]bool{}})
		if len(v.seen) != maxDocuments || len(v.faults) != 1 {
			t.Errorf("took %d, faults %v", len(v.seen), v.faults)
		}
		for id := range v.seen {
			v.seen[id] = at(3, 0)
		}
		if d := decide(k, v); !d.scope.Read || len(d.removed) != 0 || d.open {
			t.Errorf("got %+v, removed %d, open %v: a scope that is too large is still confirmed", d.scope, len(d.removed), d.open)
		}
	})
}

// TestTaskFits holds the most that can be known, with names and sources as long
// as they may be, against the frames that it goes through.
func TestTaskFits(t *testing.T) {
	text := func(n int) string { return string(slices.Repeat([]byte{'x'}, n)) }
	task := errand.Task{Generation: 1, Held: map[string]int{}}
	var known []errand.Known
	for i := range maxDocuments {
		known = append(known, errand.Known{
			ID:      snapshot.ID{Scope: "platforms/" + text(61), Kind: snapshot.BatchUserKind, Name: text(56) + fmt.Sprintf("%05d", i)},
			Version: 1 << 40, Created: time.Date(2026, 12, 31, 23, 59, 59, 123456789, time.UTC), Turn: 1 << 40, Mark: make([]byte, markSize), Source: text(documents.MaxSource),
		})
	}
	for i := range maxFaults {
		task.Refused = append(task.Refused, errand.Refused{ID: known[i].ID, Version: 1 << 40, Created: known[i].Created, Detail: text(maxDetail)})
	}
	w, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := errand.Send(w, &task); err != nil {
		t.Error(err)
	}
	if err := errand.SendKnown(w, slices.Values(known)); err != nil {
		t.Error(err)
	}
}
