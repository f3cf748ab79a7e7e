package keeper

import (
	"fmt"
	"path/filepath"

	"batchwarden/platform/launch"
)

func witnessed(stateDir string) ([]launch.Job, error) {
	h, err := readJournal(filepath.Join(stateDir, journalName))
	if err != nil {
		return nil, err
	}
	if h.damaged > 0 {
		return nil, fmt.Errorf("keeper: journal: %d lines cannot be understood", h.damaged)
	}
	jobs := make([]launch.Job, len(h.jobs))
	for i, j := range h.jobs {
		jobs[i] = j.Job
	}
	return jobs, nil
}
