package keeper

import (
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"batchwarden/platform/launch"
	"batchwarden/platform/launch/become"
)

// notEnded is the reason of a job whose record says less than it could.
const notEnded = "processes of it that were killed have not ended yet"

// started publishes that the job runs.
func (k *keeper) started(j *job, c *child, byPath bool) {
	k.mu.Lock()
	j.State, j.PID, j.ByPath = launch.StateRunning, c.pid, byPath
	serial, line := j.Serial, j.thread
	k.mu.Unlock()
	close(j.ready)
	c.box.belongs(c.pid)
	if !byPath {
		return
	}
	r := record{Kind: kindRun, thread: thread{Box: line.Box, At: line.At}, Job: &launch.Job{Serial: serial, PID: c.pid, ByPath: true}}
	if err := k.journal.append(r); err != nil {
		k.Log.Error("journal", "err", err) // the next launcher would not know that it is a script
	}
}

// snapshot is the job as it is now.
func (k *keeper) snapshot(j *job) launch.Job {
	k.mu.Lock()
	defer k.mu.Unlock()
	return j.Job
}

// endOf reaps an ended job and says how it was.
func (k *keeper) endOf(j *job, c *child) launch.Job {
	ended, endedBoot := time.Now(), sinceBoot()
	how := k.reap(c)
	end := k.snapshot(j)
	end.State, end.Ended, end.EndedBoot, end.Survivors = launch.StateExited, ended, endedBoot, how.survivors
	end.CPUSeconds, end.MaxRSS = how.cpu.Seconds(), how.rss
	switch {
	case !how.known:
		end.State, end.Reason = launch.StateLost, "its end was seen, but not how it ended"
	case how.status.Exited():
		code := how.status.ExitStatus()
		end.ExitCode = &code
	case how.status.Signaled():
		end.Signal, end.CoreDumped = signalName(how.status.Signal()), how.status.CoreDump()
	}
	if !how.done {
		end.Reason = joined(end.Reason, notEnded)
	}
	switch {
	case c.timedOut:
		end.State, end.Code, end.Reason = launch.StateFailed, launch.CodeTimeout, joined("its time was up", end.Reason)
	case k.canceled(j) && how.known:
		end.State, end.Code, end.Reason = launch.StateFailed, launch.CodeCanceled, joined("it was canceled", end.Reason)
	}
	return end
}

// endFailed ends a job whose child did not become the command.
func (k *keeper) endFailed(j *job, c *child, r become.Report, err error) {
	c.box.stop() // a child that failed is ending; one that said nothing sensible is made to
	how := k.reap(c)
	if !how.done {
		k.Log.Error("the child of a job that could not be started has not ended yet", "serial", j.Serial, "pid", c.pid)
	}
	code, reason := codeOf(r), reasonOf(r)
	if err != nil {
		code, reason = launch.CodeFailed, err.Error()
		if how.status.Signaled() && !c.timedOut {
			reason += " by signal " + signalName(how.status.Signal())
		}
	}
	if c.timedOut {
		code = launch.CodeTimeout
	}
	k.finish(j, k.failed(j, code, reason))
}

// reap reaps a child, or leaves it to housekeeping when it does not end.
func (k *keeper) reap(c *child) ending {
	how := c.reap()
	if !how.done {
		k.mu.Lock()
		k.strays = append(k.strays, c.pid)
		k.mu.Unlock()
	}
	return how
}

// reapStrays waits for children that ended late.
func (k *keeper) reapStrays() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.strays = slices.DeleteFunc(k.strays, func(pid int) bool {
		got, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		return got == pid || err != nil // ECHILD: reaped already, its survivors were what hung
	})
}

// failed is the end of a job that never ran.
func (k *keeper) failed(j *job, code, reason string) launch.Job {
	end := k.snapshot(j)
	end.State, end.Code, end.Reason, end.Ended, end.EndedBoot = launch.StateFailed, code, reason, time.Now(), sinceBoot()
	return end
}

// finish journals and publishes the end of a job.
func (k *keeper) finish(j *job, end launch.Job) {
	k.removeScript(j)
	k.endMu.Lock()
	defer k.endMu.Unlock()
	k.mu.Lock()
	k.end++
	end.EndSeq = k.end
	k.mu.Unlock()

	written := end
	written.Note, written.Hash = nil, "" // the start record has them
	r := record{Kind: kindEnd, Job: &written}
	err := k.journal.append(r)
	if err != nil {
		k.Log.Error("the end of a job cannot be written down yet", "serial", end.Serial, "err", err)
	}

	k.mu.Lock()
	if err != nil {
		k.pending = append(k.pending, r)
	}
	j.Job = end
	delete(k.live, end.Serial)
	k.ended = append(k.ended, j)
	news := k.news
	k.news = make(chan struct{})
	k.mu.Unlock()

	select {
	case <-j.ready:
	default:
		close(j.ready)
	}
	close(news)
	close(j.over) // whoever waits for this job runs next: the last to be readied does
}

// codeOf is the contract's code for a failed step.
func codeOf(r become.Report) string {
	missing := r.Errno == unix.ENOENT || r.Errno == unix.ENOTDIR
	denied := r.Errno == unix.EACCES || r.Errno == unix.EPERM
	switch {
	case r.Step == become.StepAccount && r.Errno == 0:
		return launch.CodeChanged
	case r.Step == become.StepChdir:
		return launch.CodeChdir
	case (r.Step == become.StepCommand || r.Step == become.StepExec) && missing:
		return launch.CodeNotFound
	case r.Step == become.StepCommand, r.Step == become.StepExec && denied:
		return launch.CodeForbidden
	}
	return launch.CodeFailed
}

func reasonOf(r become.Report) string {
	reason := r.Step + ": " + r.Reason
	if r.Errno != 0 {
		reason += fmt.Sprintf(" (errno %d, %s)", int(r.Errno), unix.ErrnoName(r.Errno))
	}
	return reason
}

func joined(parts ...string) string {
	var list []string
	for _, p := range parts {
		if p != "" {
			list = append(list, p)
		}
	}
	return strings.Join(list, "; ")
}

// signalName is TERM for SIGTERM, and the number for one without a name.
func signalName(s syscall.Signal) string {
	if name, ok := strings.CutPrefix(unix.SignalName(s), "SIG"); ok {
		return name
	}
	return fmt.Sprint(int(s))
}

// abandon lets the goroutines of running jobs end; the jobs go on.
func (k *keeper) abandon() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.stopped = true
	for _, j := range k.live {
		if j.child != nil {
			j.child.release()
		}
	}
}
