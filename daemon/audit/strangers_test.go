package audit

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"
)

// However often strangers come, they cost a bounded number of records, and
// every refusal is counted in one.
func TestRefusalsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "audit.jsonl")
		l, err := Open(file, Options{Sync: time.Second})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- l.Run(ctx) }()
		refuse := func(uid uint32, code string, times int) {
			t.Helper()
			for range times {
				if err := l.AppendRefusal(&Record{Kind: Authorize, Verdict: Deny, Code: code, Peer: &Peer{PID: 1, UID: uid, User: "u"}}); err != nil {
					t.Fatal(err)
				}
			}
		}
		refuse(1000, "caller.unknown", 1)
		refuse(1001, "caller.unknown", 5000)
		refuse(1001, "overloaded", 2)
		got := lines(t, file)
		if len(got) != 3 || got[1].Peer.UID != 1001 || got[1].Kind != Authorize {
			t.Fatalf("at once: %+v, want the first of each", got)
		}
		time.Sleep(50 * time.Second)
		refuse(1001, "caller.unknown", 1)
		time.Sleep(visitsOver)
		synctest.Wait()
		counts := map[string]int64{}
		for _, r := range lines(t, file)[3:] {
			if r.Kind != Refused || r.Verdict != Deny || r.Since.IsZero() || r.Peer.User != "u" || r.Peer.PID != 0 {
				t.Errorf("%+v", r)
			}
			counts[fmt.Sprint(r.Peer.UID, r.Code)] += r.Count
		}
		if fmt.Sprint(counts) != "map[1001caller.unknown:5000 1001overloaded:1]" {
			t.Errorf("counted %v", counts)
		}

		// In another minute the first one is written again.
		before := len(lines(t, file))
		refuse(1001, "caller.unknown", 3)
		if got := lines(t, file); len(got) != before+1 {
			t.Errorf("%d records more", len(got)-before)
		}
		// Many users, each with a refusal of his own, and more than are counted one by one.
		for uid := range uint32(1000) {
			refuse(5000+uid, "caller.unknown", 2)
		}
		if got := lines(t, file); len(got) != before+mostGuests {
			t.Errorf("%d records of %d users", len(got)-before, 1000)
		}
		cancel() // and the end of the service loses no count
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		sum := int64(0)
		for _, r := range lines(t, file)[before:] {
			if sum += max(r.Count, 1); r.Count > 0 && r.Peer == nil && r.Reason == "" {
				t.Errorf("%+v", r)
			}
		}
		if sum != 3+2000 {
			t.Errorf("%d refusals are told of, want 2003", sum)
		}
		sound(t, file)
	})
}
