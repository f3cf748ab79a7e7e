package keeper

import "batchwarden/platform/launch"

// Witnessed returns the jobs that the launcher's journal in its state
// directory tells of, in the order in which they were started, while a
// launcher may be writing it. Only its owner, root, can read it: others get
// fs.ErrPermission. An error wraps errors.ErrUnsupported where there is no
// launcher.
func Witnessed(stateDir string) ([]launch.Job, error) { return witnessed(stateDir) }
