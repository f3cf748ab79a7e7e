package keeper

import (
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// unboxed finds the processes of jobs where there are no cgroups. Those of a job are of the session that its first
// process leads, of that one's audit session, or descend from such ones. Those that left the session and lost their
// parents come to us, as the kernel's "child subreaper"; on a kernel without audit sessions such a one is that job's which
// alone runs as its user, so that it may have to wait for the end of the last of several.
type unboxed struct {
	mu    sync.Mutex // guards boxes
	boxes map[*box]bool
}

// reapFor makes us the parent of orphans.
func (u *unboxed) reapFor() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("child subreaper: %w", err)
	}
	return nil
}

func (u *unboxed) enter(b *box) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.boxes == nil {
		u.boxes = map[*box]bool{}
	}
	u.boxes[b] = true
}

func (u *unboxed) leave(b *box) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.boxes, b)
}

// alone reports whether no other job of that user runs.
func (u *unboxed) alone(b *box) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for other := range u.boxes {
		if other != b && other.uid == b.uid {
			return false
		}
	}
	return true
}

// belongs notes what the processes of a job are known by, of its first one, which is the command.
func (b *box) belongs(first int) {
	if b.dir != "" {
		return
	}
	p, ok := processOf(first)
	if !ok {
		return // it has ended, and its session is all there is
	}
	b.mu.Lock()
	b.born, b.audit = p.born, auditSession(first)
	if b.audit == auditSession(os.Getpid()) {
		b.audit = 0
	}
	b.mu.Unlock()
}

// members lists the job's living processes.
func (b *box) members() (pids []int) {
	b.mu.Lock()
	born, audit := b.born, b.audit
	b.mu.Unlock()
	all := processes()
	// A number that is another's by now leads no session of ours.
	ours := b.pid != 0 && !slices.ContainsFunc(all, func(p process) bool { return p.pid == b.pid && born != 0 && p.born != born })
	orphans := audit == 0 && b.uid != 0 && b.boxes != nil && b.boxes.alone(b) // root's could be our own helpers
	in := map[int]bool{}
	for more := true; more; {
		more = false
		for _, p := range all {
			if in[p.pid] || p.pid == os.Getpid() {
				continue
			}
			yes := ours && p.session == b.pid || in[p.parent] || audit != 0 && auditSession(p.pid) == audit
			if !yes && orphans && p.parent == os.Getpid() {
				uid, ok := uidOf(p.pid)
				yes = ok && uid == b.uid
			}
			if yes {
				in[p.pid], more = true, true
			}
		}
	}
	for _, p := range all {
		if in[p.pid] && !p.dead() {
			pids = append(pids, p.pid)
		}
	}
	return pids
}

// orphanPatience is for how long a child of ours that has ended and that nobody waits for is left alone: somebody who
// started it would have waited by then.
const orphanPatience = time.Minute

// reapOrphans waits for those that came to us and have ended, all but the jobs' first ones.
func (k *keeper) reapOrphans() {
	if k.boxes.root != "" {
		return
	}
	k.mu.Lock()
	first := map[int]bool{}
	for _, j := range k.live {
		if j.child != nil {
			first[j.child.pid] = true
		}
	}
	k.mu.Unlock()
	seen, now := k.orphans, time.Now()
	k.orphans = map[int]time.Time{}
	for _, p := range processes() {
		if p.parent != os.Getpid() || p.state != 'Z' || first[p.pid] {
			continue
		}
		since, before := seen[p.pid]
		if !before {
			since = now
		}
		if now.Sub(since) >= orphanPatience {
			_, _ = syscall.Wait4(p.pid, nil, syscall.WNOHANG, nil) // waited for meanwhile, at worst
			continue
		}
		k.orphans[p.pid] = since
	}
}
