package metrics

import (
	"math"

	"batchwarden/daemon/broker"
)

// states of a batch user, in the words of the API.
var states = []string{"ready", "stale", "expired", "rejected", "ambiguous"}

// batchUsers is the credentials: all together, and one by one where they are
// not too many.
func batchUsers(p *stand, from *Source) {
	var listed []broker.Standing
	total, count := 0, map[string]int{}
	oldest, stale, rotation := 0.0, math.Inf(1), math.Inf(1)
	for s := range from.Broker.Standings() {
		total++
		count[s.State]++
		oldest, stale = max(oldest, s.Age.Seconds()), min(stale, s.StaleIn.Seconds())
		if s.Rotates {
			rotation = min(rotation, s.RotatesIn.Seconds())
		}
		if total <= mostListed {
			listed = append(listed, s)
		}
	}
	if total > mostListed {
		listed = nil
	}

	p.gauge("batchwarden_batch_users", "Batch users of this machine, by state: only those that are ready can be used for everything.")
	for _, state := range states {
		p.value(float64(count[state]), "state", state)
	}
	p.gauge("batchwarden_batch_users_unlisted", "Batch users without series of their own, because there are more than 200; 0: each has.")
	p.value(float64(total - len(listed)))
	p.gauge("batchwarden_batch_users_oldest_seconds", "The longest time since Vault last confirmed a batch user.")
	p.value(oldest)
	p.gauge("batchwarden_batch_users_stale_soonest_seconds", "Until the first batch user is too old to be used, if Vault stays away; negative: one is.")
	if total > 0 {
		p.value(stale)
	}
	p.gauge("batchwarden_batch_users_rotation_soonest_seconds", "Until the first announced change of a password; negative: it is overdue; not there while none is announced.")
	if !math.IsInf(rotation, 1) {
		p.value(rotation)
	}

	each := func(name, help string, v func(*broker.Standing) float64) {
		p.gauge(name, help)
		for i := range listed {
			p.value(v(&listed[i]), "batch_user", listed[i].Name, "scope", listed[i].Scope)
		}
	}
	each("batchwarden_batch_user_version", "Version of the password, as callers know it.", func(s *broker.Standing) float64 { return float64(s.Version) })
	each("batchwarden_batch_user_age_seconds", "Since Vault last confirmed the batch user.", func(s *broker.Standing) float64 { return s.Age.Seconds() })
	each("batchwarden_batch_user_stale_in_seconds", "Until the batch user is too old to be used, if Vault stays away; negative: it is.", func(s *broker.Standing) float64 { return s.StaleIn.Seconds() })
	p.gauge("batchwarden_batch_user_rotation_in_seconds", "Until the password's announced change; negative: overdue; only where one is announced.")
	for _, s := range listed {
		if s.Rotates {
			p.value(s.RotatesIn.Seconds(), "batch_user", s.Name, "scope", s.Scope)
		}
	}
	p.gauge("batchwarden_batch_user_state", "1 for the state that a batch user is in: ready, stale, expired, rejected or ambiguous.")
	for _, s := range listed {
		p.value(1, "batch_user", s.Name, "scope", s.Scope, "state", s.State)
	}
}
