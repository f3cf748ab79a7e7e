package daemon_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"sync"
	"syscall"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// crashBed is a bed whose documents change all the time, and what its daemon has
// said of them.
type crashBed struct {
	*testbed.Bed
	t      *testing.T
	random *rand.Rand

	names     []string                    // of the batch users that stay
	passwords map[string]map[int64]string // every version that Vault ever had, by name
	now       map[string]int64            // the version that Vault has

	seen map[string]int64 // the highest version that the daemon has named
	gone map[string]bool  // the daemon had it and then said that it has it no more
}

// put writes the next version of a batch user.
func (b *crashBed) put(name string) {
	b.t.Helper()
	version := b.now[name] + 1
	password := fmt.Sprintf("pw %s %d %016x", name, version, b.random.Uint64())
	if err := b.Vault.PutBatchUser(b.t.Context(), testbed.Scope, name, map[string]any{
		"username": b.Accounts.Payroll.Name, "password": password, "retrieve": true,
		"names": map[string]string{testbed.Realm: "users/" + name},
	}); err != nil {
		b.t.Fatal(err)
	}
	if b.passwords[name] == nil {
		b.passwords[name] = map[int64]string{}
	}
	b.passwords[name][version], b.now[name] = password, version
}

// note takes in what the daemon says that it has.
func (b *crashBed) note(list wire.BatchUsers) {
	there := map[string]bool{}
	for _, u := range list.BatchUsers {
		if b.passwords[u.Name] == nil {
			continue // the bed's own
		}
		there[u.Name] = true
		if b.gone[u.Name] {
			b.t.Errorf("%s is back, which the daemon had removed", u.Name)
		}
		if u.Version < b.seen[u.Name] {
			b.t.Errorf("%s: version %d, and the daemon had %d", u.Name, u.Version, b.seen[u.Name])
		}
		b.seen[u.Name] = max(b.seen[u.Name], u.Version)
	}
	for name, version := range b.seen {
		if there[name] {
			continue
		}
		if b.now[name] != 0 && !b.gone[name] {
			b.t.Errorf("%s is lost: the daemon had version %d, and Vault has it still", name, version)
		}
		b.gone[name] = true
	}
}

// ask is Call until ctx ends: a connection may wait for the next daemon, which
// this test then does not start.
func (b *crashBed) ask(ctx context.Context, method, path string, answer any) error {
	client := b.Client(testbed.Root)
	defer client.CloseIdleConnections()
	r, err := http.NewRequestWithContext(ctx, method, "http://batchwarden"+path, nil)
	if err != nil {
		return err
	}
	res, err := client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	return json.NewDecoder(res.Body).Decode(answer)
}

// watch notes what the daemon says, until ctx ends.
func (b *crashBed) watch(ctx context.Context) {
	for ctx.Err() == nil {
		var list wire.BatchUsers
		if b.ask(ctx, "GET", "/v1/batch-users", &list) == nil && list.BatchUsers != nil {
			b.note(list)
		}
	}
}

// serves checks every password that the daemon hands out against what it is in
// the version that the daemon names. The daemon must have no less than before.
func (b *crashBed) serves(when string) {
	b.t.Helper()
	for _, name := range b.names {
		a := call(b.t, b.Bed, b.Accounts.LSAM, "POST", "/v1/batch-users/"+name+"/retrieve", retrieveBody())
		var version int64
		_, err := fmt.Sscan(a.Header.Get(wire.HeaderVersion), &version)
		if a.Status != 200 || err != nil || version < b.seen[name] || string(a.Body) != b.passwords[name][version] {
			b.t.Errorf("%s: %s: %d %s, version %d, want the password of version %d or later", when, name, a.Status, a.Code(), version, b.seen[name])
		}
	}
	for name := range b.gone {
		want(b.t, call(b.t, b.Bed, b.Accounts.LSAM, "POST", "/v1/batch-users/"+name+"/retrieve", retrieveBody()), 404, wire.BatchUserUnknown)
	}
	b.note(read[wire.BatchUsers](b.t, call(b.t, b.Bed, testbed.Root, "GET", "/v1/batch-users", nil)))
	status, err := b.Status()
	if v := status.LocalVault; err != nil || v.Quarantined != 0 || v.Error != "" {
		b.t.Errorf("%s: the local vault: %+v, %v", when, v, err)
	}
}

// change does to Vault what a busy day does, and adds one that stays two rounds.
func (b *crashBed) change(round int) {
	b.t.Helper()
	for range 6 {
		b.put(b.names[b.random.IntN(len(b.names))])
	}
	b.put(fmt.Sprintf("passing-%d", round))
	if old := fmt.Sprintf("passing-%d", round-2); b.passwords[old] != nil {
		if err := b.Vault.DestroyBatchUser(b.t.Context(), testbed.Scope, old); err != nil {
			b.t.Fatal(err)
		}
		delete(b.now, old)
	}
}

// freeze stops the Vault server in its tracks, so that nobody has any contact
// with it, and returns how to let it go on.
func (b *crashBed) freeze() (thaw func()) {
	b.t.Helper()
	pid := b.VaultPID()
	if err := syscall.Kill(pid, syscall.SIGSTOP); pid == 0 || err != nil {
		b.t.Fatalf("process %d: %v", pid, err)
	}
	thaw = sync.OnceFunc(func() {
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			b.t.Error(err)
		}
	})
	b.t.Cleanup(thaw)
	return thaw
}

// startLauncher starts it until it stays up, as the service manager would: a
// worker that the last one was just starting may hold its lock for a moment.
func (b *crashBed) startLauncher() {
	b.t.Helper()
	killed := time.Now()
	for deadline := killed.Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if !b.Launcher.Running() {
			if err := b.StartLauncher(); err != nil {
				b.t.Fatal(err)
			}
		}
		s, err := b.Status()
		if err == nil && s.Launcher.Connected && s.Launcher.Since.After(killed) && b.Launcher.Running() {
			return
		}
	}
	b.t.Fatalf("the daemon has no launcher: %s", b.Launcher.LogTail(5))
}

// Daemon, worker and launcher are killed in the middle of syncs, over and over.
// A daemon that starts again serves before it has any contact with Vault, loses
// nothing that it ever said it had, and brings back nothing that it said was
// gone.
func TestSoakKills(t *testing.T) {
	b := &crashBed{
		Bed: testbed.New(t, testbed.Options{OnDisk: true}), t: t, random: rand.New(rand.NewPCG(testbed.Seed(), 0)),
		passwords: map[string]map[int64]string{}, now: map[string]int64{}, seen: map[string]int64{}, gone: map[string]bool{},
	}
	var logins []string
	for i := range 20 {
		b.names = append(b.names, fmt.Sprintf("stays-%d", i))
		logins = append(logins, "users/"+b.names[i])
		b.put(b.names[i])
	}
	grant(t, b.Bed, logins...)
	b.change(0)
	begun := time.Now()
	synced(t, b.Bed)
	usual := time.Since(begun)
	b.serves("at first")

	var slowest time.Duration
	kills := map[string]int{}
	begun = time.Now()
	for round := 1; (round <= 30 || time.Since(begun) < testbed.Soak(0)) && !t.Failed(); round++ {
		b.change(round)
		var busy sync.WaitGroup
		var outcome wire.Sync
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		stop := func() {
			cancel()
			busy.Wait()
		}
		busy.Go(func() { _ = b.ask(ctx, "POST", "/v1/sync", &outcome) }) // it is cut off
		busy.Go(func() { b.watch(ctx) })
		// There is no event to wait for: any moment is as good as another.
		time.Sleep(time.Duration(b.random.Int64N(int64(usual * 3))))
		when := fmt.Sprintf("round %d", round)
		switch victim := round % 6; {
		case victim < 4:
			kills["daemon"]++
			thaw := b.freeze()
			b.Daemon.Kill()
			stop()
			start := time.Now()
			if err := b.StartDaemon(); err != nil {
				t.Fatal(err)
			}
			if err := b.WaitHealthy(); err != nil {
				t.Fatal(err)
			}
			slowest = max(slowest, time.Since(start))
			b.serves(when + ": before any contact")
			if s, err := b.Status(); err != nil || s.State != wire.StateOffline {
				t.Errorf("%s: state %q, %v; want offline, as nobody answers", when, s.State, err)
			}
			thaw()
		case victim == 4:
			if pid := worker(b.Bed); pid != 0 && syscall.Kill(pid, syscall.SIGKILL) == nil {
				kills["worker"]++
			}
			stop()
			b.serves(when + ": after the worker")
		default:
			kills["launcher"]++
			b.Launcher.Kill()
			stop()
			b.startLauncher()
			b.serves(when + ": after the launcher")
		}
		if outcome.Outcome == "ok" && outcome.Changed+outcome.Removed > 0 {
			kills["too late"]++
		}
	}
	t.Logf("a sync takes %v; kills: %v; slowest start %v", usual, kills, slowest)
	for deadline := time.Now().Add(10 * time.Second); ; {
		if s, err := b.Sync(); err == nil && s.Outcome == "ok" {
			break
		} else if time.Now().After(deadline) {
			t.Fatalf("in the end: %+v, %v", s, err)
		}
	}
	b.serves("in the end")
	users := batchUsers(t, b.Bed)
	for name, version := range b.now {
		if users[name].Version != version {
			t.Errorf("in the end: %s has version %d, want %d", name, users[name].Version, version)
		}
	}
	for name := range b.passwords {
		if _, there := users[name]; there && b.now[name] == 0 {
			t.Errorf("in the end: %s is still there", name)
		}
	}
}
