package audit

import (
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The journal has jobs of every kind, the log some of them.
func TestMissing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "audit.jsonl")
	l := fill(t, file, Options{}, 0)
	for _, r := range []*Record{
		{Kind: Launch, Verdict: Allow, DecisionID: "whole"}, {Kind: JobEnded, DecisionID: "whole", Job: &Job{EndSeq: 1}},
		{Kind: Launch, Verdict: Allow, DecisionID: "no end"},
		{Kind: Launch, Verdict: Deny, DecisionID: "denied"},
		{Kind: Authorize, Verdict: Allow, DecisionID: "asked"},
		{Kind: Launch, Verdict: Allow, DecisionID: "runs"},
		{Kind: Launch, Verdict: Allow, DecisionID: "swapped"}, {Kind: JobEnded, DecisionID: "other", Job: &Job{EndSeq: 6}},
		{Kind: Launch, Verdict: Allow, DecisionID: "just now"},
		{Kind: Launch, Verdict: Allow, DecisionID: "cut"},
	} {
		if err := l.Append(r); err != nil {
			t.Fatal(err)
		}
	}
	now := time.Now()
	job := func(decision string, end uint64, ended time.Duration) Journalled {
		j := Journalled{Client: "c", ID: decision, Serial: end, Decision: decision, Started: now, End: end}
		if end > 0 {
			j.Ended = now.Add(-ended)
		}
		return j
	}
	old := job("long ago", 0, 0)
	old.Started = now.Add(-time.Hour)
	c := Compare([]Journalled{
		job("cut", 9, time.Hour), job("just now", 8, time.Second), job("swapped", 6, 0), job("runs", 0, 0), job("asked", 4, 0),
		job("denied", 0, 0), job("no end", 2, 0), job("whole", 1, 0), job("", 0, 0), old,
	})
	v, err := Verify(file, c.Hear)
	if err != nil || v.Fault != nil {
		t.Fatal(v, err)
	}
	missing, checked, pending := c.Missing(v.FirstTime, now.Add(time.Second))
	var got []string
	for _, m := range missing {
		why, _, _ := strings.Cut(m.Why, ":")
		got = append(got, m.Job+"> "+why)
	}
	want := []string{
		`denied> the journal has its start, the log no granted launch of decision "denied"`,
		`> the journal has its start, the log no granted launch of decision ""`,
		`no end> the journal has its end 2, the log does not`,
		`asked> the journal has its start, the log no granted launch of decision "asked"`,
		`asked> the journal has its end 4, the log does not`,
		`swapped> end 6 is that of decision "swapped" in the journal, of "other" in the log`,
		`cut> the journal has its end 9, the log none after 6`,
	}
	if g, w := strings.Join(got, "\n"), strings.Join(want, "\n"); g != w || checked != 9 || pending != 1 {
		t.Errorf("got %d checked, %d pending,\n%s\nwant 9, 1,\n%s", checked, pending, g, w)
	}
}
