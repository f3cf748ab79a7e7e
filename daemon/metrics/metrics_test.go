package metrics

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	dto "github.com/prometheus/client_model/go"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/broker"
	"batchwarden/ipc/wire"
	"batchwarden/platform/lockmem"
)

// known is a machine with so many batch users.
type known int

func (known) Now() time.Time { return time.Now() }
func (known) Picture() wire.Status {
	return wire.Status{State: wire.StateOnline, Problems: []wire.Finding{{Code: "a"}, {Code: "b"}, {Code: "a"}}}
}

func (n known) Standings() iter.Seq[broker.Standing] {
	return func(yield func(broker.Standing) bool) {
		for i := range int(n) {
			s := broker.Standing{
				Name: fmt.Sprintf("u%d", i), Scope: "machines/m", State: "ready", Version: 1,
				Age: time.Duration(i) * time.Second, StaleIn: time.Duration(1000-i) * time.Second,
				Rotates: i%2 == 1, RotatesIn: time.Duration(i-5) * time.Minute,
			}
			if !yield(s) {
				return
			}
		}
	}
}

// log is one that is well.
type log struct{}

func (log) Stats() audit.Stats { return audit.Stats{Records: 7, Free: -1} }
func (log) Err() error         { return nil }
func (log) Low() string        { return "" }
func (log) Lost() uint64       { return 0 }

type arena struct{}

func (arena) Usage() lockmem.Usage { return lockmem.Usage{Slots: 64, InUse: 3, Waited: 2, Refused: 1} }

func watching(n int) *Metrics {
	m := New(Options{Realms: []string{"opcon"}, Version: `v"1\` + "\n\xff"})
	m.Watch(Source{Broker: known(n), Audit: log{}, Arena: arena{}})
	return m
}

// parse reads a page as Prometheus does.
func parse(t *testing.T, m *Metrics) map[string]*dto.MetricFamily {
	t.Helper()
	page, err := m.Page()
	if err != nil {
		t.Fatal(err)
	}
	parser := expfmt.NewTextParser(model.LegacyValidation)
	all, err := parser.TextToMetricFamilies(bytes.NewReader(page))
	if err != nil {
		t.Fatalf("%v in\n%s", err, page)
	}
	return all
}

// label is the value of one of a series.
func label(m *dto.Metric, name string) string {
	for _, l := range m.Label {
		if l.GetName() == name {
			return l.GetValue()
		}
	}
	return ""
}

func TestPage(t *testing.T) {
	if page, err := New(Options{}).Page(); len(page) > 0 || err != nil {
		t.Errorf("before Watch: %s, %v", page, err)
	}
	m := watching(3)
	m.Called(Launch, 3*time.Millisecond, nil)
	m.Called(Launch, time.Minute, wire.NewProblem(wire.PolicyDenied, ""))
	m.Called(Retrieve, 0, errors.New("broken pipe"))
	all := parse(t, m)

	times := all["batchwarden_request_seconds"]
	for _, one := range times.Metric {
		if one.Label[0].GetValue() != Launch {
			continue
		}
		h := one.Histogram
		if h.GetSampleCount() != 2 || h.GetSampleSum() != 60.003 {
			t.Errorf("%d launches in %v s", h.GetSampleCount(), h.GetSampleSum())
		}
		for _, b := range h.Bucket {
			want := uint64(1)
			switch {
			case b.GetUpperBound() < 0.003:
				want = 0
			case b.GetUpperBound() > 60:
				want = 2
			}
			if b.GetCumulativeCount() != want {
				t.Errorf("%d launches took at most %v s", b.GetCumulativeCount(), b.GetUpperBound())
			}
		}
	}
	codes := map[string]float64{}
	for _, one := range all["batchwarden_requests_total"].Metric {
		codes[one.Label[0].GetValue()+" "+one.Label[1].GetValue()] = one.Counter.GetValue()
	}
	if fmt.Sprint(codes) != "map[launch :1 launch policy.denied:1 retrieve failed:1]" {
		t.Errorf("requests: %v", codes)
	}
	if v := label(all["batchwarden_build_info"].Metric[0], "version"); v != "v\"1\\\n?" {
		t.Errorf("version %q", v)
	}
	if p := all["batchwarden_problems"].Metric; len(p) != 2 || p[0].Gauge.GetValue() != 2 {
		t.Errorf("problems: %v", p)
	}
	if m := all["batchwarden_audit_free_bytes"].GetMetric(); len(m) != 0 {
		t.Errorf("room that is not known: %v", m)
	}
}

// TestDocumented: METRICS.md has all metrics, those too that nobody has counted or set yet, and no others.
func TestDocumented(t *testing.T) {
	m, there := watching(3), map[string]int{}
	series := make(chan prometheus.Metric, 1000)
	p := &stand{to: series}
	m.look(m.source.Load(), p)
	for _, name := range p.families {
		there[name]++
	}
	descriptions := make(chan *prometheus.Desc, 1000)
	m.registry.Describe(descriptions)
	for range len(descriptions) {
		_, name, _ := strings.Cut((<-descriptions).String(), `fqName: "`)
		name, _, _ = strings.Cut(name, `"`)
		there[name]++
	}
	text, err := os.ReadFile("METRICS.md")
	if err != nil {
		t.Fatal(err)
	}
	described := map[string]int{}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "| `batchwarden_"); ok {
			name, _, _ := strings.Cut(rest, "`")
			described["batchwarden_"+name]++
		}
	}
	for name := range there {
		if described[name] != 1 || there[name] != 1 {
			t.Errorf("%s is described %d times, and there are %d", name, described[name], there[name])
		}
		delete(described, name)
	}
	if len(described) > 0 {
		t.Errorf("described, and not there: %v", described)
	}
}

func TestBatchUsers(t *testing.T) {
	value := func(all map[string]*dto.MetricFamily, name string) float64 {
		t.Helper()
		if m := all[name].GetMetric(); len(m) == 1 {
			return m[0].Gauge.GetValue()
		}
		t.Errorf("%s: %v", name, all[name])
		return 0
	}
	for _, c := range []struct{ n, listed int }{{1, 1}, {mostListed, mostListed}, {mostListed + 1, 0}, {10000, 0}} {
		all := parse(t, watching(c.n))
		if got := len(all["batchwarden_batch_user_version"].GetMetric()); got != c.listed {
			t.Errorf("%d batch users: %d are listed, want %d", c.n, got, c.listed)
		}
		if got := value(all, "batchwarden_batch_users_unlisted"); got != float64(c.n-c.listed) {
			t.Errorf("%d batch users: %v are said not to be listed", c.n, got)
		}
		if got := value(all, "batchwarden_batch_users_oldest_seconds"); got != float64(c.n-1) {
			t.Errorf("%d batch users: the oldest is %v", c.n, got)
		}
		if got := value(all, "batchwarden_batch_users_stale_soonest_seconds"); got != float64(1000-c.n+1) {
			t.Errorf("%d batch users: the first is stale in %v", c.n, got)
		}
		if c.n > 1 && value(all, "batchwarden_batch_users_rotation_soonest_seconds") != -240 {
			t.Errorf("%d batch users: %v", c.n, all["batchwarden_batch_users_rotation_soonest_seconds"])
		}
		for _, m := range all["batchwarden_batch_users"].Metric {
			want := 0
			if label(m, "state") == "ready" {
				want = c.n
			}
			if got := m.Gauge.GetValue(); got != float64(want) {
				t.Errorf("%d batch users: %v are %s", c.n, got, label(m, "state"))
			}
		}
		series := 0
		for name, family := range all {
			if strings.HasPrefix(name, "batchwarden_batch_user_") {
				series += len(family.Metric)
			}
		}
		if series > 1000 {
			t.Errorf("%d batch users have %d series", c.n, series)
		}
	}
	none := parse(t, watching(0))
	if len(none["batchwarden_batch_users_stale_soonest_seconds"].GetMetric()) != 0 {
		t.Error("nobody is stale at some time")
	}
}

// Callers choose what stands in many records: what they write makes no series.
func TestRecordedIsBounded(t *testing.T) {
	m := watching(0)
	for i := range 2000 {
		m.Recorded(&audit.Record{Kind: audit.Launch, Verdict: audit.Deny, Code: wire.RealmUnknown, Realm: fmt.Sprint("r", i), BatchUser: fmt.Sprint("u", i)}, nil)
		m.Recorded(&audit.Record{Kind: audit.Launch, Verdict: audit.Deny, Code: fmt.Sprint("c", i)}, nil)
	}
	m.Recorded(&audit.Record{Kind: audit.Launch, Verdict: audit.Allow, Realm: "opcon"}, audit.ErrUnavailable)
	m.Recorded(&audit.Record{Kind: audit.JobEnded, Job: &audit.Job{State: "exited"}}, audit.ErrUnavailable)
	m.Recorded(&audit.Record{Kind: audit.Begun}, nil)
	all := parse(t, m)
	sum := 0.0
	for _, one := range all["batchwarden_decisions_total"].Metric {
		sum += one.Counter.GetValue()
	}
	if n := len(all["batchwarden_decisions_total"].Metric); n > mostSeries+1 || sum != 4001 {
		t.Errorf("%d series, %v decisions", n, sum)
	}
	if n := len(all["batchwarden_jobs_ended_total"].GetMetric()); n != 0 {
		t.Errorf("an end that was not written is counted, and comes again: %d", n)
	}
}

func TestCountingSideBySide(t *testing.T) {
	m := watching(10)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 500 {
				m.Called(Authorize, time.Millisecond, nil)
				m.Recorded(&audit.Record{Kind: audit.Authorize, Verdict: audit.Allow, Realm: "opcon"}, nil)
			}
		})
	}
	for range 20 {
		parse(t, m)
	}
	all.Wait()
	page := parse(t, m)
	if n := page["batchwarden_decisions_total"].Metric[0].Counter.GetValue(); n != 4000 {
		t.Errorf("%v decisions", n)
	}
}

// What a decision costs by being counted.
func BenchmarkCounting(b *testing.B) {
	m := watching(0)
	r := &audit.Record{Kind: audit.Authorize, Verdict: audit.Allow, Realm: "opcon"}
	b.ReportAllocs()
	for b.Loop() {
		m.Recorded(r, nil)
		m.Called(Authorize, 50*time.Microsecond, nil)
	}
}

func TestCountingAllocatesNothing(t *testing.T) {
	m := watching(0)
	r := &audit.Record{Kind: audit.Authorize, Verdict: audit.Allow, Realm: "opcon"}
	if n := testing.AllocsPerRun(100, func() {
		m.Recorded(r, nil)
		m.Called(Authorize, 50*time.Microsecond, nil)
		m.LaunchStep(broker.StepAudit, time.Millisecond)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
