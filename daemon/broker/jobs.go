package broker

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"batchwarden/daemon/audit"
	"batchwarden/ipc/wire"
	"batchwarden/platform/launch"
	"batchwarden/platform/peer"
)

// note is what the launcher keeps for us with a job and gives back unread, so
// that a job's record outlives the daemon that launched it.
type note struct {
	Realm             string            `json:"realm"`
	Subject           wire.Subject      `json:"subject"`
	BatchUser         string            `json:"batch_user"`
	RealmName         string            `json:"realm_name"` // what the realm called the batch user
	Platform          string            `json:"platform"`
	ObjectName        string            `json:"object_name,omitempty"` // of the controller's object, where the launch named one
	Labels            map[string]string `json:"labels,omitempty"`
	CredentialVersion int64             `json:"credential_version"`
	DecisionID        string            `json:"decision_id"`
	CommandSHA256     string            `json:"command_sha256"`
	ScriptSHA256      string            `json:"script_sha256,omitempty"`
	Withheld          []string          `json:"withheld,omitempty"`
}

func (n note) marshal() json.RawMessage {
	text, err := json.Marshal(n)
	if err != nil {
		panic("broker: a note cannot be written: " + err.Error()) // strings and numbers only
	}
	return text
}

// noteOf reads a note back. One that does not parse came from another version
// and is treated as empty: the job itself is still true.
func noteOf(j *launch.Job) (n note) {
	if err := json.Unmarshal(j.Note, &n); err != nil {
		return note{}
	}
	return n
}

// jobOf is the launcher's job as its client sees it.
func jobOf(j *launch.Job) wire.Job {
	n := noteOf(j)
	w := wire.Job{
		ID: j.ID, Client: j.Owner, Realm: n.Realm, Subject: n.Subject, BatchUser: n.BatchUser,
		State: j.State, PID: j.PID, User: j.User, ExitCode: j.ExitCode, Signal: j.Signal, CoreDumped: j.CoreDumped,
		Started: j.Started, Ended: j.Ended, Survivors: j.Survivors, Labels: n.Labels,
		CredentialVersion: n.CredentialVersion, CommandSHA256: n.CommandSHA256, ScriptSHA256: n.ScriptSHA256, Withheld: n.Withheld,
		Code: j.Code, Reason: j.Reason, DecisionID: n.DecisionID,
	}
	if w.Done() && (j.CPUSeconds > 0 || j.MaxRSS > 0) {
		w.Rusage = &wire.Rusage{CPUSeconds: j.CPUSeconds, MaxRSS: j.MaxRSS}
	}
	return w
}

// Job returns one of the caller's jobs, when it has ended or after wait.
func (b *Broker) Job(ctx context.Context, p *peer.Connection, id string, wait time.Duration) (wire.Job, error) {
	c := b.identify(ctx, p)
	owner, refusal := b.ownerOf(ctx, &c, id)
	if refusal != nil {
		return wire.Job{}, refusal
	}
	job, err := b.Launcher.Job(ctx, owner, id, wait)
	if err != nil {
		return wire.Job{}, b.problemOf(err)
	}
	if wait > 0 {
		if c = b.identify(ctx, p); !c.operator && c.name() != owner { // not any more
			return wire.Job{}, wire.NewProblem(wire.JobUnknown, "")
		}
	}
	return jobOf(&job), nil
}

// ownerOf is the client whose job id means to this caller: his own, or for an
// operator anybody's. A job of another client does not exist.
func (b *Broker) ownerOf(ctx context.Context, c *caller, id string) (string, *wire.Problem) {
	if refusal := c.known(); refusal != nil {
		return "", refusal
	}
	if !c.operator {
		return c.client.Name, nil
	}
	jobs, err := b.Launcher.Jobs(ctx, "")
	if err != nil {
		return "", b.problemOf(err)
	}
	var owners []string
	for _, j := range jobs {
		if j.ID == id {
			owners = append(owners, j.Owner)
		}
	}
	switch {
	case len(owners) == 0:
		return "", wire.NewProblem(wire.JobUnknown, "")
	case len(owners) > 1 && slices.Contains(owners, c.name()):
		return c.name(), nil
	}
	return owners[0], nil
}

// Jobs lists the caller's jobs, an operator's list has everybody's; oldest first.
func (b *Broker) Jobs(ctx context.Context, p *peer.Connection, only wire.JobFilter) (wire.Jobs, error) {
	c := b.identify(ctx, p)
	if refusal := c.known(); refusal != nil {
		return wire.Jobs{}, refusal
	}
	owner := c.name()
	if c.operator {
		owner = ""
	}
	jobs, err := b.Launcher.Jobs(ctx, owner)
	if err != nil {
		return wire.Jobs{}, b.problemOf(err)
	}
	if only.After != "" {
		at := slices.IndexFunc(jobs, func(j launch.Job) bool { return j.ID == only.After })
		if at < 0 {
			return wire.Jobs{}, wire.Invalid("after", "there is no job of that id to go on after")
		}
		jobs = jobs[at+1:]
	}
	list := wire.Jobs{Jobs: []wire.Job{}}
	for i := range jobs {
		if only.Limit > 0 && len(list.Jobs) == only.Limit {
			break
		}
		if j := jobOf(&jobs[i]); wanted(&j, &only) {
			list.Jobs = append(list.Jobs, j)
		}
	}
	return list, nil
}

func wanted(j *wire.Job, only *wire.JobFilter) bool {
	for name, value := range only.Labels {
		if v, ok := j.Labels[name]; !ok || v != value {
			return false
		}
	}
	return (only.State == "" || j.State == only.State) && !j.Started.Before(only.Since)
}

// problemOf turns what the launcher answered into a problem document.
func (b *Broker) problemOf(err error) *wire.Problem {
	var refused *launch.Refused
	switch {
	case errors.As(err, &refused):
		return wire.NewProblem(refused.Code, refused.Reason)
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return wire.NewProblem(wire.LauncherUnavailable, "the launcher did not answer in time")
	}
	b.Log.Error("launcher call failed", "err", err)
	return wire.NewProblem(wire.Internal, "")
}

// AuditEnds writes a record for every job end in the launcher's journal, also
// of jobs that ended while the daemon was down, and each once: the log itself
// says which was the last.
func (b *Broker) AuditEnds(ctx context.Context) error {
	for {
		seen := b.Audit.LastEnd()
		b.ends.set(seen)
		ended, err := b.Launcher.Ended(ctx, seen)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			pause(ctx) // the launcher is away; its journal keeps the ends
			continue
		}
		for i := range ended {
			j := &ended[i]
			if err := b.Audit.Append(endOf(j)); err != nil {
				b.Log.Error("end of a job not yet audited", "job", j.ID, "err", err)
				pause(ctx)
				break
			}
			b.events.jobEnded(j)
		}
	}
}

func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(200 * time.Millisecond):
	}
}

func endOf(j *launch.Job) *audit.Record {
	n := noteOf(j)
	return &audit.Record{
		Kind: audit.JobEnded, DecisionID: n.DecisionID, Client: j.Owner, Realm: n.Realm, Subject: subjectOf(n.Subject),
		BatchUser: n.BatchUser, Username: j.User, CredentialVersion: n.CredentialVersion, Code: j.Code, Reason: brief(j.Reason),
		Job: &audit.Job{
			ID: j.ID, Serial: j.Serial, PID: j.PID, State: j.State, CommandSHA256: n.CommandSHA256, ScriptSHA256: n.ScriptSHA256,
			ExitCode: j.ExitCode, Signal: j.Signal, Survivors: j.Survivors, Started: j.Started, Ended: j.Ended, EndSeq: j.EndSeq,
		},
	}
}
