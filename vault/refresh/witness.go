package refresh

import (
	"context"
	"fmt"
)

// witness tells how far the local vault has come, before and after the worker
// runs, and returns what is known of its going back: "" when it did not. A file
// alone cannot prove that it is the newest.
func (r *Refresher) witness(ctx context.Context, known string) string {
	commits := r.o.Store.Status().Commits
	if commits == r.told && known == "" {
		return ""
	}
	highest, err := r.o.Witness.Witness(ctx, commits, false)
	if err != nil {
		r.o.Log.Debug("the local vault has no witness now", "err", err) // it is the launcher's, and its absence is said elsewhere
		return known
	}
	r.told = commits
	if highest <= commits || known != "" {
		return known
	}
	known = fmt.Sprintf("the local vault is at change %d, and this machine has had it at %d: an older copy was put in its place, or a new one begun; until everything was compared with Vault, what was removed or replaced there since may be in force again", commits, highest)
	r.o.Log.Error("the local vault went back", "at", commits, "was", highest)
	r.o.Noticed(WentBack, known)
	return known
}

// settle is for the end of a sweep of everything: whatever was older is not any
// more.
func (r *Refresher) settle(ctx context.Context, known string) string {
	if known == "" {
		return ""
	}
	commits := r.o.Store.Status().Commits
	if _, err := r.o.Witness.Witness(ctx, commits, true); err != nil {
		r.o.Log.Warn("the local vault's witness does not take its number", "err", err)
		return known
	}
	r.told = commits
	r.o.Log.Info("the local vault was compared with Vault", "at", commits)
	return ""
}
