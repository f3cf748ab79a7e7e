package keeper

import (
	"context"
	"fmt"
	"os"
	"slices"

	"batchwarden/platform/launch"
)

// forget removes an ended job for its owner. When it returns nil that is in the journal.
func (k *keeper) forget(owner, id string, serial uint64) error {
	// As for ends: no record may fall between what a compaction has seen and the file that it writes.
	k.endMu.Lock()
	defer k.endMu.Unlock()
	k.mu.Lock()
	j := k.jobs[key{owner, id}]
	unknown := j == nil || j.Serial != serial
	over := !unknown && j.Over()
	k.mu.Unlock()
	switch {
	case unknown:
		return &launch.Refused{Code: launch.CodeUnknown, Reason: fmt.Sprintf("no job %q of %q is known", id, owner)}
	case !over:
		return &launch.Refused{Code: launch.CodeRunning, Reason: fmt.Sprintf("job %q has not ended", id)}
	}
	if err := k.journal.append(record{Kind: kindForget, Job: &launch.Job{Serial: serial}}); err != nil {
		k.Log.Error("a job was not forgotten: the journal cannot be written", "err", err)
		return &launch.Refused{Code: launch.CodeUnavailable, Reason: "the launcher's journal cannot be written"}
	}
	k.mu.Lock()
	delete(k.jobs, key{owner, id})
	k.ended = slices.DeleteFunc(k.ended, func(other *job) bool { return other == j })
	k.mu.Unlock()
	if err := os.RemoveAll(outputPath(k.StateDir, serial)); err != nil {
		k.Log.Error("output of a forgotten job", "err", err)
	}
	return nil
}

// checks goes through a launch up to where it would be written down.
func (k *keeper) checks(ctx context.Context, s *launch.Spec, conn *os.File) (list []launch.Check, err error) {
	if err := check(s); err != nil {
		return nil, err
	}
	note := func(step string, err error) bool {
		c := launch.Check{Step: step}
		if refused, ok := err.(*launch.Refused); ok {
			c.Code, c.Reason = refused.Code, refused.Reason
		} else if err != nil {
			c.Code, c.Reason = launch.CodeInternal, err.Error()
		}
		list = append(list, c)
		return err == nil
	}
	if !k.root {
		note("launcher", &launch.Refused{Code: launch.CodeRefused, Reason: notRoot})
	} else {
		note("launcher", k.room())
	}
	requester, err := k.requester(ctx, conn, s.Started)
	if !note("requester", err) {
		return list, nil
	}
	p, err := k.allowed(s, requester)
	refused, _ := err.(*launch.Refused)
	if refused != nil && refused.Code != launch.CodeRefused {
		note("account", err)
		return list, nil
	}
	note("account", nil)
	note("limits", err)
	if err == nil {
		p.close()
	}
	return list, nil
}

// room says whether one more job may run.
func (k *keeper) room() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if running := len(k.live); running >= k.MaxRunning {
		return &launch.Refused{Code: launch.CodeOverloaded, Reason: fmt.Sprintf("%d jobs are running, as many as may", running)}
	}
	return nil
}
