package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"batchwarden/daemon/doctor"
	"batchwarden/daemon/version"
	"batchwarden/ipc/client"
	"batchwarden/ipc/wire"
)

// Words of the service's status that are looked for.
const (
	launcherProblem = "launcher.problem"
	everyLaunch     = "limits.yaml: every launch is refused: "
	ofLimits        = "limits.yaml: "
	inCgroup        = "cgroup "
)

const startDaemon = "systemctl start batchwardend; journalctl -u batchwardend -n 50 says why it ended"

func (d *diagnosis) daemon(context.Context) []doctor.Check {
	const name, suspension = "daemon", "suspension"
	s := d.status()
	if s.status != nil {
		answers := ok(name, "it answers; started "+d.app.when(s.status.Started))
		if p := s.status.Suspension; p != nil {
			return []doctor.Check{answers, problem(suspension, p.Words()+": no job is started", "batchwarden resume")}
		}
		return []doctor.Check{answers, ok(suspension, "launching is not suspended")}
	}
	return append([]doctor.Check{d.silent(name, s)}, s.unsaid(suspension)...)
}

// silent says why the service did not answer.
func (d *diagnosis) silent(name string, s said) doctor.Check {
	running := d.processes()
	switch {
	case refusedUs(s.err):
		return unknown(name, "it answers, and not to this user: "+oneLine(s.err), asRoot+"; so can the operators of the configuration")
	case errors.Is(s.err, client.ErrOwner):
		return unknown(name, "it was not asked, as the socket is not safely root's", "mend the socket first")
	case running.daemon != nil:
		return problem(name, fmt.Sprintf("process %d runs and does not answer: %s", running.daemon.PID, oneLine(s.err)),
			"see to the launcher, through which it has its socket; journalctl -u batchwardend -n 50; systemctl restart batchwardend")
	}
	return problem(name, "it does not run: nothing is launched and nothing retrieved", startDaemon)
}

func (d *diagnosis) launcher(context.Context) []doctor.Check {
	const name, entries = "launcher", "limits.entries"
	const start = "systemctl start batchwarden-launcher; journalctl -u batchwarden-launcher -n 50 says why it ended"
	s, running := d.status(), d.processes()
	switch {
	case s.status != nil && !s.status.Launcher.Connected:
		return append([]doctor.Check{problem(name, "the service does not reach it, so nothing is launched: "+s.status.Launcher.Detail, start)},
			unknown(entries, "only the launcher knows", "start it first"))
	case s.status == nil && running.err != nil:
		return s.unsaid(name, entries)
	case s.status == nil && running.launcher == nil:
		return append([]doctor.Check{problem(name, "it does not run", start)}, s.unsaid(entries)...)
	case s.status == nil:
		return append([]doctor.Check{ok(name, fmt.Sprintf("process %d runs; whether it answers only the service can say", running.launcher.PID))}, s.unsaid(entries)...)
	}
	var own, limits []string
	for _, p := range s.status.Problems {
		switch text := p.Detail; {
		case p.Code != launcherProblem, strings.HasPrefix(text, everyLaunch): // limits says that
		case strings.HasPrefix(text, ofLimits):
			limits = append(limits, strings.TrimPrefix(text, ofLimits))
		default:
			own = append(own, text)
		}
	}
	checks := []doctor.Check{ok(name, "it answers; connected "+d.app.when(s.status.Launcher.Since))}
	if len(own) > 0 {
		checks[0] = problem(name, strings.Join(own, "; "), "journalctl -u batchwarden-launcher -n 50 says more")
	}
	if len(limits) > 0 {
		return append(checks, problem(entries, strings.Join(limits, "; ")+": such an entry opens nothing", "remove the entry from "+d.limits+", or make what it names"))
	}
	return append(checks, ok(entries, "all accounts, groups and commands in limits.yaml are there"))
}

// versions compares what runs with what is installed. One installation is of one version.
func (d *diagnosis) versions(context.Context) []doctor.Check {
	const name = "versions"
	s, running := d.status(), d.processes()
	var faults, restart []string
	differs := func(program, v, unit string) {
		if v != "" && v != version.Number {
			faults = append(faults, fmt.Sprintf("%s is %s, batchwarden is %s", program, v, version.Number))
			restart = append(restart, unit)
		}
	}
	if s.status != nil {
		differs("batchwardend", s.status.Version, "batchwardend")
		differs("batchwarden-launcher", s.status.Launcher.Version, "batchwarden-launcher")
	}
	if p := running.daemon; p != nil && p.Replaced {
		faults = append(faults, p.Exe+" was replaced after batchwardend was started")
		restart = append(restart, "batchwardend")
	}
	if p := running.launcher; p != nil && p.Replaced {
		faults = append(faults, p.Exe+" was replaced after batchwarden-launcher was started")
		restart = append(restart, "batchwarden-launcher")
	}
	switch {
	case len(faults) > 0:
		return []doctor.Check{problem(name, strings.Join(faults, "; "), "install one version, then systemctl restart "+strings.Join(restart, " ")+"; running jobs go on")}
	case s.status == nil:
		return s.unsaid(name)
	case !d.root:
		return []doctor.Check{ok(name, "all that answer are "+version.Number+"; whether their files were replaced since root can see")}
	}
	return []doctor.Check{ok(name, "all are "+version.Number+", and their files are those that run")}
}

// neededLock is what the daemon locks into memory, with room to spare.
const neededLock = 512 << 10

func (d *diagnosis) memory(context.Context) []doctor.Check {
	const name, limit = "memory", "memlock"
	s, p := d.status(), d.processes().daemon
	var checks []doctor.Check
	switch {
	case s.status == nil:
		checks = s.unsaid(name)
	case s.status.Memory.Degraded != "":
		checks = append(checks, problem(name, s.status.Memory.Degraded, "mend memlock, or turn swap off; then systemctl restart batchwardend"))
	case s.status.Memory.Dumpable:
		checks = append(checks, problem(name, "other processes of the daemon's user can read its memory", "systemctl restart batchwardend"))
	default:
		checks = append(checks, ok(name, "secrets are in "+s.status.Memory.Backend))
	}
	switch {
	case p == nil:
		return append(checks, unknown(limit, "the process batchwardend is not to be seen", "start the service first"))
	case p.MemLock >= neededLock:
		return append(checks, ok(limit, "batchwardend may lock enough memory"))
	case s.status != nil && s.status.Memory.Degraded == "":
		return append(checks, note(limit, fmt.Sprintf("batchwardend may lock %s, and has what it needs", octets(int64(p.MemLock)))))
	}
	return append(checks, problem(limit, fmt.Sprintf("batchwardend may lock %s into memory and needs %s", octets(int64(p.MemLock)), octets(neededLock)),
		"LimitMEMLOCK=8M in [Service] of batchwardend.service (systemctl edit batchwardend); then systemctl restart batchwardend"))
}

func (d *diagnosis) cgroup(context.Context) []doctor.Check {
	const name = "cgroup"
	s := d.status()
	switch {
	case s.status == nil:
		return s.unsaid(name)
	case s.status.Launcher.Containment == "":
		return []doctor.Check{unknown(name, "only the launcher knows", "start it first")}
	case strings.HasPrefix(s.status.Launcher.Containment, inCgroup):
		return []doctor.Check{ok(name, "jobs are kept together in "+s.status.Launcher.Containment)}
	}
	return []doctor.Check{problem(name, "jobs are not kept together by cgroups: "+s.status.Launcher.Containment,
		"Delegate=yes in [Service] of batchwarden-launcher.service and launcher: {cgroup_root: auto} in "+d.file+", where cgroup v2 is mounted; then systemctl restart batchwarden-launcher")}
}

// elsewhere are the beginnings of the codes that other checks tell of.
var elsewhere = []string{
	"vault.", "sync.", "document.", "policy.", "audit.", "memory.", "local_vault.", "launcher.", "clock.",
	wire.MachineSuspended, wire.BatchUserAmbiguous, wire.CredentialRejected,
}

// others are what the service says and no other check tells.
func (d *diagnosis) others(context.Context) []doctor.Check {
	const name = "other"
	s := d.status()
	if s.status == nil {
		return s.unsaid(name)
	}
	var notes, faults []string
	for _, p := range s.status.Problems {
		switch {
		case p.Code == "config.ignored", p.Code == wire.ConfigRestartNeeded:
			notes = append(notes, finding(p))
		case !slices.ContainsFunc(elsewhere, func(begin string) bool { return strings.HasPrefix(p.Code, begin) }):
			faults = append(faults, finding(p))
		}
	}
	switch {
	case len(faults) > 0:
		return []doctor.Check{problem(name, strings.Join(faults, "; "), "mend what is named, in "+d.file+" where it is a place there")}
	case len(notes) > 0:
		return []doctor.Check{note(name, strings.Join(notes, "; "))}
	}
	return []doctor.Check{ok(name, "the service says of no other problem")}
}
