package remote_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"batchwarden/vault/errand"
	"batchwarden/vault/remote"
	"batchwarden/vault/sealed"
	"batchwarden/vault/vaulttest"
)

// BenchmarkSync measures a machine with 1,000 batch users against the real
// server: all of them new, and none of them changed.
func BenchmarkSync(b *testing.B) {
	ctx := b.Context()
	s, err := vaulttest.Start(ctx, vaulttest.Options{})
	must(b, err)
	defer s.Close()
	must(b, s.Init(ctx))
	role, secret, err := s.AddMachine(ctx, "db01", "unix")
	must(b, err)
	for i := range 1000 {
		must(b, s.PutBatchUser(ctx, "machines/db01", fmt.Sprintf("u%04d", i), map[string]any{"username": "u", "password": "p"}))
	}
	dir := b.TempDir()
	auth := remote.Auth{Method: remote.AppRole, RoleIDFile: filepath.Join(dir, "role_id"), SecretIDFile: filepath.Join(dir, "secret_id")}
	must(b, os.WriteFile(auth.RoleIDFile, []byte(role), 0o600))
	must(b, os.WriteFile(auth.SecretIDFile, []byte(secret), 0o600))
	src, err := remote.New(remote.Config{Machine: "db01", Platforms: []string{"unix"}, Address: s.Address, CAFile: s.CAFile, Mount: vaulttest.Mount, Auth: auth})
	must(b, err)
	var known []errand.Known
	sync := func(b *testing.B, known []errand.Known) (got []errand.Known) {
		r, err := src.Sync(ctx, &errand.Keys{}, &errand.Task{Generation: 1, Known: known}, func(r sealed.Record) error {
			got = append(got, errand.Known{ID: r.ID, Version: r.Version, Created: r.Created})
			return nil
		})
		must(b, err)
		if r.Code != errand.OK {
			b.Fatalf("got %q: %s", r.Code, r.Detail)
		}
		return got
	}
	b.Run("first", func(b *testing.B) {
		for b.Loop() {
			if known = sync(b, nil); len(known) != 1000 {
				b.Fatalf("brought %d", len(known))
			}
		}
	})
	b.Run("unchanged", func(b *testing.B) {
		for b.Loop() {
			if got := sync(b, known); len(got) != 0 {
				b.Fatalf("brought %d", len(got))
			}
		}
	})
}

func must(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}
