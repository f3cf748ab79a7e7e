package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"batchwarden/daemon/audit"
	"batchwarden/ipc/wire"
)

// outcome is the first word about a record.
func outcome(r *audit.Record) string {
	switch r.Kind {
	case audit.JobEnded:
		return "ended"
	case audit.NotStarted, audit.NotRekeyed:
		return "failed"
	case audit.Delivered:
		if r.Code == "delivered" {
			return "done"
		}
		return "failed"
	case audit.Tried:
		if r.Code == wire.Accepted {
			return "done"
		}
		return "failed"
	case audit.LocalVault, audit.Cut:
		return "noted"
	case audit.Synced, audit.Begun, audit.ConfigChanged:
		return "changed"
	case audit.Started, audit.Stopped:
		return "noted"
	case audit.ConfigRefused:
		return "refused"
	case audit.PolicyState:
		if r.Verdict == audit.Deny {
			return "refused"
		}
		return "changed"
	}
	if r.Verdict == audit.Allow {
		return "allowed"
	}
	return "DENIED"
}

// asker is who a record is about: the client entry, else the account.
func asker(r *audit.Record) string {
	switch {
	case r.Client != "":
		return r.Client
	case r.Peer == nil:
		return "batchwarden"
	case r.Peer.User != "":
		return r.Peer.User
	}
	return fmt.Sprintf("uid %d", r.Peer.UID)
}

// deed says what was asked, or happened.
func deed(r *audit.Record) string {
	job := ""
	if r.Job != nil {
		job = r.Job.ID
	}
	switch r.Kind {
	case audit.Launch:
		return sentence(r, "launch"+named(" of job ", job)+asUser(r), true)
	case audit.DryRun:
		return sentence(r, "dry run"+asUser(r), true)
	case audit.NotStarted:
		return sentence(r, "launch"+named(" of job ", job)+asUser(r), false)
	case audit.JobEnded:
		return sentence(r, "job "+job+asUser(r), false) + howItEnded(r.Job)
	case audit.Authorize:
		return sentence(r, "question: "+cmp.Or(r.Action, "launch")+named(" as ", r.BatchUser), true)
	case audit.Retrieve:
		return sentence(r, "password of "+r.BatchUser+ofVersion(r), true)
	case audit.Delivered:
		if r.Code == "delivered" {
			return "password of " + r.BatchUser + ofVersion(r) + " handed out"
		}
		return sentence(r, "password of "+r.BatchUser+ofVersion(r), false)
	case audit.TryPassword:
		return sentence(r, "verify the password of "+r.BatchUser+ofVersion(r), true)
	case audit.Tried:
		return sentence(r, "password of "+r.BatchUser+ofVersion(r)+" on account "+r.Username, r.Code == wire.Accepted)
	case audit.Signal:
		if r.Verdict == audit.Allow {
			return sentence(r, "signal "+r.Reason+" to job "+job, false)
		}
		return sentence(r, "signal to job "+job, true)
	case audit.Output:
		return sentence(r, "output of job "+job, true)
	case audit.Forget:
		return sentence(r, "forget job "+job, true)
	case audit.Suspend:
		return sentence(r, "suspend this machine", true)
	case audit.Resume:
		return sentence(r, "resume this machine", true)
	case audit.Report:
		text := "password of " + r.BatchUser + ofVersion(r)
		if r.Verdict == audit.Allow {
			return text + " reported " + r.Code
		}
		return sentence(r, "report about the "+text, true)
	case audit.Rekey, audit.NotRekeyed:
		text := "another key for the local vault"
		if k := r.HostKey; k != nil && k.Kind != "" {
			text += fmt.Sprintf(": %s %s in place of %s %s", k.Kind, k.ID, k.OldKind, k.OldID)
		}
		return sentence(r, text, r.Kind == audit.Rekey)
	case audit.Synced:
		return "from Vault: " + changes(r)
	case audit.Started, audit.Stopped, audit.ConfigChanged, audit.ConfigRefused:
		return ofService(r)
	case audit.Reload:
		return sentence(r, "read the configuration again", true)
	case audit.LocalVault:
		return "local vault: " + strings.Trim(r.Code+": "+r.Reason, ": ")
	case audit.PolicyState:
		if r.Verdict == audit.Allow {
			return fmt.Sprintf("policy of realm %s is version %d now", r.Realm, r.PolicyVersion)
		}
		return fmt.Sprintf("policy of realm %s, version %d: %s: %s", r.Realm, r.PolicyVersion, r.Code, r.Reason)
	case audit.Refused:
		return fmt.Sprintf("%s in %s after %s: %s", counted(int(r.Count), "more refusal"),
			span(r.Time.Sub(r.Since)), r.Since.UTC().Format(time.TimeOnly), strings.Trim(r.Code+", "+r.Reason, ", "))
	case audit.Begun:
		return "a new file of this log begins"
	case audit.Cut:
		return "a crash has left text before this record that is none"
	}
	return sentence(r, r.Kind, true)
}

// sentence says what, for whom and where, and of what was not to be, why.
func sentence(r *audit.Record, what string, decided bool) string {
	if s := r.Subject; s != nil {
		what += named(" for ", subject(wire.Subject{User: s.User, Roles: s.Roles, By: s.By}))
	}
	what += named(" in ", r.Realm)
	if decided && r.Verdict == audit.Allow {
		if len(r.Withheld) > 0 {
			what += ", without " + strings.Join(r.Withheld, ", ")
		}
		return what
	}
	why := r.Reason
	if r.Kind == audit.Signal && r.Verdict == audit.Allow {
		why = "" // it is the signal
	}
	switch {
	case r.Code != "" && why != "":
		return fmt.Sprintf("%s: %s (%s)", what, r.Code, why)
	case r.Code+why != "":
		return what + ": " + r.Code + why
	}
	return what
}

func named(before, name string) string {
	if name == "" {
		return ""
	}
	return before + name
}

func asUser(r *audit.Record) string {
	text := named(" as ", r.BatchUser)
	if r.Username != "" && r.Username != r.BatchUser {
		text += fmt.Sprintf(" (account %s)", r.Username)
	}
	return text
}

func ofVersion(r *audit.Record) string {
	if r.CredentialVersion == 0 {
		return ""
	}
	return fmt.Sprintf(" version %d", r.CredentialVersion)
}

func howItEnded(j *audit.Job) string {
	if j == nil {
		return ""
	}
	text := ": " + j.State
	switch {
	case j.Signal != "":
		text = ": SIG" + strings.TrimPrefix(j.Signal, "SIG")
	case j.ExitCode != nil:
		text = fmt.Sprintf(": exit %d", *j.ExitCode)
	}
	if !j.Started.IsZero() && !j.Ended.IsZero() {
		text += " after " + span(j.Ended.Sub(j.Started))
	}
	if j.Survivors > 0 {
		text += fmt.Sprintf(", %d processes outlived it", j.Survivors)
	}
	return text
}

// changes lists what a sync changed.
func changes(r *audit.Record) string {
	all := slices.Clone(r.Changed)
	for _, path := range r.Removed {
		all = append(all, path+" (removed)")
	}
	return several(all)
}

// several lists as much as a line has room for.
func several(all []string) string {
	const most = 4
	if len(all) > most {
		all = append(slices.Clone(all[:most]), fmt.Sprintf("and %d more", len(all)-most))
	}
	return strings.Join(all, ", ")
}
