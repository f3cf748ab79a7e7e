package audit

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Journalled is a job as the launcher's journal has it: a second witness,
// which the service cannot write to.
type Journalled struct {
	Client, ID string
	Serial     uint64
	Decision   string // that the launch was granted with
	End        uint64 // number of its end; 0: it has not ended
	Started    time.Time
	Ended      time.Time
}

// Missing is a job of the journal that the log does not tell of.
type Missing struct {
	Client string `json:"client"`
	Job    string `json:"job"`
	Serial uint64 `json:"serial"` // in the journal
	Why    string `json:"why"`
}

// Comparison holds a log against the launcher's journal. Read the journal
// first, then give every record to Hear: what is in the journal was written
// into the log before.
type Comparison struct {
	jobs     []Journalled
	launches map[string]bool   // by decision: the log has it granted
	ends     map[uint64]string // by number: the decision that the log has with it, "" for none
	last     uint64            // highest end in the log
}

// Compare begins a comparison with the jobs of a journal.
func Compare(jobs []Journalled) *Comparison {
	c := &Comparison{jobs: jobs, launches: map[string]bool{}, ends: map[uint64]string{}}
	for _, j := range jobs {
		c.launches[j.Decision], c.ends[j.End] = false, ""
	}
	return c
}

// Hear takes a record's line.
func (c *Comparison) Hear(line []byte) error {
	k, ok := linkOf(line)
	if !ok || !k.is(Launch) && !k.is(JobEnded) {
		return nil
	}
	var r struct {
		Kind       string
		Verdict    string
		DecisionID string `json:"decision_id"`
		Job        struct {
			EndSeq uint64 `json:"end_seq"`
		}
	}
	if err := json.Unmarshal(line, &r); err != nil {
		return fmt.Errorf("record %d: %w", k.seq, err)
	}
	if r.Kind == JobEnded {
		if _, journalled := c.ends[r.Job.EndSeq]; journalled {
			c.ends[r.Job.EndSeq] = r.DecisionID
		}
		c.last = max(c.last, r.Job.EndSeq)
		return nil
	}
	if _, journalled := c.launches[r.DecisionID]; journalled && r.Verdict == Allow {
		c.launches[r.DecisionID] = true
	}
	return nil
}

// settled is how soon the end of a job is in the log while the service runs.
const settled = time.Minute

// Missing are the journal's jobs that the log does not tell of, in the order
// in which they were started. Those that were started before since, the time
// of the log's first record, are not looked for; checked is how many were.
// pending are ends that are so young that the service may be writing them.
func (c *Comparison) Missing(since, now time.Time) (missing []Missing, checked, pending int) {
	slices.SortFunc(c.jobs, func(a, b Journalled) int { return cmp.Compare(a.Serial, b.Serial) })
	for _, j := range c.jobs {
		if j.Started.Before(since) {
			continue
		}
		checked++
		tell := func(why string) { missing = append(missing, Missing{j.Client, j.ID, j.Serial, why}) }
		if !c.launches[j.Decision] {
			tell(fmt.Sprintf("the journal has its start, the log no granted launch of decision %q", j.Decision))
		}
		if j.End == 0 {
			continue
		}
		switch decision := c.ends[j.End]; {
		case decision == j.Decision && decision != "":
		case decision != "":
			tell(fmt.Sprintf("end %d is that of decision %q in the journal, of %q in the log", j.End, j.Decision, decision))
		case j.End > c.last && now.Sub(j.Ended) < settled:
			pending++
		case j.End > c.last:
			tell(fmt.Sprintf("the journal has its end %d, the log none after %d: the service is not running, or records at the end are gone", j.End, c.last))
		default:
			tell(fmt.Sprintf("the journal has its end %d, the log does not", j.End))
		}
	}
	return missing, checked, pending
}
