package broker

import (
	"strings"
	"testing"
	"time"

	"batchwarden/daemon/config"
	"batchwarden/ipc/wire"
	"batchwarden/platform/launch"
	"batchwarden/vault/snapshot"
)

func everything(*wire.Event) bool { return true }

func TestEventsAreBounded(t *testing.T) {
	e := newEvents(time.UnixMicro(1000))
	if _, next, _, gone := e.page(0, everything); gone || next != 1000 {
		t.Errorf("empty: next %d, gone %v", next, gone)
	}
	for range maxEvents + 10 {
		e.add(wire.Event{Type: wire.StateChanged})
	}
	oldest := uint64(1000 + 10)
	if _, _, _, gone := e.page(oldest-1, everything); !gone {
		t.Error("what follows was dropped, and nobody is told")
	}
	found, next, _, gone := e.page(oldest, everything)
	if gone || len(found) != maxEventPage || found[0].Seq != oldest+1 || next != found[len(found)-1].Seq {
		t.Errorf("got %d events to %d, gone %v", len(found), next, gone)
	}
	last := oldest + maxEvents
	if found, next, _, gone := e.page(last, everything); gone || len(found) > 0 || next != last {
		t.Errorf("at the end: %d events to %d, gone %v", len(found), next, gone)
	}
	if _, _, _, gone := e.page(last+1, everything); !gone {
		t.Error("a number that was never given is answered")
	}
	none := func(*wire.Event) bool { return false }
	if found, next, _, _ := e.page(oldest, none); len(found) > 0 || next != last {
		t.Errorf("for others: %d events to %d", len(found), next)
	}
	long := map[string]string{"x": strings.Repeat("y", 64<<10)}
	for range 1000 {
		e.add(wire.Event{Type: wire.JobEnded, Job: &wire.Job{Labels: long}})
	}
	if e.bytes > maxEventBytes || len(e.list) > maxEventBytes>>16 {
		t.Errorf("%d octets in %d events are kept", e.bytes, len(e.list))
	}
}

// TestAJobStartsBeforeItEnds: also when its end is seen first.
func TestAJobStartsBeforeItEnds(t *testing.T) {
	job := func(serial uint64) *launch.Job {
		return &launch.Job{Serial: serial, PID: 7, Started: time.Now().Add(time.Second), State: launch.StateExited, EndSeq: serial}
	}
	e := newEvents(time.Now())
	e.jobEnded(job(1)) // quicker than the launcher's answer
	e.jobStarted(job(1))
	e.jobStarted(job(2))
	e.jobEnded(job(2))
	old := job(3) // launched through an earlier daemon
	old.Started = time.Now().Add(-time.Hour)
	e.jobEnded(old)
	failed := &launch.Job{Serial: 4, Started: time.Now().Add(time.Second), State: launch.StateFailed, EndSeq: 4}
	e.jobStarted(failed)
	e.jobEnded(failed)
	var got []string
	for _, w := range e.list {
		got = append(got, strings.TrimPrefix(w.Type, "job.")+":"+w.Job.State)
	}
	want := "started:running ended:exited started:running ended:exited ended:exited ended:failed"
	if text := strings.Join(got, " "); text != want {
		t.Errorf("got  %s\nwant %s", text, want)
	}
	if len(e.told)+len(e.caught) > 0 {
		t.Errorf("remembered for nothing: %v %v", e.told, e.caught)
	}
}

// TestWhoHears: a client learns of its own, an operator of everything.
func TestWhoHears(t *testing.T) {
	client := caller{client: &config.Client{Name: "lsam", Realms: []string{"opcon"}, BatchUsers: []string{"pay*"}}}
	for _, c := range []struct {
		event wire.Event
		want  bool
	}{
		{wire.Event{Job: &wire.Job{Client: "lsam"}}, true},
		{wire.Event{Job: &wire.Job{Client: "other"}}, false},
		{wire.Event{BatchUser: "payroll"}, true},
		{wire.Event{BatchUser: "reports"}, false},
		{wire.Event{Realm: "opcon"}, true},
		{wire.Event{Realm: "automic"}, false},
		{wire.Event{State: "online"}, true},
	} {
		if got := client.hears(&c.event); got != c.want {
			t.Errorf("%+v: got %v", c.event, got)
		}
		operator, stranger := caller{operator: true}, caller{}
		if !operator.hears(&c.event) || stranger.hears(&c.event) {
			t.Errorf("%+v: an operator %v, a stranger %v", c.event, operator.hears(&c.event), stranger.hears(&c.event))
		}
	}
}

// TestWhatIsSynced: each name once, and a removed one only if nothing took its place.
func TestWhatIsSynced(t *testing.T) {
	held := snapshot.Held{Entry: snapshot.Entry{ID: snapshot.ID{Scope: "platforms/unix", Kind: snapshot.BatchUserKind, Name: "payroll"}, Version: 7,
		BatchUser: &snapshot.BatchUser{Username: "payroll", Platform: "unix"}}}
	known := snapshot.New("db01", []*snapshot.Held{&held})
	e := newEvents(time.Now())
	e.synced([]string{"platforms/unix/batch_users/payroll", "platforms/unix/policies/opcon"}, known, false)
	e.synced([]string{"machines/db01/batch_users/payroll", "machines/db01/batch_users/gone"}, known, true)
	if len(e.list) != 2 || e.list[0].BatchUser != "payroll" || e.list[0].Version != 7 || e.list[0].Removed || e.list[1].BatchUser != "gone" || !e.list[1].Removed {
		t.Errorf("got %+v", e.list)
	}
}
