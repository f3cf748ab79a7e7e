package daemon_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

func events(t *testing.T, b *testbed.Bed, as testbed.Account, query string) wire.Events {
	t.Helper()
	return read[wire.Events](t, call(t, b, as, "GET", "/v1/events?"+query, nil))
}

// told asks for events until it has seen one.
func told(t *testing.T, b *testbed.Bed, after uint64, one func(wire.Event) bool) (list wire.Events) {
	t.Helper()
	list.Next = after
	for deadline := time.Now().Add(20 * time.Second); !slices.ContainsFunc(list.Events, one); {
		page := events(t, b, b.Accounts.LSAM, fmt.Sprintf("after=%d&wait=10s", list.Next))
		list.Events, list.Next = append(list.Events, page.Events...), page.Next
		if time.Now().After(deadline) {
			t.Fatalf("not told: %+v", list)
		}
	}
	return list
}

func TestEvents(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	lsam := b.Accounts.LSAM
	at := told(t, b, 0, func(e wire.Event) bool { return e.Type == wire.StateChanged && e.State == wire.StateOnline }).Next
	job, _ := run(t, b, map[string]any{"id": "told"})
	list := told(t, b, at, func(e wire.Event) bool { return e.Type == wire.JobEnded })
	for i, kind := range []string{wire.JobStarted, wire.JobEnded} {
		if e := list.Events[i]; e.Type != kind || e.Job == nil || e.Job.ID != job.ID || e.Seq <= at {
			t.Errorf("got %+v, want %s of %s", e, kind, job.ID)
		}
	}
	if e := list.Events[0]; e.Job.State != wire.Running || e.Job.PID != job.PID || e.Job.ExitCode != nil {
		t.Errorf("start: %+v", e.Job)
	}
	if e := list.Events[1]; !e.Job.Done() || e.Job.ExitCode == nil || *e.Job.ExitCode != 0 {
		t.Errorf("end: %+v", e.Job)
	}

	t.Run("one request waits for many jobs", func(t *testing.T) {
		at := list.Next
		open := map[string]bool{}
		for i := range 20 {
			id := fmt.Sprintf("many-%d", i)
			open[id] = true
			want(t, call(t, b, lsam, "POST", "/v1/jobs", body(map[string]any{"id": id, "command": []string{"/bin/sleep", "0.2"}})), 201, "")
		}
		for deadline := time.Now().Add(20 * time.Second); len(open) > 0; {
			page := events(t, b, lsam, fmt.Sprintf("after=%d&wait=10s", at))
			at = page.Next
			for _, e := range page.Events {
				if e.Type == wire.JobEnded {
					delete(open, e.Job.ID)
				}
			}
			if time.Now().After(deadline) {
				t.Fatalf("not told of %v", open)
			}
		}
	})
	t.Run("what is synced", func(t *testing.T) {
		at := events(t, b, lsam, "").Next
		if err := b.PutDocument("fresh", map[string]any{"username": b.Accounts.Payroll.Name, "kind": "none"}); err != nil {
			t.Fatal(err)
		}
		grant(t, b, "users/more")
		seen := map[string]wire.Event{}
		for _, e := range told(t, b, at, func(e wire.Event) bool { return e.Type == wire.BatchUserChanged }).Events {
			seen[e.Type] = e
		}
		if e := seen[wire.BatchUserChanged]; e.BatchUser != "fresh" || e.Version != 1 || e.Removed {
			t.Errorf("batch user: %+v among %v", e, seen)
		}
		if e := seen[wire.PolicyActivated]; e.Realm != testbed.Realm || e.Version < 2 {
			t.Errorf("policy: %+v among %v", e, seen)
		}
	})
	t.Run("others learn nothing of it", func(t *testing.T) {
		want(t, call(t, b, b.Accounts.Stranger, "GET", "/v1/events", nil), 403, wire.CallerUnknown)
		all := events(t, b, testbed.Root, "after=0")
		if len(all.Events) < len(list.Events) {
			t.Errorf("an operator sees %d", len(all.Events))
		}
	})
	t.Run("waiting ends", func(t *testing.T) {
		at := events(t, b, lsam, "").Next
		begun := time.Now()
		if e := events(t, b, lsam, fmt.Sprintf("after=%d&wait=300ms", at)); len(e.Events) > 0 || e.Next < at || time.Since(begun) > 5*time.Second {
			t.Errorf("got %+v after %s", e, time.Since(begun))
		}
	})
	for _, query := range []string{"after=x", "after=-1", "wait=soon", "since=1"} {
		want(t, call(t, b, lsam, "GET", "/v1/events?"+query, nil), 400, wire.RequestInvalid)
	}
	for _, after := range []uint64{1, list.Next + 1<<40} {
		want(t, call(t, b, lsam, "GET", fmt.Sprintf("/v1/events?after=%d", after), nil), 410, wire.EventsGone)
	}
	if err := b.RestartDaemon(); err != nil {
		t.Fatal(err)
	}
	want(t, call(t, b, lsam, "GET", fmt.Sprintf("/v1/events?after=%d", list.Next), nil), 410, wire.EventsGone)
}
