package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"batchwarden/platform/lockmem"
	"batchwarden/vault/sealed"
	"batchwarden/vault/snapshot"
)

// open measures how long one of many credentials takes from the local vault
// into a slot of locked memory, and what that leaves to the collector.
func (m *many) open() (err error) {
	arena, err := lockmem.New(4)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, arena.Close()) }()
	kek, err := arena.Key()
	if err != nil {
		return err
	}
	defer arena.Drop(kek)
	if err := kek.Random(32); err != nil {
		return err
	}
	store, err := sealed.Open(filepath.Join(m.Root, "open"), &sealed.Key{Kind: "keyfile", ID: "bench", KEK: kek}, arena)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	ctx := context.Background()
	var records []sealed.Record
	var generation uint64
	err = store.NewBatch(ctx, func(g uint64, key *lockmem.Buffer) error {
		generation = g
		for _, name := range m.names {
			e := snapshot.Entry{
				ID: snapshot.ID{Kind: snapshot.BatchUserKind, Scope: "machines/bench", Name: name}, Version: 1, Created: time.Now(),
				BatchUser: &snapshot.BatchUser{Username: name, Kind: "password", Platform: "unix", Launch: true},
			}
			r, err := sealed.Seal(g, key.Key(), e, []byte("the password of "+name))
			if err != nil {
				return err
			}
			records = append(records, r)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if err := store.Apply(ctx, sealed.Change{Generation: generation, Put: records}); err != nil {
		return err
	}
	held, err := store.Entries(ctx)
	if err != nil {
		return err
	}
	i := 0
	one := func(slot *lockmem.Buffer) error { return store.OpenSecret(held[i%len(held)], slot) }
	result := testing.Benchmark(func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			i++
			if failed := arena.Borrow(ctx, one); failed != nil {
				err = failed
				b.FailNow()
			}
		}
	})
	if err != nil {
		return fmt.Errorf("open a credential: %w", err)
	}
	m.add("opening one credential", float64(result.NsPerOp())/1000, 4, "us")
	m.add("allocations of that", float64(result.AllocsPerOp()), 0, "")
	return nil
}
