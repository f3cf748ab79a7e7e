package refresh

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"batchwarden/platform/hostkey"
	"batchwarden/platform/lockmem"
	"batchwarden/vault/errand"
	"batchwarden/vault/sealed"
	"batchwarden/vault/snapshot"
)

const scope = "machines/db01"

// answer is what a worker brings for a task, sealed with the key it was given.
type answer struct {
	put    []entry
	early  bool // a token goes ahead
	silent bool // no report follows
	report errand.Report
}

type entry struct {
	snapshot.Entry
	password string
}

// play speaks the worker's side of the two pipes in this process. The program
// that does it in earnest is tested in daemon/cmd/batchwarden-sync.
type play struct {
	answer func(*errand.Task) (answer, error)
	put    func() // after each document, if not nil
	tasks  []errand.Task
	asks   bool           // for what is known
	again  bool           // asks a second time
	known  []errand.Known // the answer to the last one that asked
	stay   chan struct{}  // if not nil: the worker ends when it is closed, long after its report
	had    string         // the token that the last one got, opened
}

func (p *play) Sync(_ context.Context, stdin, stdout *os.File) error {
	keys, task, orders, err := errand.Receive(stdin)
	if err != nil {
		return err
	}
	p.tasks = append(p.tasks, *task)
	out := errand.NewWriter(stdout)
	if p.asks {
		if err := out.Message(errand.Message{WantKnown: true}); err != nil {
			return err
		}
		if p.known, err = orders.Known(); err != nil {
			return err
		}
		if p.again {
			return out.Message(errand.Message{WantKnown: true})
		}
	}
	a, err := p.answer(task)
	if err != nil {
		return err
	}
	p.had = ""
	if task.Token != nil {
		text, err := sealed.OpenToken(&keys.Token, task.Token)
		if err != nil {
			return err
		}
		p.had = string(text)
	}
	if a.early {
		token, err := sealed.SealToken(task.Generation, &keys.Batch, []byte("early token"))
		if err != nil {
			return err
		}
		if err := out.Message(errand.Message{Token: &token}); err != nil {
			return err
		}
	}
	for _, e := range a.put {
		record, err := sealed.Seal(task.Generation, &keys.Batch, e.Entry, []byte(e.password))
		if err != nil {
			return err
		}
		if err := out.Message(errand.Message{Put: &record}); err != nil {
			return err
		}
		if p.put != nil {
			p.put()
		}
	}
	if a.report.Token != nil {
		token, err := sealed.SealToken(task.Generation, &keys.Batch, []byte("token"))
		if err != nil {
			return err
		}
		a.report.Token = &token
	}
	if a.silent {
		return nil
	}
	stay := p.stay
	err = out.Message(errand.Message{Report: &a.report})
	if stay != nil {
		<-stay
	}
	return err
}

var created = time.Date(2026, 11, 22, 1, 0, 0, 0, time.UTC)

func batchUser(name string, version int64) entry {
	return entry{snapshot.Entry{
		ID: snapshot.ID{Scope: scope, Kind: snapshot.BatchUserKind, Name: name}, Version: version, Created: created.Add(time.Duration(version) * time.Minute),
		BatchUser: &snapshot.BatchUser{Username: name, Platform: "unix", Kind: "password", Launch: true},
	}, "password-of-" + name}
}

func policyDoc(text string, version int64) entry {
	return entry{Entry: snapshot.Entry{
		ID: snapshot.ID{Scope: scope, Kind: snapshot.PolicyKind, Name: "opcon"}, Version: version, Created: created.Add(time.Duration(version) * time.Minute),
		Policy: &snapshot.Policy{Model: "opcon", Document: []byte(text)},
	}}
}

func wholeScope() errand.Report {
	return errand.Report{Code: OK, Scopes: []errand.Scope{{Scope: scope, Code: OK, Read: true}}}
}

// host is a machine with a local vault that outlives its refresher, and with
// clocks that the test sets.
type host struct {
	t       *testing.T
	dir     string
	options Options
	worker  play
	known   *snapshot.Snapshot
	changed int // snapshots that came into force
	vault   *sealed.Store
	disk    gate
	witness witness
	noticed []string
	r       *Refresher

	wall time.Time
	up   time.Duration
	boot string
}

// gate is the local vault, which says that the disk is full when it is told to.
type gate struct {
	*sealed.Store
	full    bool
	changes []sealed.Change // that were written
}

func (g *gate) Apply(ctx context.Context, c sealed.Change) error {
	if err := g.Store.Apply(ctx, c); err != nil {
		return err
	}
	g.changes = append(g.changes, c)
	if g.full {
		return sealed.ErrUnwritten
	}
	return nil
}

// witness does what the launcher does, and can be away.
type witness struct {
	highest uint64
	away    bool
}

func (w *witness) Witness(_ context.Context, number uint64, settle bool) (uint64, error) {
	if w.away {
		return 0, errors.New("no launcher")
	}
	if settle || number > w.highest {
		w.highest = number
	}
	return w.highest, nil
}

func newHost(t *testing.T) *host {
	h := &host{t: t, dir: t.TempDir(), wall: created.Add(1000 * time.Hour), up: time.Hour, boot: "first", options: Options{
		Interval: time.Minute, Sweep: time.Hour, MaxStale: 72 * time.Hour, PolicyMaxStale: 24 * time.Hour,
	}}
	h.start()
	return h
}

// pass lets time pass.
func (h *host) pass(d time.Duration) { h.wall, h.up = h.wall.Add(d), h.up+d }

// start opens the vault and a refresher, as a daemon that starts does.
func (h *host) start() {
	h.t.Helper()
	arena, err := lockmem.New(8)
	if err != nil {
		h.t.Fatal(err)
	}
	key, err := hostkey.Open("keyfile:"+filepath.Join(h.dir, "key"), h.vault == nil, arena)
	if err != nil {
		h.t.Fatal(err)
	}
	if h.vault != nil {
		if err := h.vault.Close(); err != nil {
			h.t.Fatal(err)
		}
	}
	if h.vault, err = sealed.Open(filepath.Join(h.dir, "vault"), &sealed.Key{KEK: key.KEK, Kind: key.Kind, ID: key.ID}, arena); err != nil {
		h.t.Fatal(err)
	}
	h.disk = gate{Store: h.vault}
	o := h.options
	o.Machine, o.Scopes, o.Store, o.Worker, o.Witness = "db01", []string{scope}, &h.disk, &h.worker, &h.witness
	o.Clock = NewClock(func() time.Time { return h.wall }, func() time.Duration { return h.up }, h.boot)
	o.Check = func(e *snapshot.Entry) error {
		if strings.Contains(string(e.Policy.Document), "faulty") {
			return errors.New("roles.x: faulty")
		}
		return nil
	}
	o.Activate = func(s *snapshot.Snapshot) { h.known, h.changed = s, h.changed+1 }
	o.Changed = func(put, removed []string) {}
	o.Noticed = func(code, _ string) { h.noticed = append(h.noticed, code) }
	o.Log = slog.New(slog.DiscardHandler)
	if h.r, err = New(h.t.Context(), o); err != nil {
		h.t.Fatal(err)
	}
}

// restart is what becomes of a daemon that is stopped and started.
func (h *host) restart() {
	h.t.Helper()
	h.r.end(h.t.Context())
	h.start()
}

// reboot is a restart after which nothing tells how long it took.
func (h *host) reboot(boot string) {
	h.t.Helper()
	h.r.end(h.t.Context())
	h.up, h.boot = time.Minute, boot
	h.start()
}

// sync lets the worker bring this when it is sent out to look at everything.
func (h *host) sync(report errand.Report, put ...entry) State {
	h.t.Helper()
	return h.send(task{sweep: true}, report, put...)
}

// poll lets the worker bring this when it is sent out as usual.
func (h *host) poll(report errand.Report, put ...entry) State {
	h.t.Helper()
	return h.send(h.r.due(h.r.o.Clock.Now()), report, put...)
}

func (h *host) send(t task, report errand.Report, put ...entry) State {
	h.brings(report, put...)
	s := h.r.attempt(h.t.Context(), t)
	s.NextAttempt = h.r.next(s.LastAttempt, h.r.o.Clock.Now(), s.Code)
	h.r.publish(s)
	return s
}

// brings is what the worker will come back with.
func (h *host) brings(report errand.Report, put ...entry) {
	h.worker.answer = func(*errand.Task) (answer, error) { return answer{put: put, report: report}, nil }
}

// orders is what the worker was told last.
func (h *host) orders() errand.Task { return h.worker.tasks[len(h.worker.tasks)-1] }

func (h *host) user(name string) *snapshot.User {
	for _, u := range h.known.Users() {
		if u.Name == name {
			return u
		}
	}
	return &snapshot.User{Held: &snapshot.Held{}}
}

func (h *host) version(name string) int64 { return h.user(name).Version }

// age is how long ago Vault confirmed it.
func (h *host) age(name string) time.Duration {
	return h.r.o.Clock.Now().Sub(h.user(name).Confirmed)
}

func TestWhatASyncChanges(t *testing.T) {
	h := newHost(t)
	if s := h.sync(wholeScope(), batchUser("payroll", 1), batchUser("reports", 1), policyDoc("good", 1)); s.Code != OK || s.Changed != 3 {
		t.Fatalf("first sync: %+v", s)
	}
	t.Run("the worker learns what is known and gets its token back", func(t *testing.T) {
		with := wholeScope()
		with.Token = &sealed.Token{}
		h.sync(with)
		h.worker.asks = true
		h.sync(wholeScope())
		h.worker.asks = false
		last := h.worker.tasks[len(h.worker.tasks)-1]
		if len(h.worker.known) != 3 || last.Held[scope] != 3 || last.Token == nil {
			t.Errorf("task: %+v, known %+v", last, h.worker.known)
		}
	})
	t.Run("a newer version replaces, an older one does not", func(t *testing.T) {
		if s := h.sync(wholeScope(), batchUser("payroll", 3)); s.Changed != 1 || h.version("payroll") != 3 {
			t.Errorf("%+v, version %d", s, h.version("payroll"))
		}
		if s := h.sync(wholeScope(), batchUser("payroll", 2)); s.Changed != 0 || len(s.Faults) != 1 || h.version("payroll") != 3 {
			t.Errorf("%+v, version %d, want the older one refused", s, h.version("payroll"))
		}
	})
	t.Run("one that comes twice is one", func(t *testing.T) {
		if s := h.sync(wholeScope(), batchUser("payroll", 4), batchUser("payroll", 4), batchUser("reports", 2)); s.Code != OK || s.Changed != 2 || h.version("payroll") != 4 {
			t.Errorf("%+v, version %d", s, h.version("payroll"))
		}
	})
	t.Run("a document of a scope that is not configured is refused", func(t *testing.T) {
		foreign := batchUser("payroll", 9)
		foreign.ID.Scope = "machines/other"
		if s := h.sync(wholeScope(), foreign); s.Changed != 0 || len(s.Faults) != 1 {
			t.Errorf("%+v", s)
		}
	})
	t.Run("a faulty policy leaves the last good one, also after a restart", func(t *testing.T) {
		if s := h.sync(wholeScope(), policyDoc("faulty", 2)); s.Changed != 0 || len(s.Faults) != 1 {
			t.Errorf("%+v", s)
		}
		h.start()
		p, ok := h.known.Policy("opcon")
		if !ok || string(p.Policy.Document) != "good" || p.Fault == "" {
			t.Errorf("in force: %+v", p)
		}
	})
	t.Run("what was removed stays removed after a restart", func(t *testing.T) {
		gone := wholeScope()
		gone.Removed = []errand.Removed{{ID: batchUser("reports", 1).ID, Why: "deleted"}}
		if s := h.sync(gone); s.Removed != 1 || h.version("reports") != 0 {
			t.Errorf("%+v", s)
		}
		h.start()
		if h.version("reports") != 0 || h.version("payroll") != 4 {
			t.Errorf("after a restart: reports %d, payroll %d", h.version("reports"), h.version("payroll"))
		}
	})
}

func TestFailuresChangeNothing(t *testing.T) {
	h := newHost(t)
	h.sync(wholeScope(), batchUser("payroll", 1))
	before := h.known.Users()[0].Confirmed
	h.pass(time.Second)
	for name, fail := range map[string]func(*errand.Task) (answer, error){
		"the worker does not run": func(*errand.Task) (answer, error) { return answer{}, errors.New("no worker") },
		"Vault is not reachable": func(*errand.Task) (answer, error) {
			return answer{report: errand.Report{Code: "vault.unreachable"}}, nil
		},
		"the login is refused": func(*errand.Task) (answer, error) {
			return answer{report: errand.Report{Code: errand.LoginRefused}}, nil
		},
		"the scope cannot be read": func(*errand.Task) (answer, error) {
			return answer{report: errand.Report{Code: "vault.forbidden", Scopes: []errand.Scope{{Scope: scope}}}}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			h.worker.answer = fail
			s := h.r.attempt(t.Context(), task{sweep: true})
			if s.Code == OK || s.OfflineSince.IsZero() || h.version("payroll") != 1 {
				t.Errorf("%+v, version %d", s, h.version("payroll"))
			}
			if got := h.known.Users()[0].Confirmed; !got.Equal(before) {
				t.Errorf("confirmed %s, want %s: a failure makes nothing fresher", got, before)
			}
		})
	}
	if s := h.sync(wholeScope()); s.Code != OK || !s.OfflineSince.IsZero() || !h.known.Users()[0].Confirmed.After(before) {
		t.Errorf("afterwards: %+v", s)
	}
}

// A refused newer document must not look fresh for ever because Vault keeps
// answering: the age of the one in force counts from the last time that Vault
// had no newer one.
func TestARefusedDocumentAges(t *testing.T) {
	h := newHost(t)
	h.sync(wholeScope(), policyDoc("good", 1))
	p, _ := h.known.Policy("opcon")
	before := p.Confirmed
	for range 2 {
		h.pass(time.Second)
		h.sync(wholeScope(), policyDoc("faulty", 2))
		if p, _ = h.known.Policy("opcon"); !p.Confirmed.Equal(before) {
			t.Errorf("confirmed %s, want %s", p.Confirmed, before)
		}
	}
	h.start()
	if p, _ = h.known.Policy("opcon"); !p.Confirmed.Equal(before) {
		t.Errorf("after a restart: confirmed %s, want %s", p.Confirmed, before)
	}
	h.sync(wholeScope(), policyDoc("better", 3))
	if p, _ = h.known.Policy("opcon"); !p.Confirmed.After(before) || p.Fault != "" {
		t.Errorf("mended: %+v", p)
	}
}

// TestAReportIsEnough has a worker that reports and does not end.
func TestAReportIsEnough(t *testing.T) {
	h := newHost(t)
	stay := make(chan struct{})
	h.worker.stay = stay
	accepted := make(chan State, 1)
	go func() { accepted <- h.sync(wholeScope(), batchUser("payroll", 1)) }()
	select {
	case s := <-accepted:
		if s.Code != OK || s.Changed != 1 || h.version("payroll") != 1 {
			t.Errorf("%+v", s)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("what was reported is not accepted before the worker has ended")
	}
	h.worker.stay = nil
	begun := make(chan struct{})
	h.worker.answer = func(*errand.Task) (answer, error) {
		close(begun)
		return answer{report: wholeScope(), put: []entry{batchUser("payroll", 2)}}, nil
	}
	go func() { accepted <- h.r.attempt(t.Context(), task{sweep: true}) }()
	select {
	case <-begun:
		t.Error("two workers at the same time")
	case <-time.After(50 * time.Millisecond):
	}
	close(stay)
	if s := <-accepted; s.Changed != 1 {
		t.Errorf("%+v", s)
	}
}

// TestAWorkerThatAsksTwice has brought nothing.
func TestAWorkerThatAsksTwice(t *testing.T) {
	h := newHost(t)
	h.sync(wholeScope(), batchUser("payroll", 1))
	h.worker.asks, h.worker.again = true, true
	if s := h.sync(wholeScope(), batchUser("payroll", 2)); s.Code != NoWorker || h.version("payroll") != 1 || len(h.worker.known) != 1 {
		t.Errorf("%+v, version %d, known %+v", s, h.version("payroll"), h.worker.known)
	}
	h.worker.again = false
	if s := h.sync(wholeScope(), batchUser("payroll", 2)); s.Code != OK || h.version("payroll") != 2 {
		t.Errorf("the next one: %+v", s)
	}
}

// TestHowFarASyncHasCome: the state counts the documents while they arrive, and none when the sync is over.
func TestHowFarASyncHasCome(t *testing.T) {
	h := newHost(t)
	all := make([]entry, 1000) // more than the worker holds back to write at once
	for i := range all {
		all[i] = batchUser(fmt.Sprintf("payroll-%03d", i), 1)
	}
	left, seen := len(all), 0
	h.worker.put = func() {
		left--
		for deadline := time.Now().Add(10 * time.Second); left == 0 && seen == 0 && time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			seen = h.r.State().Arrived
		}
	}
	s := h.sync(wholeScope(), all...)
	if seen == 0 || seen > len(all) || s.Changed != len(all) || s.Arrived != 0 || h.r.State().Arrived != 0 {
		t.Errorf("seen %d of %d, at the end %d and %d", seen, s.Changed, s.Arrived, h.r.State().Arrived)
	}
}
