package refresh

import (
	"testing"

	"batchwarden/vault/snapshot"
)

func TestEntriesStayInOrder(t *testing.T) {
	of := func(scope, name string, version int64) *snapshot.Held {
		return &snapshot.Held{Entry: snapshot.Entry{ID: snapshot.ID{Scope: scope, Kind: snapshot.BatchUserKind, Name: name}, Version: version}}
	}
	put := func(list ...*snapshot.Held) map[snapshot.ID]*snapshot.Held {
		m := map[snapshot.ID]*snapshot.Held{}
		for _, h := range list {
			m[h.ID] = h
		}
		return m
	}
	var e entries
	e.put(put(of("machines/b", "x", 1), of("groups/a", "z", 1), of("machines/b", "a", 1)))
	e.put(put(of("machines/b", "a", 2), of("groups/a", "b", 1)))
	e.remove(map[snapshot.ID]bool{of("groups/a", "z", 0).ID: true, of("groups/a", "none", 0).ID: true})
	got := ""
	for _, h := range e {
		got += h.ID.Scope + " " + h.ID.Name + " "
		if e.get(h.ID) != h {
			t.Errorf("%s is not found", h.ID)
		}
	}
	if got != "machines/b a groups/a b machines/b x " {
		t.Errorf("got %q", got)
	}
	if h := e.get(of("machines/b", "a", 0).ID); h == nil || h.Version != 2 {
		t.Errorf("got %+v, want version 2", h)
	}
	if h := e.get(of("groups/a", "z", 0).ID); h != nil {
		t.Errorf("got %+v, want none", h)
	}
}
