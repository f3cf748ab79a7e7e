package refresh

import (
	"context"
	"errors"
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
	tasks  []errand.Task
}

func (p *play) Sync(_ context.Context, stdin, stdout *os.File) error {
	keys, task, err := errand.Receive(stdin)
	if err != nil {
		return err
	}
	p.tasks = append(p.tasks, *task)
	a, err := p.answer(task)
	if err != nil {
		return err
	}
	out := errand.NewWriter(stdout)
	for _, e := range a.put {
		record, err := sealed.Seal(task.Generation, &keys.Batch, e.Entry, []byte(e.password))
		if err != nil {
			return err
		}
		if err := out.Message(errand.Message{Put: &record}); err != nil {
			return err
		}
	}
	if a.report.Token != nil {
		token, err := sealed.SealToken(task.Generation, &keys.Batch, []byte("token"))
		if err != nil {
			return err
		}
		a.report.Token = &token
	}
	return out.Message(errand.Message{Report: &a.report})
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

// host is a machine with a local vault that outlives its refresher.
type host struct {
	t      *testing.T
	dir    string
	worker play
	known  *snapshot.Snapshot
	store  *sealed.Store
	r      *Refresher
}

func newHost(t *testing.T) *host {
	h := &host{t: t, dir: t.TempDir()}
	h.start()
	return h
}

// start opens the vault and a refresher, as a daemon that starts does.
func (h *host) start() {
	h.t.Helper()
	arena, err := lockmem.New(8)
	if err != nil {
		h.t.Fatal(err)
	}
	key, err := hostkey.Open("keyfile:"+filepath.Join(h.dir, "key"), h.store == nil, arena)
	if err != nil {
		h.t.Fatal(err)
	}
	if h.store != nil {
		if err := h.store.Close(); err != nil {
			h.t.Fatal(err)
		}
	}
	if h.store, err = sealed.Open(filepath.Join(h.dir, "vault"), &sealed.Key{KEK: key.KEK, Kind: key.Kind, ID: key.ID}, arena); err != nil {
		h.t.Fatal(err)
	}
	h.r, err = New(h.t.Context(), Options{
		Machine: "db01", Scopes: []string{scope}, Interval: time.Minute, Store: h.store, Worker: &h.worker,
		Check: func(e *snapshot.Entry) error {
			if strings.Contains(string(e.Policy.Document), "faulty") {
				return errors.New("roles.x: faulty")
			}
			return nil
		},
		Activate: func(s *snapshot.Snapshot) { h.known = s },
		Changed:  func(put, removed []string) {},
		Log:      slog.New(slog.DiscardHandler),
	})
	if err != nil {
		h.t.Fatal(err)
	}
}

// sync lets the worker bring this.
func (h *host) sync(report errand.Report, put ...entry) State {
	h.worker.answer = func(*errand.Task) (answer, error) { return answer{put, report}, nil }
	s := h.r.attempt(h.t.Context())
	h.r.publish(s)
	return s
}

func (h *host) version(name string) int64 {
	for _, u := range h.known.Users() {
		if u.Name == name {
			return u.Version
		}
	}
	return 0
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
		h.sync(wholeScope())
		last := h.worker.tasks[len(h.worker.tasks)-1]
		if len(last.Known) != 3 || last.Token == nil {
			t.Errorf("task: %+v", last)
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
		if h.version("reports") != 0 || h.version("payroll") != 3 {
			t.Errorf("after a restart: reports %d, payroll %d", h.version("reports"), h.version("payroll"))
		}
	})
}

func TestFailuresChangeNothing(t *testing.T) {
	h := newHost(t)
	h.sync(wholeScope(), batchUser("payroll", 1))
	before := h.known.Users()[0].Confirmed
	for name, fail := range map[string]func(*errand.Task) (answer, error){
		"the worker does not run": func(*errand.Task) (answer, error) { return answer{}, errors.New("no worker") },
		"Vault is not reachable": func(*errand.Task) (answer, error) {
			return answer{report: errand.Report{Code: "vault.unreachable"}}, nil
		},
		"the login is refused": func(*errand.Task) (answer, error) { return answer{report: errand.Report{Code: loginRefused}}, nil },
		"the scope cannot be read": func(*errand.Task) (answer, error) {
			return answer{report: errand.Report{Code: "vault.forbidden", Scopes: []errand.Scope{{Scope: scope}}}}, nil
		},
	} {
		t.Run(name, func(t *testing.T) {
			h.worker.answer = fail
			s := h.r.attempt(t.Context())
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

// A full disk must not keep alive what Vault has revoked, not even across the
// restart that comes after there is room again.
func TestARemovalThatTheDiskDoesNotTake(t *testing.T) {
	h := newHost(t)
	h.sync(wholeScope(), batchUser("payroll", 1), batchUser("reports", 1))
	gone := wholeScope()
	gone.Removed = []errand.Removed{{ID: batchUser("payroll", 1).ID, Why: "deleted"}}
	h.worker.answer = func(*errand.Task) (answer, error) { return answer{report: gone}, nil }
	b, err := h.r.fetch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	b.report.Token = &sealed.Token{Generation: b.generation + 1} // stands in for the full disk: the vault refuses the change
	if _, err := h.r.accept(t.Context(), b); err == nil {
		t.Fatal("the vault took a token of another batch")
	}
	if h.version("payroll") != 0 || h.version("reports") != 1 {
		t.Errorf("served: payroll %d, reports %d", h.version("payroll"), h.version("reports"))
	}
	h.sync(wholeScope())
	h.start()
	if h.version("payroll") != 0 || h.version("reports") != 1 {
		t.Errorf("after the next sync and a restart: payroll %d, reports %d", h.version("payroll"), h.version("reports"))
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

func TestDelay(t *testing.T) {
	r := &Refresher{o: Options{Interval: 30 * time.Second}}
	within := func(code string, want time.Duration) {
		t.Helper()
		if d := r.delay(code); d < want*9/10 || d > want*11/10+time.Second {
			t.Errorf("after %s: %s, want about %s", code, d, want)
		}
	}
	within(OK, 30*time.Second)
	for _, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		within("vault.unreachable", want*time.Second)
	}
	within(OK, 30*time.Second)
	within("vault.unreachable", time.Second)
	for range 20 {
		r.delay(loginRefused)
	}
	within(loginRefused, 300*time.Second)
}
