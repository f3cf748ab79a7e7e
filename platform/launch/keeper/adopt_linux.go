package keeper

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"batchwarden/platform/boottime"
	"batchwarden/platform/launch"
)

// A launcher that ends leaves its jobs alone, whether it was stopped, killed or replaced, and the next one takes them up:
// it knows their first processes by the journal, their boot, cgroup and age, and holds them to their times. They are not
// its children, so what is known of their end is what the kernel tells others; see learn.

// sinceBoot is the boot time; 0 where there is no such clock.
func sinceBoot() time.Duration {
	now, err := boottime.Now()
	if err != nil {
		return 0
	}
	return now
}

// seek finds out what became of a job that the journal has no end of.
func (k *keeper) seek(j *job) {
	if j.Boot != k.boot {
		k.lose(j, launch.CodeRebooted, "the machine was restarted while the job ran")
		return
	}
	b := &box{boxes: k.boxes, dir: j.Box, pid: j.PID}
	if j.Box == "" && k.boxes.root != "" { // its place was not written down yet
		b.dir = filepath.Join(k.boxes.root, strconv.FormatUint(j.Serial, 10))
	}
	why := "the launcher ended while it started the job"
	if j.PID != 0 {
		why = "the job ended while there was no launcher to see how"
		c := k.pick(j, b)
		switch {
		case c == nil:
			b.born = -1 // no process that has the number is the job's
		case k.beginning(c):
			_ = c.exit.Close()
			why = "the launcher ended while it started the job"
		default:
			k.live[j.Serial] = j
			k.found = append(k.found, func() { k.adopt(j, c) })
			return
		}
	}
	if len(b.processes()) == 0 {
		k.lose(j, "", why)
		return
	}
	k.live[j.Serial] = j
	k.found = append(k.found, func() { k.bury(j, b, why) })
}

// takeUp goes on with what was found.
func (k *keeper) takeUp() {
	for _, f := range k.found {
		k.jobsDone.Go(f)
	}
	k.found = nil
}

// pick opens the first process of a job, if it still is there, or nobody has waited for it yet.
func (k *keeper) pick(j *job, b *box) *child {
	fd, err := unix.PidfdOpen(j.PID, 0)
	if err != nil {
		return nil
	}
	// Read after the pidfd was opened: it is about that process, or a later one that has the number. No process can be in
	// that cgroup but the job's, and none of a later start had the number at the time that was written down.
	p, ok := processOf(j.PID)
	same := ok && p.born <= j.At && (j.Box != "" && inCgroup(j.PID, j.Box) || j.Box == "" && p.session == j.PID)
	if !same || unix.SetNonblock(fd, true) != nil {
		_ = unix.Close(fd) // not written to
		return nil
	}
	b.belongs(p.pid)
	if uid, ok := uidOf(p.pid); ok && b.dir == "" {
		b.uid = uid
		b.boxes.enter(b)
	}
	return &child{pid: j.PID, box: b, exit: os.NewFile(uintptr(fd), "pidfd"), born: p.born, adopted: true}
}

// beginning reports whether the process still is what a job begins as. It will not become the job: there is nobody whom
// it could tell.
func (k *keeper) beginning(c *child) bool {
	path, err := os.Readlink("/proc/" + strconv.Itoa(c.pid) + "/exe")
	c.open = err == nil
	return c.open && filepath.Base(strings.TrimSuffix(path, " (deleted)")) == filepath.Base(k.BecomePath)
}

// adopt is the rest of the life of a job that was begun by an earlier launcher.
func (k *keeper) adopt(j *job, c *child) {
	out, err := reopenOutput(k.StateDir, j.Serial, j.Capture)
	if err != nil {
		k.Log.Error("the output of a job that was taken up is not bounded any more", "serial", j.Serial, "err", err)
	}
	defer k.leave(j, c, out)
	now := sinceBoot()
	if j.Timeout > 0 {
		c.stopAt = time.Now().Add(max(j.StartedBoot+j.Timeout-now, 0))
		c.killAt = c.stopAt.Add(j.Grace)
	}
	if j.Kill > 0 {
		c.killAfter(max(j.Kill-now, 0))
	}
	k.attend(j, c, out)
	k.Log.Info("a job was taken up", "serial", j.Serial, "pid", c.pid)
	k.follow(j, c, out)
}

// bury ends what is left of a job whose first process is gone.
func (k *keeper) bury(j *job, b *box, why string) {
	survivors, gone := b.clear(0, killPatience)
	b.remove()
	why = joined(why, fmt.Sprintf("%d processes of it were left and have been ended", survivors))
	if !gone {
		why = joined(why, notEnded)
	}
	k.mu.Lock()
	j.Survivors = survivors
	k.mu.Unlock()
	k.lose(j, "", why)
}

// lose ends a job whose end nobody saw.
func (k *keeper) lose(j *job, code, why string) {
	end := k.snapshot(j)
	end.State, end.Code, end.Reason, end.Ended, end.EndedBoot = launch.StateLost, code, why, time.Now(), sinceBoot()
	k.finish(j, end)
}

// learn finds out how a process ended that is not our child. The kernel tells whoever holds its pidfd, from Linux 6.15
// on, once its parent has waited for it; before that, and on older ones with luck, whoever is in time.
func (c *child) learn() (how ending) {
	if p, ok := processOf(c.pid); ok && c.open && p.state == 'Z' && p.born == c.born {
		return ending{status: p.status, cpu: p.cpu, known: true}
	}
	// What is kept after that is the first thread's own word, not that of the process, if it ended before the others.
	if c.wait(time.Now().Add(killPatience), unix.POLLHUP) != nil || c.headless.Load() {
		return how
	}
	if rc, err := c.exit.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) { how.status, how.known = exitBehind(int(fd)) }) // closed: not known
	}
	return how
}

// watchHeads notes which adopted jobs go on without their first thread.
func (k *keeper) watchHeads() {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, j := range k.live {
		if c := j.child; c != nil && c.adopted && !c.headless.Load() {
			if p, ok := processOf(c.pid); ok && p.dead() && p.born == c.born && !c.ended() {
				c.headless.Store(true)
			}
		}
	}
}

// ending is what is known about the end of a job's first process.
type ending struct {
	status    syscall.WaitStatus
	known     bool // status is its own
	cpu       time.Duration
	rss       int64
	survivors int
	done      bool // nobody is left
}
