package keeper

import (
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
