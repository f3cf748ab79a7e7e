package keeper

import (
	"context"
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"batchwarden/platform/launch"
)

// signal sends a signal to every process of a job, and KILL to those that are left after the grace, if there is one. A
// job that is just being started gets it when it has become the command; one that has ended is left alone. launch.Cancel
// is TERM, and the end of the job will say that it was canceled.
func (k *keeper) signal(ctx context.Context, owner, id, name string, grace time.Duration) (launch.Job, error) {
	sig, cancel := unix.SignalNum("SIG"+name), name == launch.Cancel
	if cancel {
		sig = unix.SIGTERM
	}
	if sig == 0 {
		return launch.Job{}, &launch.Refused{Code: launch.CodeInvalid, Reason: fmt.Sprintf("there is no signal %q", name)}
	}
	if grace < 0 || grace > launch.MaxGrace {
		return launch.Job{}, &launch.Refused{Code: launch.CodeInvalid, Reason: fmt.Sprintf("a grace of %v, at most %v is possible", grace, launch.MaxGrace)}
	}
	j, err := k.find(owner, id)
	if err != nil {
		return launch.Job{}, err
	}
	select {
	case <-j.ready:
	case <-ctx.Done():
		return launch.Job{}, &launch.Refused{Code: launch.CodeUnavailable, Reason: "the job is still being started"}
	}
	k.mu.Lock()
	c := j.child
	k.mu.Unlock()
	if c == nil {
		return k.snapshot(j), nil
	}
	sent := c.living(func(b *box) {
		if cancel {
			k.cancel(j)
		}
		b.signal(sig)
		if cancel {
			b.signal(unix.SIGCONT) // a stopped process would not see it
		}
	})
	if sent && (grace > 0 || cancel) && sig != unix.SIGKILL {
		k.enterKill(j, grace)
		c.killAfter(grace)
	}
	return k.snapshot(j), nil
}

// cancel makes job.canceled of the job's end.
func (k *keeper) cancel(j *job) {
	k.mu.Lock()
	defer k.mu.Unlock()
	j.Canceled = true
}

func (k *keeper) canceled(j *job) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	return j.Canceled
}

// enterKill writes down that the job will be killed, for a launcher that comes before that.
func (k *keeper) enterKill(j *job, grace time.Duration) {
	k.mu.Lock()
	j.Kill = sinceBoot() + grace
	r := record{Kind: kindKill, thread: thread{Kill: j.Kill, Canceled: j.Canceled}, Job: &launch.Job{Serial: j.Serial}}
	k.mu.Unlock()
	if err := k.journal.append(r); err != nil {
		k.Log.Error("journal: the next launcher would not kill a job", "serial", j.Serial, "err", err)
	}
}

// killAfter ends everybody in the job then, unless it has ended.
func (c *child) killAfter(grace time.Duration) {
	time.AfterFunc(grace, func() { c.living((*box).stop) })
}

// living calls f while the child has not been reaped, and reports whether it did: after that its number may be
// somebody else's.
func (c *child) living(f func(*box)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.reaped {
		return false
	}
	f(c.box)
	return true
}
