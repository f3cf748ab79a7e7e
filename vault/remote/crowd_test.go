package remote_test

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"batchwarden/vault/errand"
	"batchwarden/vault/vaulttest"
)

// TestSoakCrowd has 100,000 batch users in one scope of the real server: as many
// as there is room for are taken, the scope is confirmed, and the rest is named
// once, however often it is looked at. Without BATCHWARDEN_SOAK the room itself
// is tested by TestAdmit.
func TestSoakCrowd(t *testing.T) {
	if os.Getenv("BATCHWARDEN_SOAK") == "" {
		t.Skip("writes 100,000 documents; run: make soak SOAK=Crowd")
	}
	ctx := t.Context()
	s, err := vaulttest.Start(ctx, vaulttest.Options{})
	must(t, err)
	defer s.Close()
	must(t, s.Init(ctx))
	src, _ := prepared(t, s, 10)
	next := make(chan int)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range next {
				if err := s.PutBatchUser(ctx, "machines/db01", fmt.Sprintf("u%05d", i), map[string]any{"username": "u", "password": "p"}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range 100000 {
		next <- i
	}
	close(next)
	wg.Wait()

	known, report := syncOnce(t, src, &errand.Task{Generation: 1, Sweep: true}, nil)
	for range 2 {
		if len(known) != 20000 || report.Code != errand.OK || !report.Scopes[0].Read {
			t.Fatalf("holds %d: %q, %s", len(known), report.Code, report.Detail)
		}
		if f := report.Faults; len(f) != 1 || f[0].Path != "machines/db01/batch_users" || !strings.HasPrefix(f[0].Detail, "80000 documents are left out") {
			t.Errorf("got faults %v", f)
		}
		var more []errand.Known
		more, report = syncOnce(t, src, &errand.Task{Generation: 2, Sweep: true}, known)
		if len(more) != 0 || len(report.Removed) != 0 {
			t.Errorf("a second run brought %d and removed %d", len(more), len(report.Removed))
		}
	}
}
