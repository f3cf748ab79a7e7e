package metrics

import (
	"maps"
	"runtime"
	rt "runtime/metrics"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"batchwarden/ipc/wire"
)

// mostListed is for how many batch users each has series of its own, up to
// five. Where there are more, only the sums and extremes are shown.
const mostListed = 200

// standing is how things stand, looked at when somebody asks. Which series there
// are shows only then.
type standing struct{ *Metrics }

func (standing) Describe(chan<- *prometheus.Desc) {}

func (m standing) Collect(to chan<- prometheus.Metric) {
	if from := m.source.Load(); from != nil {
		m.look(from, &stand{to: to})
	}
}

func (m *Metrics) look(from *Source, p *stand) {
	now, s := from.Broker.Now(), from.Broker.Picture()
	m.program(p, &s)
	m.state(p, &s, now)
	vault(p, &s, now)
	policies(p, s.Policies)
	batchUsers(p, from)
	jobs(p, &s)
	records(p, from)
	memory(p, from)
}

// program is what runs, and since when.
func (m *Metrics) program(p *stand, s *wire.Status) {
	p.gauge("batchwarden_build_info", "Always 1; the labels say what runs.")
	p.value(1, "version", m.o.Version, "goversion", runtime.Version())
	p.gauge("batchwarden_start_timestamp_seconds", "When the daemon was started.")
	p.value(stamp(s.Started))
	p.gauge("batchwarden_page_timestamp_seconds", "When this page was made; in a textfile that grows old the daemon does not run.")
	p.value(stamp(time.Now()))
}

// state is whether the machine can do its work.
func (m *Metrics) state(p *stand, s *wire.Status, now time.Time) {
	p.gauge("batchwarden_state", "1 for the state that the service is in: starting, online or offline.")
	for _, state := range []string{wire.StateStarting, wire.StateOnline, wire.StateOffline} {
		p.value(truth(s.State == state), "state", state)
	}
	p.gauge("batchwarden_launcher_connected", "1 while the launcher answers; without it nothing is started.")
	p.value(truth(s.Launcher.Connected))
	p.gauge("batchwarden_suspended", "1 while an operator keeps this machine from starting jobs.")
	p.value(truth(s.Suspension != nil))
	p.gauge("batchwarden_suspended_seconds", "For how long it has been suspended; 0 when it is not.")
	p.value(suspendedFor(s.Suspension, now))
	p.gauge("batchwarden_problems", "Problems in status, by code.")
	counts := map[string]int{}
	for _, f := range s.Problems {
		counts[f.Code]++
	}
	for _, code := range slices.Sorted(maps.Keys(counts)) {
		p.value(float64(counts[code]), "code", code)
	}
}

func suspendedFor(s *wire.Suspension, now time.Time) float64 {
	if s == nil || s.Since.IsZero() {
		return 0
	}
	return max(0, now.Sub(s.Since).Seconds())
}

// vault is how far this machine is behind Vault.
func vault(p *stand, s *wire.Status, now time.Time) {
	p.gauge("batchwarden_sync_last_success_timestamp_seconds", "When the last attempt to sync succeeded; 0: never.")
	p.value(stamp(s.Sync.LastSuccess))
	p.gauge("batchwarden_offline_seconds", "For how long Vault has not been reached; 0 while online.")
	offline := 0.0
	if !s.Sync.OfflineSince.IsZero() {
		offline = max(0, now.Sub(s.Sync.OfflineSince).Seconds())
	}
	p.value(offline)
	p.gauge("batchwarden_token_remaining_seconds", "Until Vault's token expires; not there while that is not known.")
	if !s.Sync.TokenExpires.IsZero() {
		p.value(s.Sync.TokenExpires.Sub(now).Seconds())
	}
	p.gauge("batchwarden_secret_id_remaining_seconds", "Until the secret_id that the machine logs in with expires, 0 when it is gone; not there while it has no end or that is not known.")
	switch about := s.Sync.SecretID; {
	case about == nil:
	case about.Gone:
		p.value(0)
	case !about.Expires.IsZero():
		p.value(max(0, about.Expires.Sub(now).Seconds()))
	}
	p.gauge("batchwarden_local_vault_records", "Records in the local vault.")
	p.value(float64(s.LocalVault.Records))
	p.gauge("batchwarden_local_vault_bytes", "Size of the local vault.")
	p.value(float64(s.LocalVault.Bytes))
}

func policies(p *stand, all []wire.Policy) {
	each := func(name, help string, v func(*wire.Policy) float64) {
		p.gauge(name, help)
		for i := range all {
			p.value(v(&all[i]), "realm", all[i].Realm, "model", all[i].Model)
		}
	}
	each("batchwarden_policy_version", "Version of the policy document in force; 0: none.", func(w *wire.Policy) float64 { return float64(w.Version) })
	each("batchwarden_policy_age_seconds", "Since Vault last confirmed the policy document.", func(w *wire.Policy) float64 { return float64(w.AgeSeconds) })
	p.gauge("batchwarden_policy_state", "1 for the state that a realm's policy is in: active, stale, refused or missing. Only an active one decides.")
	for _, w := range all {
		p.value(1, "realm", w.Realm, "model", w.Model, "state", w.State)
	}
}

// jobs are those that the launcher knows.
func jobs(p *stand, s *wire.Status) {
	p.gauge("batchwarden_jobs_running", "Jobs that run, as the launcher said within the last seconds.")
	p.value(float64(s.Jobs.Running))
	p.gauge("batchwarden_jobs_kept", "Jobs that have ended and are kept for their clients (jobs.keep).")
	p.value(float64(s.Jobs.Kept))
}

// records is the audit log.
func records(p *stand, from *Source) {
	s := from.Audit.Stats()
	p.gauge("batchwarden_audit_available", "1 while the audit log takes records; without it nothing is launched or retrieved.")
	p.value(truth(from.Audit.Err() == nil))
	p.counter("batchwarden_audit_records_total", "Records in the audit log since it was begun; a restart does not set it back.")
	p.value(float64(s.Records))
	p.gauge("batchwarden_audit_unsynced_seconds", "How long the oldest audit record that is not on the disk has waited; 0: all are.")
	p.value(s.Unsynced.Seconds())
	p.gauge("batchwarden_audit_free_bytes", "Room on the audit log's disk; not there where the platform does not tell.")
	if s.Free >= 0 {
		p.value(float64(s.Free))
	}
	p.gauge("batchwarden_audit_room_low", "1 when records may soon not be writable any more; status says why.")
	p.value(truth(from.Audit.Low() != ""))
	p.counter("batchwarden_audit_copies_lost_total", "Records that the system's journal did not take a copy of; the log itself has them.")
	p.value(float64(from.Audit.Lost()))
}

// memory is the locked memory and the Go runtime's.
func memory(p *stand, from *Source) {
	u := from.Arena.Usage()
	p.gauge("batchwarden_memory_slots", "Slots of locked memory: how many passwords can be handed out at once.")
	p.value(float64(u.Slots))
	p.gauge("batchwarden_memory_slots_in_use", "Slots that are in use.")
	p.value(float64(u.InUse))
	p.counter("batchwarden_memory_slot_waits_total", "Times that no slot was free.")
	p.value(float64(u.Waited))
	p.counter("batchwarden_memory_slot_refusals_total", "Times that none became free in time; the caller was told overloaded.")
	p.value(float64(u.Refused))

	samples := []rt.Sample{
		{Name: "/sched/goroutines:goroutines"}, {Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/total:bytes"},
		{Name: "/memory/classes/heap/released:bytes"}, {Name: "/gc/cycles/total:gc-cycles"},
	}
	rt.Read(samples)
	n := func(i int) float64 {
		if samples[i].Value.Kind() != rt.KindUint64 {
			return 0 // this version of Go does not tell
		}
		return float64(samples[i].Value.Uint64())
	}
	p.gauge("batchwarden_go_goroutines", "Goroutines.")
	p.value(n(0))
	p.gauge("batchwarden_go_heap_bytes", "Memory of live objects, and of dead ones that were not collected yet.")
	p.value(n(1))
	p.gauge("batchwarden_go_memory_bytes", "Memory that the Go runtime has from the system and has not given back.")
	p.value(n(2) - n(3))
	p.counter("batchwarden_go_gc_cycles_total", "Completed garbage collections.")
	p.value(n(4))
}
