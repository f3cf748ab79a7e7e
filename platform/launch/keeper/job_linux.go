package keeper

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"batchwarden/platform/account"
	"batchwarden/platform/launch"
	"batchwarden/platform/launch/become"
)

const (
	// killPatience is how long the end of a job waits for killed survivors to be gone.
	killPatience = 5 * time.Second
	rootPath     = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	userPath     = "/usr/local/bin:/usr/bin:/bin"
)

// job is one job; the snapshot in it, its thread, out and child are guarded by the keeper's mu.
type job struct {
	launch.Job
	thread
	out   *output // while it is being written
	child *child  // while it is waited for

	ready chan struct{} // closed when the pid is known or the start has failed
	over  chan struct{} // closed when EndSeq is set
}

// plan is what is needed to start a job and not kept afterwards.
type plan struct {
	spec      *launch.Spec
	requester uint32 // the uid of who asks
	ceilings  map[string]uint64
	order     become.Order
	text      []byte   // the order, encoded
	stdio     *os.File // a socket that the job's descriptors lie in; nil: they are made here
	stdin     *os.File // what the job reads; nil: nothing
	first     *child   // its first process, begun ahead; nil: it is to be begun
}

func (p *plan) close() {
	for _, f := range []**os.File{&p.stdio, &p.stdin} {
		if *f != nil {
			_ = (*f).Close() // the child has its own
			*f = nil
		}
	}
}

// child is the job's first process.
type child struct {
	serial uint64 // of the job that it is or, begun ahead, will be
	pid    int
	exit   *os.File // its pidfd: readable when it has ended
	talk   *os.File // its order goes there, and its answer comes back
	left   []byte   // of the order, what there was no room for yet
	box    *box
	// stopAt is when TERM is due, and killAt when KILL is; zero: never.
	stopAt, killAt time.Time
	timedOut       bool

	adopted  bool // begun by an earlier launcher: not a child of ours
	born     time.Duration
	open     bool        // its /proc files tell us everything
	headless atomic.Bool // its first thread has ended and it has not

	// Guards reaped. As long as it is false the number pid, which names the session, is the child's; of an adopted one it
	// may be nobody's for a moment.
	mu     sync.Mutex
	reaped bool
}

func newJob(boot string, s *launch.Spec) *job {
	return &job{
		Job: launch.Job{
			Owner: s.Owner, ID: s.ID, Hash: s.Hash, State: launch.StateStarting, User: s.Account,
			Started: time.Now(), StartedBoot: sinceBoot(), Captured: s.Stdio == launch.StdioCapture, Note: s.Note,
		},
		thread: thread{Boot: boot, Keep: s.Keep, Timeout: s.Timeout, Grace: s.Grace, Capture: s.CaptureMax, Script: s.Script != nil},
		ready:  make(chan struct{}), over: make(chan struct{}),
	}
}

// basePath is PATH where the request does not set it.
func basePath(uid uint32) string {
	if uid == 0 {
		return rootPath
	}
	return userPath
}

// environment is all that the job finds in its environment, sorted.
func environment(a *account.Account, extra map[string]string) []string {
	shell := a.Shell
	if shell == "" {
		shell = "/bin/sh"
	}
	env := map[string]string{"HOME": a.Home, "USER": a.Name, "LOGNAME": a.Name, "SHELL": shell, "PATH": basePath(a.UID)}
	maps.Copy(env, extra)
	list := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		list = append(list, name+"="+env[name])
	}
	return list
}

// run is the whole life of a job that has been journalled. It returns when the job has ended, or the keeper stops.
func (k *keeper) run(j *job, p plan) {
	defer k.giveRoom(textsOf(p.spec))
	session, code, err := k.openSession(&p)
	if err != nil {
		k.dismiss(p.first)
		p.close()
		k.finish(j, k.failed(j, code, err.Error()))
		return
	}
	c, out, err := k.start(j, &p)
	p.close()
	if err != nil {
		defer k.closeSession(j, session)
		k.finish(j, k.failed(j, launch.CodeFailed, err.Error()))
		return
	}
	defer k.leave(j, c, out)
	k.attend(j, c, out)
	k.enterPlace(j, c)
	k.holdSession(j, session, c)

	report, err := k.become(c, &p)
	p = plan{} // its environment may be large, and the job run for days
	switch {
	case errors.Is(err, os.ErrClosed):
		return // the keeper is stopping: the journal has no end, which is the truth, and the session lasts as long as the job
	case err != nil || report.Failed():
		defer k.closeSession(j, session)
		k.endFailed(j, c, report, err)
		return
	}
	k.started(j, c, report.ByPath)
	if k.follow(j, c, out) {
		k.closeSession(j, session)
	}
}

// follow waits for the end of a job that runs, and reports false when the keeper stops earlier.
func (k *keeper) follow(j *job, c *child, out *output) bool {
	if !c.awaitExit() {
		return false
	}
	end := k.endOf(j, c)
	if err := out.trim(); err != nil {
		k.Log.Error("captured output", "serial", j.Serial, "err", err)
	}
	k.finish(j, end)
	return true
}

// enterPlace writes down where the job's first process is, before it has the last word: what is not written down ends by
// itself with the launcher, and whatever became the command is found by the next one.
func (k *keeper) enterPlace(j *job, c *child) {
	k.mu.Lock()
	j.Box, j.At = c.box.dir, sinceBoot()
	r := record{Kind: kindRun, thread: thread{Box: j.Box, At: j.At}, Job: &launch.Job{Serial: j.Serial, PID: c.pid}}
	k.mu.Unlock()
	if err := k.journal.append(r); err != nil {
		k.Log.Error("journal: the next launcher would not find a job", "serial", j.Serial, "err", err)
	}
}

// attend lets the keeper find what it must look after while the job lives.
func (k *keeper) attend(j *job, c *child, out *output) {
	k.mu.Lock()
	defer k.mu.Unlock()
	j.child, j.out = c, out
	if k.stopped {
		c.release()
	}
}

func (k *keeper) leave(j *job, c *child, out *output) {
	k.mu.Lock()
	j.child, j.out = nil, nil
	k.mu.Unlock()
	out.close()
	c.release()
}

// release ends all waiting for the child.
func (c *child) release() {
	_ = c.exit.Close() // what was written to the other has arrived or is not wanted any more, and
	_ = c.talk.Close() // closing them again, or none, does nothing
}

// start makes everything that the job needs and gives its child the order; nothing of it is left when it fails.
func (k *keeper) start(j *job, p *plan) (_ *child, out *output, err error) {
	c := p.first
	if c == nil {
		if c, err = k.begin(j.Serial); err != nil {
			return nil, nil, err
		}
	}
	p.first = nil
	c.box.holds(p.order.Account.UID)
	defer func() {
		if err != nil {
			k.dismiss(c)
			out.close()
			err = errors.Join(err, out.remove())
		}
	}()
	if err := k.furnish(j, p); err != nil {
		return nil, nil, err
	}
	if p.spec.Stdio == launch.StdioCapture {
		out, err = makeOutput(k.StateDir, j.Serial, p.spec.CaptureMax, p.order.Account.UID, p.order.GID)
		if err != nil {
			return nil, nil, fmt.Errorf("output: %w", err)
		}
	}
	if err := p.parcel(out); err != nil {
		return nil, out, fmt.Errorf("stdio: %w", err)
	}
	if err := c.order(p); err != nil {
		return nil, out, fmt.Errorf("order: %w", err)
	}
	c.stopAt = deadline(p.spec.Timeout)
	return c, out, nil
}

func deadline(d time.Duration) time.Time {
	if d <= 0 {
		return time.Time{}
	}
	return time.Now().Add(d)
}

// parcel puts what is made here for the job to read and write into a socket, as a request's own comes. Without, the child
// has /dev/null.
func (p *plan) parcel(out *output) error {
	if p.stdin == nil && out == nil {
		return nil
	}
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(null)
	files := []int{null, null, null}
	if p.stdin != nil {
		files[0] = int(p.stdin.Fd())
	}
	if out != nil {
		files[1], files[2] = int(out.streams[0].file.Fd()), int(out.streams[1].file.Fd())
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(pair[1])
	p.stdio = os.NewFile(uintptr(pair[0]), "parcel")
	return unix.Sendmsg(pair[1], []byte{0}, unix.UnixRights(files...), nil, unix.MSG_NOSIGNAL)
}

// order gives the child its order, as much of it as there is room for. It is at work on it meanwhile.
func (c *child) order(p *plan) error {
	var rights []byte
	if p.stdio != nil {
		rights = unix.UnixRights(int(p.stdio.Fd()))
	}
	return control(c.talk, func(fd int) error {
		n, err := unix.SendmsgN(fd, p.text, rights, nil, unix.MSG_NOSIGNAL)
		c.left = p.text[max(0, n):]
		if err == unix.EPIPE || err == unix.ECONNRESET {
			return nil // its answer, or that there is none, tells why
		}
		return err
	})
}

// begin starts a child in a box of its own, with /dev/null for 0, 1 and 2. It waits for its order.
func (k *keeper) begin(serial uint64) (_ *child, err error) {
	b, err := k.boxes.make(serial)
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	defer func() {
		if err != nil {
			b.remove()
		}
	}()
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("stdio: %w", err)
	}
	defer unix.Close(null)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("fork: %w", err)
	}
	defer unix.Close(pair[1])
	err = unix.SetNonblock(pair[0], true)
	talk := os.NewFile(uintptr(pair[0]), "talk")
	if err != nil {
		return nil, fmt.Errorf("fork: %w", errors.Join(err, talk.Close()))
	}
	c, err := k.clone(b, []uintptr{uintptr(null), uintptr(null), uintptr(null), uintptr(pair[1])})
	if err != nil {
		return nil, fmt.Errorf("fork: %w", errors.Join(err, talk.Close()))
	}
	c.talk, c.serial = talk, serial
	return c, nil
}

// clone executes the program that was opened when we began, also when another has taken its path meanwhile. The child
// leads a session, is in its cgroup from its first instruction, and has nothing of our environment. It outlives us: it
// has no parent death signal. We stand still until it executes, and no longer: whatever it may have to wait for comes
// after that.
func (k *keeper) clone(b *box, files []uintptr) (*child, error) {
	pidfd := -1
	sys := &syscall.SysProcAttr{Setsid: true, PidFD: &pidfd}
	if b.dir != "" {
		at, err := unix.Open(b.dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		defer unix.Close(at)
		sys.UseCgroupFD, sys.CgroupFD = true, at
	}
	attr := &syscall.ProcAttr{Dir: "/", Env: []string{}, Files: files, Sys: sys}
	pid, _, err := syscall.StartProcess(k.program.Name(), []string{become.Program}, attr)
	if err != nil {
		return nil, err
	}
	b.pid = pid
	c := &child{pid: pid, box: b}
	if pidfd < 0 {
		b.stop()
		_, waitErr := syscall.Wait4(pid, nil, 0, nil)
		return nil, errors.Join(errors.New("the kernel gives no pidfd"), waitErr)
	}
	// Not blocking: then the runtime's poller waits for the end of a thousand jobs without a thread for each.
	if err := unix.SetNonblock(pidfd, true); err != nil {
		b.stop()
		_, waitErr := syscall.Wait4(pid, nil, 0, nil)
		return nil, errors.Join(err, unix.Close(pidfd), waitErr)
	}
	c.exit = os.NewFile(uintptr(pidfd), "pidfd")
	return c, nil
}

// become gives the child its last word, if the account still is what was decided about, and waits for its exec or failure.
// One that takes longer than its timeout is stopped.
func (k *keeper) become(c *child, p *plan) (become.Report, error) {
	defer c.talk.Close()
	if !c.stopAt.IsZero() {
		c.killAt = c.stopAt.Add(p.spec.Grace)
		if err := c.talk.SetDeadline(c.stopAt); err != nil {
			return become.Report{}, err
		}
	}
	if report := k.unchanged(&p.order.Account); report.Failed() {
		return report, nil
	}
	// One that ends before it has read all breaks the connection, and its answer tells why.
	_, err := c.talk.Write(append(slices.Clip(c.left), become.Go))
	if errors.Is(err, unix.EPIPE) || errors.Is(err, unix.ECONNRESET) {
		err = nil
	}
	var report become.Report
	if err == nil {
		report, err = become.ReadAnswer(c.talk)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.timedOut = true
		c.box.stop()
		err = fmt.Errorf("it had not begun after %v", p.spec.Timeout)
	}
	return report, err
}

// unchanged looks the account up again: it may have been deleted, and another one made in its place.
func (k *keeper) unchanged(decided *account.Account) (r become.Report) {
	err := account.Confirm(k.Accounts, *decided)
	if err == nil {
		return r
	}
	r.Step, r.Reason = become.StepAccount, err.Error()
	if errors.Is(err, account.ErrSilent) {
		r.Errno = unix.EAGAIN // nobody knows
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		r.Errno = errno
	}
	return r
}

// awaitExit waits until the first process has ended, and stops the job when its time is up. It reports false when the
// keeper stops earlier.
func (c *child) awaitExit() bool {
	wake := c.stopAt
	for {
		switch err := c.wait(wake, unix.POLLIN); {
		case err == nil:
			return true
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return false
		case !c.timedOut:
			c.timedOut = true
			c.box.signal(unix.SIGTERM)
			c.box.signal(unix.SIGCONT) // a stopped process would not see it
			wake = c.killAt
		default:
			c.box.stop()
			wake = time.Now().Add(time.Second) // again, for what was forked in between
		}
	}
}

// wait waits for the end of the first process without reaping it, for POLLIN, or until somebody else has, for POLLHUP.
func (c *child) wait(until time.Time, event int16) error {
	if err := c.exit.SetReadDeadline(until); err != nil {
		return err
	}
	rc, err := c.exit.SyscallConn()
	if err != nil {
		return err
	}
	return rc.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: event}}
		_, err := unix.Poll(fds, 0)
		return err == nil && fds[0].Revents&event != 0
	})
}

// ended reports whether the first process has ended.
func (c *child) ended() bool {
	rc, err := c.exit.SyscallConn()
	if err != nil {
		return false
	}
	n := 0
	err = rc.Control(func(fd uintptr) { n, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0) })
	return err == nil && n > 0
}

// reap ends whom the first process left behind, and then waits for it, but not for ever: a process that was killed
// can hang in the kernel. Then the end is not done, and the child is a zombie some day.
func (c *child) reap() (how ending) {
	survivors, gone := c.box.clear(c.pid, killPatience)
	if c.wait(time.Now().Add(killPatience), unix.POLLIN) != nil {
		return ending{survivors: survivors}
	}
	var usage syscall.Rusage
	c.mu.Lock()
	c.reaped = true
	_, err := syscall.Wait4(c.pid, &how.status, 0, &usage)
	for errors.Is(err, unix.EINTR) {
		_, err = syscall.Wait4(c.pid, &how.status, 0, &usage)
	}
	c.mu.Unlock()
	if err == nil {
		how.known = true
		how.cpu, how.rss = time.Duration(usage.Utime.Nano()+usage.Stime.Nano()), int64(usage.Maxrss)<<10
	} else {
		how = c.learn()
		how.cpu = max(how.cpu, c.box.cpu())
	}
	c.box.remove() // later, by housekeeping, when not all are gone
	how.survivors, how.done = survivors, gone
	return how
}
