package daemon_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
)

// What the programs may have grown by at the end of the soak, beside a quarter: the events that the daemon keeps may
// take 16 MiB, and the collector lets as much again lie for a while.
const soakMemory = 32 << 20

// A siege is a service that some use as they should while others do all they can to hold it up.
type siege struct {
	*testbed.Bed
	t   *testing.T
	ids string // the file to which every job appends its id

	daemon, launcher held // at first

	mu     sync.Mutex // guards the rest
	jobs   map[string]job
	once   map[string]bool // the ids that must be in the file
	ends   map[string]int  // how many ends of each calm job the events told
	took   map[string][]time.Duration
	deeds  map[string]int
	number int
}

// job is a launch that may have been granted.
type job struct {
	as   testbed.Account
	body []byte
}

// add notes a launch before it is made, and returns its body.
func (s *siege) add(as testbed.Account, name string, change map[string]any) (id string, text []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.number++
	id = fmt.Sprintf("%s-%d", name, s.number)
	all := body(map[string]any{"id": id, "command": []string{"/bin/sh", "-c", "echo " + id + " >>" + s.ids}})
	for member, v := range change {
		all[member] = v
	}
	text, err := json.Marshal(all)
	if err != nil {
		panic(err)
	}
	s.jobs[id], s.once[id] = job{as, text}, true
	return id, text
}

func (s *siege) note(what string, begun time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.took[what] = append(s.took[what], time.Since(begun))
}

// ask makes a request and wants this status, or one of these.
func (s *siege) ask(c *http.Client, method, path string, body []byte, statuses ...int) []byte {
	r, err := http.NewRequest(method, "http://x"+path, bytes.NewReader(body))
	if err != nil {
		panic(err)
	}
	resp, err := c.Do(r)
	if err != nil {
		s.t.Errorf("%s %s: %v", method, path, err)
		return nil
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || !slices.Contains(statuses, resp.StatusCode) {
		s.t.Errorf("%s %s: %d %s, %v", method, path, resp.StatusCode, text, err)
		return nil
	}
	return text
}

// over waits until the job is done.
func (s *siege) over(c *http.Client, id string) (j wire.Job) {
	for {
		text := s.ask(c, "GET", "/v1/jobs/"+id+"?wait=30s", nil, 200)
		if text == nil {
			return j
		}
		if err := json.Unmarshal(text, &j); err != nil {
			s.t.Errorf("%s: %v", text, err)
			return j
		}
		if j.Done() {
			return j
		}
	}
}

// calm launches jobs, one after another, until the context ends. Three of four times its connection breaks in the
// middle, and it asks again.
func (s *siege) calm(ctx context.Context) {
	lsam := s.Accounts.LSAM
	c := s.Client(lsam)
	defer c.CloseIdleConnections()
	question, err := json.Marshal(question("jdoe"))
	if err != nil {
		panic(err)
	}
	for n := 0; ctx.Err() == nil; n++ {
		id, text := s.add(lsam, "calm", nil)
		whole := plain("POST", "/v1/jobs", text)
		switch n % 4 {
		case 1:
			s.drop(lsam, whole, 0)
		case 2:
			s.drop(lsam, whole[:rand.IntN(len(whole))], 0)
		case 3:
			s.drop(lsam, whole, time.Duration(rand.Int64N(int64(4*time.Millisecond))))
		}
		begun := time.Now()
		s.ask(c, "POST", "/v1/jobs", text, 200, 201)
		s.note("launch", begun)
		if j := s.over(c, id); j.State != wire.Exited || j.ExitCode == nil || *j.ExitCode != 0 {
			s.t.Errorf("%s: %+v", id, j)
		}
		s.note("launch to end", begun)
		begun = time.Now()
		s.ask(c, "POST", "/v1/authorize", question, 200)
		s.note("authorize", begun)
	}
}

// drop writes something and then breaks the connection.
func (s *siege) drop(as testbed.Account, text []byte, after time.Duration) {
	conn, err := s.Dial(context.Background(), as)
	if err != nil {
		s.t.Error(err)
		return
	}
	defer conn.Close() // that is the point
	if _, err := conn.Write(text); err != nil {
		s.t.Error(err)
	}
	time.Sleep(after) // anything may happen meanwhile
}

// watch follows the events of the calm client, by one request after another, until the context ends and it has seen all.
func (s *siege) watch(ctx context.Context, after uint64) {
	c := s.Client(s.Accounts.LSAM)
	defer c.CloseIdleConnections()
	for {
		last := ctx.Err() != nil
		text := s.ask(c, "GET", fmt.Sprintf("/v1/events?after=%d&wait=1s", after), nil, 200)
		var page wire.Events
		if err := json.Unmarshal(text, &page); err != nil {
			s.t.Errorf("%s: %v", text, err)
			return
		}
		after = page.Next
		s.mu.Lock()
		for _, e := range page.Events {
			if e.Type == wire.JobEnded {
				s.ends[e.Job.ID]++
			}
		}
		s.mu.Unlock()
		if last && len(page.Events) == 0 {
			return
		}
	}
}

// round lets everybody do their worst for so long, and then looks whether every job ran once.
func (s *siege) round(long time.Duration) {
	ctx, cancel := context.WithTimeout(s.t.Context(), long)
	defer cancel()
	from := events(s.t, s.Bed, s.Accounts.LSAM, "").Next
	for page := events(s.t, s.Bed, s.Accounts.LSAM, fmt.Sprintf("after=%d", from)); len(page.Events) > 0; { // to the last
		from = page.Next
		page = events(s.t, s.Bed, s.Accounts.LSAM, fmt.Sprintf("after=%d", from))
	}
	var all, watching sync.WaitGroup
	watched, stop := context.WithCancel(s.t.Context())
	defer stop()
	watching.Go(func() { s.watch(watched, from) })
	for range 4 {
		all.Go(func() { s.calm(ctx) })
	}
	s.misbehave(ctx, &all)
	all.Wait()
	s.reckon()
	stop()
	watching.Wait()
	s.told()
}

// reckon asks for every job once more, as an agent would that does not know what became of it, waits until it is done,
// and has it forgotten; each has run once then.
func (s *siege) reckon() {
	s.t.Helper()
	watched := s.daemon
	watched.descriptors++                    // the watcher's connection
	settled(s.t, s.Bed, watched, s.launcher) // no request is on its way any more
	clients := map[uint32]*http.Client{}
	for id, j := range s.jobs {
		c := clients[j.as.UID]
		if c == nil {
			c = s.Client(j.as)
			defer c.CloseIdleConnections()
			clients[j.as.UID] = c
		}
		if j.body != nil {
			s.ask(c, "POST", "/v1/jobs", j.body, 200, 201)
		}
		s.over(c, id)
		s.ask(c, "DELETE", "/v1/jobs/"+id, nil, 204)
	}
	clear(s.jobs)
	text, err := os.ReadFile(s.ids)
	if err != nil {
		s.t.Fatal(err)
	}
	ran := map[string]int{}
	for _, id := range strings.Fields(string(text)) {
		ran[id]++
		if !s.once[id] {
			s.t.Errorf("%q ran, and nobody launched it", id)
		}
	}
	for id := range s.once {
		if ran[id] != 1 {
			s.t.Errorf("%s ran %d times", id, ran[id])
		}
	}
}

// told looks whether the events told the end of each calm job once.
func (s *siege) told() {
	s.t.Helper()
	for id := range s.once {
		if n := s.ends[id]; strings.HasPrefix(id, "calm-") && n != 1 {
			s.t.Errorf("the end of %s was told %d times", id, n)
		}
	}
}

// usual uses everything once, so that what is made at the first use is there.
func (s *siege) usual() {
	s.t.Helper()
	run(s.t, s.Bed, nil)
	null := opened(s.t, os.DevNull, os.O_RDWR)
	conn := lsamConn(s.t, s.Bed)
	j := read[wire.Job](s.t, exchange(s.t, conn, bufio.NewReader(conn), "POST", "/v1/jobs", body(map[string]any{"stdio": "passed"}), null, null, null))
	if err := conn.Close(); err != nil {
		s.t.Fatal(err)
	}
	ended(s.t, s.Bed, j.ID)
	want(s.t, call(s.t, s.Bed, s.Accounts.LSAM, "POST", "/v1/batch-users/payroll/retrieve", retrieveBody()), 200, "")
	call(s.t, s.Bed, s.Accounts.Stranger, "GET", "/v1/whoami", nil)
	if err := s.WaitAudited(); err != nil {
		s.t.Fatal(err)
	}
}

func newSiege(t *testing.T) *siege {
	t.Helper()
	s := &siege{t: t, jobs: map[string]job{}, once: map[string]bool{}, ends: map[string]int{}, took: map[string][]time.Duration{}, deeds: map[string]int{}}
	accounts := func(b *testbed.Bed) []string {
		return []string{"{rogue}", b.Accounts.Stranger.Name, "{flood}", b.Accounts.Reports.Name, "{lsam}", b.Accounts.LSAM.Name}
	}
	s.Bed = testbed.New(t, testbed.Options{})
	s.ids = filepath.Join(s.Accounts.Payroll.Home, "ids")
	limits := strings.NewReplacer(accounts(s.Bed)...).Replace("version: 1\nrequesters: [{lsam}, {rogue}]\n")
	if err := os.WriteFile(s.LimitsFile(), []byte(limits), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Remove(s.ids); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Error(err)
		}
	})
	reconfigure(t, s.Bed, withClients(s.Bed, strings.NewReplacer(accounts(s.Bed)...).Replace(`
  - {name: lsam, match: {user: {lsam}}, realms: [opcon], may: [authorize, launch, retrieve], subjects: {users: ["*"]}, batch_users: ["*"]}
  - {name: rogue, match: {user: {rogue}}, realms: [opcon], may: [authorize, launch, retrieve], subjects: {users: ["*"]}, batch_users: ["*"]}
  - {name: flood, match: {user: {flood}}, realms: [opcon], may: [authorize], subjects: {users: ["*"]}, batch_users: ["*"], rate: 50/s, concurrent: 8}
`)))
	return s
}

// TestSoakHostile: whatever misbehaving clients do, the others are served, no job is lost and none runs twice, and in
// the end the daemon and the launcher hold what they held before.
func TestSoakHostile(t *testing.T) {
	s := newSiege(t)
	s.usual()
	atRest(t, s.Daemon)
	daemon, launcher := goroutines(t, s.Daemon), goroutines(t, s.Launcher)
	for _, start := range []func() error{s.StartLauncher, s.StartDaemon, s.WaitOnline} {
		if err := start(); err != nil {
			t.Fatal(err)
		}
	}
	s.usual()
	s.daemon, s.launcher = atRest(t, s.Daemon), atRest(t, s.Launcher)
	t.Logf("at first: daemon %s, %d goroutines; launcher %s, %d goroutines", s.daemon, sum(daemon), s.launcher, sum(launcher))

	total := testbed.Soak(30 * time.Second)
	const most = 75 * time.Second
	var d1, l1, d, l held // after the first round, which warms up, and after the last one
	for begun, rounds := time.Now(), 0; (rounds < 2 || time.Since(begun) < total) && !t.Failed(); rounds++ {
		if rounds == 0 {
			s.round(min(total/3, most))
			d1, l1 = settled(t, s.Bed, s.daemon, s.launcher)
			d, l = d1, l1
			t.Logf("warmed up: daemon %s; launcher %s", d1, l1)
			continue
		}
		s.round(min(max(total-time.Since(begun), total/3), most))
		d, l = settled(t, s.Bed, s.daemon, s.launcher)
		t.Logf("after %s: daemon %s; launcher %s", time.Since(begun).Round(time.Second), d, l)
	}
	for _, p := range []struct {
		name          string
		before, after held
	}{{"daemon", d1, d}, {"launcher", l1, l}} {
		if most := p.before.memory + p.before.memory/4 + soakMemory; p.after.memory > most {
			t.Errorf("the %s has grown to %s from %s", p.name, p.after, p.before)
		}
	}
	for what, took := range s.took {
		slices.Sort(took)
		t.Logf("%d times %s: p50 %s, p99 %s", len(took), what, took[len(took)/2], took[len(took)*99/100])
	}
	t.Logf("%d jobs; misdeeds: %v", len(s.once), s.deeds)
	for name, n := range s.deeds {
		if n == 0 {
			t.Errorf("nobody did %s", name)
		}
	}
	status, err := s.Status()
	if err != nil || len(status.Problems) > 0 || status.Jobs.Running > 0 {
		t.Errorf("in the end: %+v, %v", status, err)
	}
	settled(t, s.Bed, s.daemon, s.launcher)
	if list := grown(daemon, goroutines(t, s.Daemon)); list != nil {
		t.Errorf("the daemon has more goroutines: %v", list)
	}
	if list := grown(launcher, goroutines(t, s.Launcher)); list != nil {
		t.Errorf("the launcher has more goroutines: %v", list)
	}
}
