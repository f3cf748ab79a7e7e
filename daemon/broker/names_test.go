package broker

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"batchwarden/daemon/config"
	"batchwarden/platform/account"
	"batchwarden/platform/launch"
	"batchwarden/platform/peer"
)

// directory is a launcher whose resolver answers, from its second answer on, what a directory service says.
type directory struct {
	Launcher
	asked atomic.Int32
}

func (d *directory) Resolve(context.Context, launch.Names) (launch.Numbers, error) {
	switch d.asked.Add(1) {
	case 1:
		return launch.Numbers{}, errors.New("no launcher")
	case 2:
		return launch.Numbers{Users: map[string]uint32{"root": 0}, Lost: map[string]string{"user far": "does not answer", "group ops": "does not exist"}}, nil
	}
	return launch.Numbers{Users: map[string]uint32{"root": 0, "far": 70001}, Groups: map[string]uint32{"ops": 70002}}, nil
}

// TestNames: a name that only a directory service knows matches once that answers, and until then is a problem that says
// why. What a client has used of its rate stays used.
func TestNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &config.Config{Clients: []config.Client{{Name: "far", Match: config.Match{User: "far"}, Concurrent: 1}}}
		c.Operators.Users, c.Operators.Groups = []string{"root"}, []string{"ops"}
		d := &directory{}
		b := &Broker{Parts: Parts{Config: c, Launcher: d, Log: slog.New(slog.DiscardHandler)}}
		first := newCallers(c, namesIn(c).In(account.System()), nil)
		b.view.Store(&view{config: c, callers: first})
		far := &peer.Peer{UID: 70001, Groups: []uint32{70002}}
		if len(first.problems) != 2 || !first.stranger(far) {
			t.Errorf("from the files alone: %+v", first.problems)
		}
		if _, why := first.entries[0].allowed.enter(time.Now()); why != "" {
			t.Fatal(why)
		}

		begun := make(chan struct{}, 1)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- b.WatchNames(ctx, begun) }()
		begun <- struct{}{}
		time.Sleep(nameSoon)
		synctest.Wait()
		if n := d.asked.Load(); n != 1 {
			t.Errorf("asked %d times", n)
		}
		if b.view.Load().callers != first {
			t.Error("without a launcher others are in force")
		}
		time.Sleep(nameRetry)
		synctest.Wait()
		if cs := b.view.Load().callers; len(cs.problems) != 2 || cs.problems[0].Detail != `user "far": does not answer; the entry matches nobody` || !cs.stranger(far) {
			t.Errorf("got %+v", cs.problems)
		}
		time.Sleep(nameRetry)
		synctest.Wait()
		cs := b.view.Load().callers
		if len(cs.problems) != 0 || cs.stranger(far) || !cs.operates(far) {
			t.Errorf("got %+v", cs)
		}
		if _, why := cs.entries[0].allowed.enter(time.Now()); why == "" {
			t.Error("what runs already was forgotten")
		}
		time.Sleep(10 * nameRetry)
		synctest.Wait()
		if n := d.asked.Load(); n != 3 {
			t.Errorf("asked %d times, although all names are known", n)
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}
