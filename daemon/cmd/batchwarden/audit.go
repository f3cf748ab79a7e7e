package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"batchwarden/daemon/audit"
	"batchwarden/daemon/config"
	"batchwarden/platform/launch/keeper"
)

func (a *app) auditCommand() *cobra.Command {
	return parent("audit", "Read and check the audit log", a.auditTailCommand(), a.auditVerifyCommand())
}

// auditFiles says where the log and the launcher's journal lie: as the configuration says, which is not asked when an
// argument names the log and the journal is not wanted.
func auditFiles(file string, args []string, journal bool) (log, state string, err error) {
	if len(args) > 0 && !journal {
		return args[0], "", nil
	}
	c, _, err := config.Check(file)
	if err != nil {
		return "", "", &failure{exitConfig, err}
	}
	if log = c.Audit.File; len(args) > 0 {
		log = args[0]
	}
	if journal {
		state = c.Launcher.StateDir
	}
	return log, state, nil
}

// unreadable gives the error of a log or journal that is not for this user its exit code, and says whose it is.
func unreadable(err error, what string) error {
	if errors.Is(err, fs.ErrPermission) {
		return &failure{exitForbidden, fmt.Errorf("%w; %s", err, what)}
	}
	return err
}

const (
	logIsTheirs     = "the audit log can be read by root and the service's own user"
	journalIsTheirs = "the launcher's journal can be read by root alone"
)

func (a *app) auditVerifyCommand() *cobra.Command {
	var file string
	var journal bool
	cmd := &cobra.Command{
		Use:   "verify [FILE]",
		Short: "Look whether the audit log is whole; exit code 1 when it is not",
		Long: `Follow the chain of hashes through the audit log and its full files in order, and name the first record that was changed,
or is missing, put in or moved. FILE is another log than the configured one, or one full file alone.

That the end of the log was cut off, or its last record changed, does not show in the log itself: only in a copy kept
elsewhere, or in the launcher's journal, which the service cannot write to. --journal, for root, looks that every launch
and every end in that journal has its record.`,
		Args: cobra.MaximumNArgs(1),
		RunE: do(func(_ *cobra.Command, args []string) error {
			log, state, err := auditFiles(file, args, journal)
			if err != nil {
				return err
			}
			done := a.working("Reading the audit log", nil)
			v, err := a.verifyAudit(log, state)
			done()
			if err != nil {
				return err
			}
			return a.answer(v, v.text(), v.Sound)
		}),
	}
	cmd.Flags().StringVar(&file, "config", config.DefaultFile, "the service's configuration, which says where the log lies")
	cmd.Flags().BoolVar(&journal, "journal", false, "hold the log against the launcher's journal too")
	return cmd
}

// audited is what audit verify prints as JSON.
type audited struct {
	Sound bool `json:"sound"`
	*audit.Findings
	Journal *compared `json:"journal,omitempty"`
}

// compared is how the launcher's journal and the log agree.
type compared struct {
	Jobs    int             `json:"jobs"` // that were looked for
	Before  int             `json:"before,omitempty"`
	Pending int             `json:"pending,omitempty"`
	Missing []audit.Missing `json:"missing"`
}

// verifyAudit verifies a log, against the journal in the launcher's state directory unless that is "".
func (a *app) verifyAudit(log, state string) (*audited, error) {
	var against *audit.Comparison
	var hear func([]byte) error
	jobs := 0
	if state != "" { // first: what is in it now is in the log already
		known, err := journalled(state)
		if err != nil {
			return nil, unreadable(err, journalIsTheirs)
		}
		jobs, against = len(known), audit.Compare(known)
		hear = against.Hear
	}
	found, err := audit.Verify(log, hear)
	if err != nil {
		return nil, unreadable(err, logIsTheirs)
	}
	v := &audited{Sound: found.Fault == nil, Findings: found}
	if against != nil && v.Sound {
		missing, checked, pending := against.Missing(found.FirstTime, a.now())
		v.Journal = &compared{checked, jobs - checked, pending, append([]audit.Missing{}, missing...)}
		v.Sound = len(missing) == 0
	}
	return v, nil
}

// journalled are the jobs in the launcher's journal.
func journalled(state string) ([]audit.Journalled, error) {
	jobs, err := keeper.Witnessed(state)
	if err != nil {
		return nil, err
	}
	known := make([]audit.Journalled, len(jobs))
	for i, j := range jobs {
		var note struct {
			DecisionID string `json:"decision_id"`
		}
		_ = json.Unmarshal(j.Note, &note) // without one no record fits, which is what is to be said
		known[i] = audit.Journalled{
			Client: j.Owner, ID: j.ID, Serial: j.Serial, Decision: note.DecisionID, End: j.EndSeq, Started: j.Started, Ended: j.Ended,
		}
	}
	return known, nil
}

func (v *audited) text() string {
	var p page
	if f := v.Fault; f != nil {
		at := f.File
		if f.Line > 0 {
			at += fmt.Sprintf(":%d", f.Line)
		}
		p.line("The audit log is not whole. The first fault:")
		p.line("%s: %s", at, f.Why)
		if f.Seq > 0 {
			p.line("It is about record %d. What comes after it was not looked at.", f.Seq)
		}
		return p.String()
	}
	p.line("%s in %s, one unbroken chain.", counted(int(v.Records), "record"), counted(len(v.Files), "file"))
	if v.Records > 0 {
		p.line("Record %d of %s to record %d of %s.", v.First, stamp(v.FirstTime), v.Last, stamp(v.LastTime))
	}
	for _, note := range v.Notes {
		p.line("Note: %s", note)
	}
	j := v.Journal
	if j == nil {
		p.line("Whether its end was cut off the log itself cannot show: batchwarden audit verify --journal asks the launcher, as root.")
		return p.String()
	}
	p.line("")
	if len(j.Missing) == 0 {
		p.line("The launcher's journal agrees: %s of it, with their ends.", counted(j.Jobs, "job"))
	} else {
		p.line("The launcher's journal disagrees:")
		for _, m := range j.Missing {
			p.line("  job %s of %s (serial %d): %s", m.Job, m.Client, m.Serial, m.Why)
		}
	}
	if j.Before > 0 {
		p.line("%s in it began before the first record that is kept.", counted(j.Before, "job"))
	}
	if j.Pending > 0 {
		p.line("%s in it ended just now and may be being written.", counted(j.Pending, "job"))
	}
	p.line("Retrieves and denials have no such witness: that the very last of them are gone only a copy elsewhere shows.")
	return p.String()
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// which says what audit tail shows.
type which struct {
	subject, client, job, batchUser, verdict string
	since, until                             string
	from, to                                 time.Time
}

func (a *app) auditTailCommand() *cobra.Command {
	var file string
	var w which
	var follow bool
	var n int
	cmd := &cobra.Command{
		Use:   "tail [FILE]",
		Short: "Show the last audit records in words",
		Long: `Show the last records of the audit log, one a line, or with --json as they stand there. Times are UTC. Those that the flags
choose have all that they say. --since and --until take a time (2026-03-04T12:00:00Z, 2026-03-04) or how long ago (90m).`,
		Args: cobra.MaximumNArgs(1),
		RunE: do(func(cmd *cobra.Command, args []string) error {
			if err := w.check(a.now()); err != nil {
				return err
			}
			if n < 0 {
				return usage("-n %d: there are no fewer than 0 records", n)
			}
			if w.since != "" && !cmd.Flags().Changed("lines") {
				n = -1 // all since then
			}
			log, _, err := auditFiles(file, args, false)
			if err != nil {
				return err
			}
			return unreadable(audit.Tail(cmd.Context(), log, n, follow, w.wants, a.tell), logIsTheirs)
		}),
	}
	f := cmd.Flags()
	f.StringVar(&file, "config", config.DefaultFile, "the service's configuration, which says where the log lies")
	f.BoolVarP(&follow, "follow", "f", false, "go on with what is written from now on, until Ctrl-C")
	f.IntVarP(&n, "lines", "n", 20, "how many records")
	f.StringVar(&w.subject, "subject", "", "on whose behalf, or by whom")
	f.StringVar(&w.client, "client", "", "the client entry that asked")
	f.StringVar(&w.job, "job", "", "the job's id")
	f.StringVar(&w.batchUser, "batch-user", "", "the batch user")
	f.StringVar(&w.verdict, "verdict", "", "allow or deny")
	f.StringVar(&w.since, "since", "", "not before; all of them unless -n says how many")
	f.StringVar(&w.until, "until", "", "not after")
	return cmd
}

func (w *which) check(now time.Time) error {
	if w.verdict != "" && w.verdict != audit.Allow && w.verdict != audit.Deny {
		return usage("--verdict %q is neither %s nor %s", w.verdict, audit.Allow, audit.Deny)
	}
	for _, t := range []struct {
		flag, text string
		at         *time.Time
	}{{"--since", w.since, &w.from}, {"--until", w.until, &w.to}} {
		if t.text == "" {
			continue
		}
		at, ok := moment(t.text, now)
		if !ok {
			return usage("%s %q is neither a time such as 2026-03-04T12:00:00Z nor a length of time such as 90m", t.flag, t.text)
		}
		*t.at = at
	}
	return nil
}

// moment reads a time, or how long ago it was.
func moment(text string, now time.Time) (time.Time, bool) {
	if ago, err := time.ParseDuration(text); err == nil && ago >= 0 {
		return now.Add(-ago), true
	}
	for _, layout := range []string{time.RFC3339, time.DateTime, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			return at, true
		}
	}
	return time.Time{}, false
}

// orderSlack is how far the times of neighbouring records may be out of order.
const orderSlack = time.Minute

// wants chooses records, for audit.Tail.
func (w *which) wants(line []byte) (yes, stop bool) {
	var r audit.Record
	if json.Unmarshal(line, &r) != nil {
		return false, false
	}
	if !w.from.IsZero() && r.Time.Before(w.from) {
		return false, r.Time.Before(w.from.Add(-orderSlack))
	}
	s, job := r.Subject, ""
	if r.Job != nil {
		job = r.Job.ID
	}
	return (w.to.IsZero() || !r.Time.After(w.to)) &&
		(w.subject == "" || s != nil && slices.Contains([]string{s.User, s.By}, w.subject)) &&
		(w.client == "" || r.Client == w.client) &&
		(w.job == "" || job == w.job) &&
		(w.batchUser == "" || r.BatchUser == w.batchUser) &&
		(w.verdict == "" || r.Verdict == w.verdict), false
}

// tell prints one record.
func (a *app) tell(line []byte) error {
	if a.json {
		_, err := a.out.Write(line)
		return err
	}
	var r audit.Record
	if err := json.Unmarshal(line, &r); err != nil {
		return err
	}
	_, err := fmt.Fprintf(a.out, "%s  %-7s  %-14s  %s\n", r.Time.UTC().Format("2006-01-02 15:04:05Z"), outcome(&r), cell(asker(&r)), cell(strings.TrimSpace(deed(&r))))
	return err
}
