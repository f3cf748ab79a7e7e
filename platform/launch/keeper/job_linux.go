package keeper

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
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

// job is one job; the snapshot in it, out and child are guarded by the keeper's mu.
type job struct {
	launch.Job
	boot  string
	keep  time.Duration
	out   *output // while it is being written
	child *child  // while it is waited for

	ready chan struct{} // closed when the pid is known or the start has failed
	over  chan struct{} // closed when EndSeq is set
}

// plan is what is needed to start a job and not kept afterwards.
type plan struct {
	spec  *launch.Spec
	order become.Order
	stdio *os.File // a socket that the job's descriptors lie in; nil: they are made here
}

func (p *plan) close() {
	if p.stdio != nil {
		_ = p.stdio.Close() // the child has its own
		p.stdio = nil
	}
}

// child is the job's first process.
type child struct {
	pid    int
	exit   *os.File // its pidfd: readable when it has ended
	answer *os.File
	box    *box
	// stopAt is when TERM is due, and killAt when KILL is; zero: never.
	stopAt, killAt time.Time
	timedOut       bool

	// Guards reaped. As long as it is false the number pid, which names the session, is the child's.
	mu     sync.Mutex
	reaped bool
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
	c, out, err := k.start(j, &p)
	p.close()
	if err != nil {
		k.finish(j, k.failed(j, launch.CodeFailed, err.Error()))
		return
	}
	defer k.leave(j, c, out)
	k.attend(j, c, out)

	report, err := c.awaitExec(p.spec)
	p = plan{} // its environment may be large, and the job run for days
	switch {
	case errors.Is(err, os.ErrClosed):
		return // the keeper is stopping: the journal has no end, which is the truth
	case err != nil || report.Failed():
		k.endFailed(j, c, report, err)
		return
	}
	k.started(j, c.pid, report.ByPath)
	if !c.awaitExit() {
		return
	}
	end := k.endOf(j, c)
	if err := out.trim(); err != nil {
		k.Log.Error("captured output", "serial", j.Serial, "err", err)
	}
	k.finish(j, end)
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
	_ = c.exit.Close()   // nothing is written to either, and
	_ = c.answer.Close() // closing them again does nothing
}

// start makes everything that the job needs and starts its child; nothing of it is left when it fails.
func (k *keeper) start(j *job, p *plan) (_ *child, out *output, err error) {
	b, err := k.boxes.make(j.Serial)
	if err != nil {
		return nil, out, fmt.Errorf("cgroup: %w", err)
	}
	defer func() {
		if err != nil {
			b.remove()
			out.close()
			err = errors.Join(err, out.remove())
		}
	}()
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, out, fmt.Errorf("stdio: %w", err)
	}
	defer null.Close()
	stdio := [3]*os.File{null, null, null}
	if p.spec.Stdio == launch.StdioCapture {
		out, err = makeOutput(k.StateDir, j.Serial, p.spec.CaptureMax, p.order.Account.UID, p.order.GID)
		if err != nil {
			return nil, nil, fmt.Errorf("output: %w", err)
		}
		stdio[1], stdio[2] = out.streams[0].file, out.streams[1].file
	}
	c, err := fork(b, stdio, p.stdio, &p.order)
	if err != nil {
		return nil, out, err
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

// fork starts the child in its box and hands it its order.
func fork(b *box, stdio [3]*os.File, passed *os.File, o *become.Order) (*child, error) {
	text, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("order: %w", err)
	}
	if len(text) > become.MaxOrder {
		return nil, fmt.Errorf("order: %w", unix.E2BIG)
	}
	orders, give, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer orders.Close()
	defer give.Close()
	answer, said, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer said.Close()
	files := []*os.File{stdio[0], stdio[1], stdio[2], orders, said}
	if passed != nil {
		files = append(files, passed)
	}
	c, err := clone(b, files)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("fork: %w", err), answer.Close())
	}
	c.answer = answer
	// More than the pipe holds waits for the child; one that ends first breaks the pipe, and the answer tells why.
	_ = give.SetWriteDeadline(time.Now().Add(30 * time.Second))
	if _, err := bytes.NewReader(text).WriteTo(give); err != nil && !errors.Is(err, unix.EPIPE) {
		b.stop()
	}
	return c, nil
}

// childEnv is for the child's Go runtime alone: it is over in a moment and needs no second processor.
func childEnv() []string {
	return []string{"GOMAXPROCS=1", "GODEBUG=containermaxprocs=0,updatemaxprocs=0", "GOTRACEBACK=none"}
}

// clone executes our own binary, also when another has taken its path meanwhile. The child leads a session, is in its
// cgroup from its first instruction, and has nothing of our environment. It outlives us: it has no parent death signal.
func clone(b *box, files []*os.File) (*child, error) {
	attr := &syscall.ProcAttr{Dir: "/", Env: childEnv(), Sys: &syscall.SysProcAttr{Setsid: true}}
	for _, f := range files {
		attr.Files = append(attr.Files, f.Fd())
	}
	pidfd := -1
	attr.Sys.PidFD = &pidfd
	if b.at != nil {
		attr.Sys.UseCgroupFD, attr.Sys.CgroupFD = true, int(b.at.Fd())
	}
	pid, _, err := syscall.StartProcess("/proc/self/exe", []string{become.Argv0}, attr)
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

// awaitExec waits for the child's exec or failure. One that takes longer than its timeout is stopped.
func (c *child) awaitExec(s *launch.Spec) (become.Report, error) {
	defer c.answer.Close()
	if !c.stopAt.IsZero() {
		c.killAt = c.stopAt.Add(s.Grace)
		if err := c.answer.SetReadDeadline(c.stopAt); err != nil {
			return become.Report{}, err
		}
	}
	report, err := become.ReadAnswer(c.answer)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.timedOut = true
		c.box.stop()
		err = fmt.Errorf("it had not begun after %v", s.Timeout)
	}
	return report, err
}

// awaitExit waits until the first process has ended, and stops the job when its time is up. It reports false when the
// keeper stops earlier.
func (c *child) awaitExit() bool {
	wake := c.stopAt
	for {
		switch err := c.wait(wake); {
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

// wait waits for the end of the first process without reaping it: its number, which names the session, stays taken.
func (c *child) wait(until time.Time) error {
	if err := c.exit.SetReadDeadline(until); err != nil {
		return err
	}
	rc, err := c.exit.SyscallConn()
	if err != nil {
		return err
	}
	return rc.Read(func(fd uintptr) bool {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		n, err := unix.Poll(fds, 0)
		return err == nil && n > 0
	})
}

// reap ends whom the first process left behind, and then waits for it, but not for ever: a process that was killed
// can hang in the kernel. Then done is false, and the child is a zombie some day.
func (c *child) reap() (status syscall.WaitStatus, usage syscall.Rusage, survivors int, done bool) {
	survivors, gone := c.box.clear(killPatience)
	if c.wait(time.Now().Add(killPatience)) != nil {
		return status, usage, survivors, false
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reaped = true
	for {
		_, err := syscall.Wait4(c.pid, &status, 0, &usage)
		if !errors.Is(err, unix.EINTR) {
			c.box.remove() // later, by housekeeping, when not all are gone
			return status, usage, survivors, gone && err == nil
		}
	}
}
