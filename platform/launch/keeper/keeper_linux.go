package keeper

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"batchwarden/platform/account"
	"batchwarden/platform/boottime"
	"batchwarden/platform/launch"
	"batchwarden/platform/localsock"
	"batchwarden/platform/peer"
	"batchwarden/platform/safefile"
	"batchwarden/platform/service"
)

// housekeepEvery is how often ended jobs are looked at for being forgotten.
const housekeepEvery = time.Minute

// keeper is one running launcher.
type keeper struct {
	Config
	root     bool
	boot     string
	ignored  uint64 // signals that we were started with, as become.Order has them
	boxes    *boxes
	journal  *journal
	witness  *witness
	attestor *peer.Attestor
	program  *os.File          // what a job's process executes first; its name leads to it, whatever lies at its path now
	public   *os.File          // the public listening socket, to hand over
	systemd  *net.UnixListener // likewise; nil: there is none

	life      context.Context // ends when the launcher is to end
	naming    atomic.Int32    // questions about names that were not answered yet
	jobsDone  sync.WaitGroup
	looking   atomic.Int32 // looks for a command that have not ended
	verifying atomic.Bool  // PAM is trying a password
	texts     atomic.Int64 // octets of the scripts and stdins of running jobs

	startMu sync.Mutex // held while a job is entered and its start record written
	endMu   sync.Mutex // held from taking an EndSeq to publishing it, so that ends become known in their order

	mu      sync.Mutex // guards what follows and the snapshots in the jobs
	jobs    map[key]*job
	live    map[uint64]*job // by serial, those that have not ended
	ended   []*job          // by EndSeq, ascending
	serial  uint64
	end     uint64
	ahead   ahead
	news    chan struct{} // closed and replaced when a job ends
	session *session
	syncing bool
	stopped bool              // no goroutine may begin to wait for a child
	strays  []int             // children that were killed and had not ended when their job did
	pending []record          // ends that could not be written yet
	found   []func()          // take up the jobs of an earlier launcher
	orphans map[int]time.Time // housekeeping's: since when they have ended
}

type key struct{ owner, id string }

func run(ctx context.Context, c Config) (err error) {
	if c.Accounts == nil {
		c.Accounts = account.System()
	}
	k := &keeper{
		Config: c, root: os.Geteuid() == 0, boot: boottime.Boot(), ignored: ignoredSignals(), life: ctx,
		jobs: map[key]*job{}, live: map[uint64]*job{}, news: make(chan struct{}),
	}
	if err := os.MkdirAll(c.StateDir, 0o700); err != nil {
		return fmt.Errorf("keeper: state: %w", err)
	}
	if err := safefile.CheckDir(c.StateDir, safefile.Rules{Self: true, Mode: 0o700}); err != nil {
		return fmt.Errorf("keeper: state: %w", err)
	}
	lock, err := lockState(ctx, c.StateDir)
	if err != nil {
		return fmt.Errorf("keeper: state: is another launcher running? %w", err)
	}
	defer func() { err = errors.Join(err, lock.Close()) }()
	if k.attestor, err = peer.NewAttestor(); err != nil {
		return fmt.Errorf("keeper: %w", err)
	}
	if k.program, err = openProgram(c.BecomePath); err != nil {
		return fmt.Errorf("keeper: %w", err)
	}
	defer func() { err = errors.Join(err, k.program.Close()) }()
	// After the lock: what lies there is no living launcher's.
	k.boxes = openBoxes(c.CgroupRoot, c.StateDir)
	defer k.boxes.close()
	if err := k.remember(); err != nil {
		return err
	}
	k.sweepScripts()
	if k.witness, err = openWitness(c.StateDir); err != nil {
		c.Log.Error("the daemon's witness begins anew", "err", err)
	}
	defer func() { err = errors.Join(err, k.journal.close()) }()
	passed := k.passedSockets()
	public, private, err := k.listen(passed)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, public.Close(), k.public.Close()) }()
	if err := k.listenForSystemd(passed); err != nil {
		return err
	}
	k.closeUnused(passed)
	if k.systemd != nil {
		defer func() { err = errors.Join(err, k.systemd.Close()) }()
	}
	k.Log.Info("launcher ready", "socket", c.Socket, "public", c.PublicSocket, "containment", k.boxes.String(), "jobs", len(k.jobs))
	if !k.root {
		k.Log.Warn("the launcher is not root: it can start no jobs")
	}
	return k.work(ctx, private)
}

// openProgram opens the program of package become, without its content.
func openProgram(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	own := st.Uid == 0 || st.Uid == uint32(os.Geteuid())
	if !own || st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o022 != 0 || st.Mode&0o111 == 0 {
		err := fmt.Errorf("%q is not a program of root's that only root can write (uid %d, mode %o)", path, st.Uid, st.Mode)
		return nil, errors.Join(err, unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "/proc/self/fd/"+strconv.Itoa(fd)), nil
}

// lockWait is how long the lock of the state directory is waited for. A launcher that was killed leaves it behind for as
// long as a child of its is between fork and exec.
const lockWait = 2 * time.Second

func lockState(ctx context.Context, dir string) (io.Closer, error) {
	for deadline := time.Now().Add(lockWait); ; {
		lock, err := safefile.Lock(dir)
		if !errors.Is(err, safefile.ErrLocked) || time.Now().After(deadline) {
			return lock, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// work serves until ctx ends and returns when everything it started has ended; jobs themselves go on.
func (k *keeper) work(ctx context.Context, private *net.UnixListener) error {
	var background, serving sync.WaitGroup
	synced := make(chan struct{})
	background.Go(func() { k.journal.run(synced) })
	k.takeUp()
	serving.Go(func() { k.housekeep(ctx) })
	serving.Go(func() { k.accept(ctx, private) })
	k.tell(service.Ready)
	serving.Go(func() {
		service.Live(ctx, k.alive, func(err error) { k.Log.Error("the launcher does not work as it should", "err", err) })
	})

	<-ctx.Done()
	k.tell(service.Stopping)
	err := private.Close()
	serving.Wait()
	k.abandon()
	k.jobsDone.Wait()
	k.dismissAhead(0)
	close(synced)
	background.Wait()
	return err
}

// listen binds both sockets, in directories that it makes when they are missing. The public one may be there already.
func (k *keeper) listen(passed map[string]*net.UnixListener) (public, private *net.UnixListener, err error) {
	gid := -1
	if k.root {
		gid = int(k.DaemonGID)
	}
	if err := localsock.MakeDir(filepath.Dir(k.PublicSocket), 0o755, -1); err != nil {
		return nil, nil, err
	}
	if filepath.Dir(k.Socket) != filepath.Dir(k.PublicSocket) {
		if err := localsock.MakeDir(filepath.Dir(k.Socket), 0o750, gid); err != nil {
			return nil, nil, err
		}
	}
	private, err = localsock.ListenWith(k.Socket, localsock.Options{Mode: 0o660, GID: gid})
	if err != nil {
		return nil, nil, err
	}
	if public = take(passed, k.PublicSocket); public == nil {
		// A daemon that we handed an earlier public socket to may still serve it. Having been able to bind the private
		// one we are the only launcher: the path is ours.
		public, err = localsock.ListenWith(k.PublicSocket, localsock.Options{Mode: 0o666, GID: -1, Replace: true})
		if err != nil {
			return nil, nil, errors.Join(err, private.Close())
		}
	}
	k.public, err = localsock.Dup(public, "public socket")
	if err != nil {
		return nil, nil, errors.Join(err, public.Close(), private.Close())
	}
	return public, private, nil
}

// remember takes over what the journal knows. A job that it has no end of is live again, or lost.
func (k *keeper) remember() error {
	j, h, err := openJournal(k.StateDir, k.JournalSync, k.Log)
	if err != nil {
		return err
	}
	// What was begun ahead by an earlier launcher has a box and no line.
	k.journal, k.serial, k.end = j, max(h.serial, k.boxes.last()), h.end
	for _, r := range h.jobs {
		old := &job{Job: r.Job, thread: r.thread, ready: make(chan struct{}), over: make(chan struct{})}
		close(old.ready)
		k.jobs[key{r.Owner, r.ID}] = old
		if old.Over() {
			close(old.over)
			k.ended = append(k.ended, old)
			continue
		}
		k.seek(old)
	}
	slices.SortFunc(k.ended, func(a, b *job) int { return cmp.Compare(a.EndSeq, b.EndSeq) })
	return nil
}

// housekeep forgets what is old until ctx ends.
func (k *keeper) housekeep(ctx context.Context) {
	tick, punch := time.NewTicker(housekeepEvery), time.NewTicker(punchEvery)
	defer tick.Stop()
	defer punch.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-punch.C:
			k.trimOutputs()
			k.watchHeads()
			k.dismissAhead(aheadFor)
		case <-tick.C:
			k.forgetOld()
			k.writePending()
			k.compact()
			k.reapStrays()
			k.reapOrphans()
			k.sweepBoxes()
		}
	}
}

// trimOutputs holds the captured output of all running jobs against its limits.
func (k *keeper) trimOutputs() {
	k.mu.Lock()
	var list []*output
	for _, j := range k.live {
		if j.out != nil {
			list = append(list, j.out)
		}
	}
	k.mu.Unlock()
	for _, o := range list {
		// Closed meanwhile by the job's end, which trims for a last time.
		if err := o.trim(); err != nil && !errors.Is(err, os.ErrClosed) {
			k.Log.Error("captured output", "err", err)
		}
	}
}

func (k *keeper) forgetOld() {
	now, keep := time.Now(), k.Bounds().Keep
	var gone []*job
	k.mu.Lock()
	k.ended = slices.DeleteFunc(k.ended, func(j *job) bool {
		old := now.Sub(j.Ended) > cmp.Or(j.Keep, keep)
		if old {
			gone = append(gone, j)
			delete(k.jobs, key{j.Owner, j.ID})
		}
		return old
	})
	k.mu.Unlock()
	for _, j := range gone {
		if err := k.journal.append(record{Kind: kindForget, Job: &launch.Job{Serial: j.Serial}}); err != nil {
			k.Log.Error("journal", "err", err) // it is forgotten again after the next start
		}
		if err := os.RemoveAll(outputPath(k.StateDir, j.Serial)); err != nil {
			k.Log.Error("output of a forgotten job", "err", err)
		}
	}
}

// writePending tries again to write ends that a full disk refused.
func (k *keeper) writePending() {
	k.mu.Lock()
	pending := k.pending
	k.pending = nil
	k.mu.Unlock()
	for i, r := range pending {
		if err := k.journal.append(r); err != nil {
			k.mu.Lock()
			k.pending = append(pending[i:], k.pending...)
			k.mu.Unlock()
			return
		}
	}
}

// compactAbove is the size from which a journal is written anew when three quarters of it are about forgotten jobs.
const compactAbove = 16 << 20

func (k *keeper) compact() {
	size := k.journal.length()
	if size < compactAbove && k.journal.sound() {
		return
	}
	// No record may fall between the snapshot and the new file; one of a job's running may: it would be repeated.
	k.startMu.Lock()
	defer k.startMu.Unlock()
	k.endMu.Lock()
	defer k.endMu.Unlock()
	h := k.history()
	if k.journal.sound() && int64(len(h.jobs))*2048 > size/4 {
		return
	}
	if err := k.journal.rewrite(h); err != nil {
		k.Log.Error("journal cannot be compacted", "err", err)
	}
}

func (k *keeper) history() history {
	k.mu.Lock()
	defer k.mu.Unlock()
	h := history{serial: k.serial, end: k.end}
	for _, j := range k.jobs {
		h.jobs = append(h.jobs, &remembered{j.Job, j.thread})
	}
	slices.SortFunc(h.jobs, func(a, b *remembered) int { return cmp.Compare(a.Serial, b.Serial) })
	return h
}

// sweepBoxes removes boxes that could not be removed when their job ended.
func (k *keeper) sweepBoxes() {
	k.mu.Lock()
	inUse := make(map[string]bool, len(k.live)) // one that was just made looks empty
	for serial := range k.live {
		inUse[strconv.FormatUint(serial, 10)] = true
	}
	inUse[strconv.FormatUint(k.ahead.serial, 10)] = true
	k.mu.Unlock()
	k.boxes.sweep(inUse)
}
