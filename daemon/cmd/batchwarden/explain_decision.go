package main

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"batchwarden/daemon/audit"
	"batchwarden/ipc/wire"
)

// mostLater bounds what is told of what came of one decision.
const mostLater = 500

// story is one decision and what came of it, as the audit log has them.
type story struct {
	Decision audit.Line   `json:"decision"`
	Later    []audit.Line `json:"later"`
	More     bool         `json:"more,omitempty"` // came later, and is left out
	Remedy   *remedy      `json:"remedy,omitempty"`
}

// explainDecision tells of a decision from the audit log of the configuration.
func (a *app) explainDecision(ctx context.Context, id, config string) error {
	if strings.ContainsFunc(id, func(r rune) bool { return r < '0' || r > 'Z' }) || len(id) > 64 {
		return usage("--decision %q is not the id of a decision; answers, jobs and audit records have it as decision_id", id)
	}
	log, _, err := auditFiles(config, nil, false)
	if err != nil {
		return err
	}
	s, err := tellDecision(ctx, log, id)
	if err != nil {
		return unreadable(err, logIsTheirs)
	}
	if s == nil {
		return fmt.Errorf("no decision %s is in the audit log %s; it may be older than what is kept (audit.keep)", id, log)
	}
	return a.show(s, s.text())
}

// tellDecision searches the log from its end. Lines without the id are not even parsed.
func tellDecision(ctx context.Context, log, id string) (*story, error) {
	first, err := findDecision(ctx, log, id)
	if err != nil || first == nil {
		return nil, err
	}
	s := &story{Decision: *first}
	// Later deeds with a job have decisions of their own, and the job's id. It is the client's to choose, and can be
	// used again when the job was forgotten: from there on it is another job's.
	job, needle := "", []byte(id)
	if first.Job != nil && first.Kind == audit.Launch && first.Verdict == audit.Allow && first.Job.ID != "" {
		job = first.Job.ID
		needle = []byte(`"` + job + `"`) // its characters are ones that JSON leaves as they are
	}
	var later []audit.Line
	wanted := func(line []byte) (yes, stop bool) {
		at, ok := timeOf(line)
		if ctx.Err() != nil || ok && at.Before(first.Time.Add(-orderSlack)) {
			return false, true
		}
		if !bytes.Contains(line, needle) && !bytes.Contains(line, []byte(id)) {
			return false, false
		}
		r, ok := parsed(line)
		if !ok || r.Seq == first.Seq || r.DecisionID != id && (r.Seq < first.Seq || r.Job == nil || r.Job.ID != job || r.Client != first.Client && r.Client != "" && !r.Operator) {
			return false, false
		}
		if r.Kind == audit.Launch && r.Verdict == audit.Allow && r.DecisionID != id {
			later, s.More = nil, false // what came after that is about another job
			return false, false
		}
		if len(later) == mostLater { // the oldest are what matters most
			later, s.More = later[1:], true
		}
		later = append(later, r)
		return false, false
	}
	if err := audit.Tail(ctx, log, 1, false, wanted, nil); err != nil {
		return nil, err
	}
	slices.Reverse(later)
	s.Later = append([]audit.Line{}, later...)
	s.Remedy = s.remedy()
	return s, ctx.Err()
}

// findDecision is the record in which the decision was made, nil when there is none.
func findDecision(ctx context.Context, log, id string) (found *audit.Line, err error) {
	needle := []byte(`"decision_id":"` + id + `"`)
	err = audit.Tail(ctx, log, 1, false, func(line []byte) (yes, stop bool) {
		if ctx.Err() != nil {
			return false, true
		}
		if !bytes.Contains(line, needle) {
			return false, false
		}
		r, ok := parsed(line)
		if !ok || r.DecisionID != id || slices.Contains([]string{audit.NotStarted, audit.JobEnded, audit.Delivered, audit.NotRekeyed}, r.Kind) {
			return false, false
		}
		found = &r
		return false, true
	}, nil)
	return found, errors.Join(err, ctx.Err())
}

func parsed(line []byte) (r audit.Line, ok bool) { return r, json.Unmarshal(line, &r) == nil }

// timeOf reads the time of a record, which stands near its beginning, without the rest of it.
func timeOf(line []byte) (at time.Time, ok bool) {
	_, rest, ok := bytes.Cut(line[:min(len(line), 256)], []byte(`"time":"`))
	if !ok {
		return at, false
	}
	text, _, ok := bytes.Cut(rest, []byte(`"`))
	return at, ok && at.UnmarshalText(text) == nil
}

// remedy is what to do about a decision that was no, or a job that could not be started.
func (s *story) remedy() *remedy {
	r := s.Decision.Record
	if r.Verdict == audit.Allow {
		for i := range s.Later {
			if l := s.Later[i].Record; l.DecisionID == r.DecisionID && l.Code != "" && l.Code != "delivered" && (l.Kind == audit.NotStarted || l.Kind == audit.JobEnded || l.Kind == audit.Delivered) {
				r = l
			}
		}
		if r == s.Decision.Record {
			return nil
		}
	}
	if r.Code == "" {
		return nil
	}
	check := wire.Check{Code: r.Code, Detail: r.Reason}
	if r.Code == wire.LimitsRefused {
		return limitsRemedy(r.Reason, "limits.yaml", "", r.Username)
	}
	if (r.Kind == audit.Launch || r.Kind == audit.DryRun) && (r.Code == wire.PolicyDenied || r.Code == wire.CallerForbidden) && r.Subject != nil {
		return &remedy{Who: operator, What: "see which line would allow it, as things are now", Command: again(r)}
	}
	put := ""
	if r.BatchUser != "" {
		put = "batchwarden admin batch-user put " + word(r.BatchUser) + " {--machine M|--group G|--platform P}"
	}
	if c := userRemedy(&check, r.BatchUser, cmp.Or(r.Username, "of the batch user"), put); c != nil {
		return c
	}
	return general(r.Code)
}

// text tells the story in words.
func (s *story) text() string {
	r := s.Decision.Record
	var p page
	p.line("Decision %s of %s: %s", r.DecisionID, stamp(r.Time), outcome(r))
	p.line("  %s", strings.TrimSpace(deed(r)))
	p.line("")
	p.row("Asked by", askedBy(r))
	p.row("Client", cmp.Or(r.Client, "none"))
	if r.ForClient != "" {
		p.row("As if", "client "+r.ForClient+" asked")
	}
	if su := r.Subject; su != nil {
		p.row("For", cmp.Or(subject(wire.Subject{User: su.User, Roles: su.Roles, By: su.By}), "nobody")+named(" in realm ", r.Realm))
	}
	if r.BatchUser != "" {
		p.row("Batch user", strings.TrimSpace(strings.TrimPrefix(asUser(r), " as"))+ofVersion(r))
	}
	if r.PolicyVersion > 0 {
		p.row("Policy", fmt.Sprintf("version %d", r.PolicyVersion))
	}
	if r.Rule != "" {
		p.row("Rule", r.Rule+": "+r.Reason)
	}
	if j := r.Job; j != nil {
		p.row("Job", cmp.Or(j.ID, "without an id of its own")+named(", command sha256 ", j.CommandSHA256))
		if len(j.Argv) > 0 {
			p.row("Command", strings.Join(j.Argv, " "))
		}
	}
	p.line("")
	s.rest(&p)
	text := p.String()
	if s.Remedy != nil {
		text += "\n" + s.Remedy.text()
	}
	return text
}

// rest tells what came of it.
func (s *story) rest(p *page) {
	if len(s.Later) == 0 {
		switch r := s.Decision.Record; {
		case r.Kind == audit.Launch && r.Verdict == audit.Allow:
			p.line("Nothing more is written of it: the job is running, or how it ended is not written yet.")
		case r.Verdict == audit.Allow:
			p.line("Nothing more is written of it.")
		default:
			p.line("Nothing was done.")
		}
		return
	}
	p.line("What came of it:")
	for i := range s.Later {
		r := s.Later[i].Record
		p.row("  "+stamp(r.Time), outcome(r), asker(r), strings.TrimSpace(deed(r)))
		if r.Kind == audit.JobEnded && r.Job != nil && !r.Job.Started.IsZero() {
			p.row("", "", "", fmt.Sprintf("it ran from %s, pid %d", stamp(r.Job.Started), r.Job.PID))
		}
	}
	if s.More {
		p.line("  There is more: batchwarden audit tail --job shows it.")
	}
}

// askedBy is who asked, and how the system attested him.
func askedBy(r *audit.Record) string {
	p := r.Peer
	if p == nil {
		return "nobody: batchwarden itself"
	}
	text := fmt.Sprintf("uid %d", p.UID)
	if p.User != "" {
		text = fmt.Sprintf("%s (uid %d)", p.User, p.UID)
	}
	if p.PID > 0 {
		text += fmt.Sprintf(", pid %d", p.PID)
	}
	if r.Operator {
		text += ", an operator"
	}
	return text + named(", attested as ", p.Exe) + named(" of unit ", p.Unit) + named(", sha256 ", p.SHA256)
}

// again is the command that explains a launch as things are now.
func again(r *audit.Record) string {
	text := "batchwarden explain --realm " + word(r.Realm)
	for _, f := range []struct{ flag, value string }{{"--subject", r.Subject.User}, {"--by", r.Subject.By}, {"--as", r.BatchUser}, {"--client", cmp.Or(r.ForClient, r.Client)}} {
		if f.value != "" {
			text += " " + f.flag + " " + word(f.value)
		}
	}
	for _, role := range r.Subject.Roles {
		text += " --subject-role " + word(role)
	}
	return text + " -- COMMAND"
}
