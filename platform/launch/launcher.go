package launch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"batchwarden/platform/localsock"
)

const (
	sendWait   = 30 * time.Second
	helloWait  = 10 * time.Second
	statusTick = 5 * time.Second
	firstRetry = 100 * time.Millisecond
	lastRetry  = 5 * time.Second
)

// Launcher is the launcher as the daemon sees it. Its methods may be called from several goroutines; while there is
// no session they fail at once with a Refused of CodeUnavailable. The same is the error of a call that a session did
// not live to answer: whether a job was started is then known by asking again with the same ID.
type Launcher struct {
	socket string
	log    *slog.Logger

	mu      sync.Mutex // guards session and status
	session *session
	status  Status
}

// New names the launcher's private socket. Run connects to it.
func New(socket string, log *slog.Logger) *Launcher {
	return &Launcher{socket: socket, log: log, status: Status{Since: time.Now(), Detail: "not asked yet"}}
}

// Run keeps a session with the launcher until ctx ends, whichever of the two starts first. At each new session
// onSession is given the public listening socket, which it then owns; it must return soon.
func (l *Launcher) Run(ctx context.Context, onSession func(listener *net.UnixListener)) error {
	wait := firstRetry
	for {
		began := time.Now()
		err := l.serve(ctx, onSession)
		if ctx.Err() != nil {
			l.disconnected("the daemon is ending")
			return nil
		}
		if errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		if time.Since(began) > lastRetry {
			wait = firstRetry // it was a session, not an attempt
		}
		if l.disconnected(err.Error()) {
			l.log.Warn("launcher not available", "err", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait/2 + rand.N(wait)):
		}
		wait = min(2*wait, lastRetry)
	}
}

// disconnected reports whether that is news.
func (l *Launcher) disconnected(detail string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	news := l.status.Connected || l.status.Detail != detail
	since := l.status.Since
	if l.status.Connected {
		since = time.Now()
	}
	l.status, l.session = Status{Since: since, Detail: detail}, nil
	return news
}

// serve is one session, from the connection to its end; the error is why it ended.
func (l *Launcher) serve(ctx context.Context, onSession func(*net.UnixListener)) error {
	c, err := localsock.DialOwn(ctx, l.socket)
	if err != nil {
		return err
	}
	s := &session{frames: localsock.NewFrames(c, MaxFrame, MaxFiles, sendWait), open: map[uint64]chan reply{}, done: make(chan struct{})}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // ends the read below
	defer stop()
	defer func() { _ = c.Close() }()

	hello, listener, err := s.greet(c)
	if err != nil {
		return err
	}
	s.version, s.can = hello.Version, hello.Can
	l.mu.Lock()
	l.session = s
	l.status = Status{Connected: true, Since: time.Now(), Version: hello.Version}
	l.mu.Unlock()
	l.log.Info("launcher connected", "version", hello.Version)
	onSession(listener)

	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { l.watch(s) })
	return s.read()
}

// watch keeps the status fresh until the session ends.
func (l *Launcher) watch(s *session) {
	tick := time.NewTicker(statusTick)
	defer tick.Stop()
	for {
		a, extra, err := s.call(context.Background(), Request{Call: CallStatus})
		closeFiles(extra)
		if err == nil && a.State != nil {
			l.mu.Lock()
			if l.session == s {
				l.status.JobsRunning, l.status.JobsKept = a.State.Running, a.State.Kept
				l.status.Containment, l.status.Problems = a.State.Containment, a.State.Problems
			}
			l.mu.Unlock()
		}
		select {
		case <-s.done:
			return
		case <-tick.C:
		}
	}
}

// Status says how things stand with the launcher.
func (l *Launcher) Status() Status {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.status
}

// Answers asks the launcher how it is, and returns nil when it said.
func (l *Launcher) Answers(ctx context.Context) error {
	_, err := l.ask(ctx, Request{Call: CallStatus})
	return err
}

// Start asks for the start of a job on behalf of the process that made conn, a connection which the public socket
// accepted. It returns once the job's pid is known, or its start has failed: then the job says so. Again means that
// the same Owner, ID and Hash had been started before. An empty ID is replaced by one of the launcher's. When ctx
// ends earlier the start goes on.
//
// For StdioPassed stdio is the job's stdin, stdout and stderr, else it is empty. The launcher never has them open, only
// the job's own process: nobody who serves such a file can hold up another job. They stay the caller's.
func (l *Launcher) Start(ctx context.Context, conn *net.UnixConn, s Spec, stdio ...*os.File) (job Job, again bool, err error) {
	files := []syscall.Conn{conn}
	if len(stdio) > 0 {
		parcel, err := localsock.Pack(stdio...)
		if err != nil {
			return Job{}, false, &Refused{Code: CodeInvalid, Reason: err.Error()}
		}
		defer func() { _ = parcel.Close() }() // the launcher has its own
		files = append(files, parcel)
	}
	a, err := l.job(ctx, Request{Call: CallStart, Spec: &s}, files...)
	if err != nil {
		return Job{}, false, err
	}
	return *a.Job, a.Again, nil
}

// Job returns a job; with wait it waits that long for its end, and returns it as it is when it still runs then.
func (l *Launcher) Job(ctx context.Context, owner, id string, wait time.Duration) (Job, error) {
	until := time.Now().Add(wait)
	for {
		left := max(time.Until(until), 0)
		a, err := l.job(ctx, Request{Call: CallJob, Owner: owner, ID: id, Wait: min(left, MaxWait)})
		if err != nil {
			return Job{}, err
		}
		if a.Job.Over() || left <= MaxWait {
			return *a.Job, nil
		}
	}
}

// Jobs returns the jobs of one owner, or of all when owner is empty, oldest first.
func (l *Launcher) Jobs(ctx context.Context, owner string) (jobs []Job, err error) {
	r := Request{Call: CallJobs, Owner: owner}
	for {
		a, err := l.ask(ctx, r)
		if err != nil {
			return nil, err
		}
		jobs = append(jobs, a.Jobs...)
		if !a.More || len(a.Jobs) == 0 {
			return jobs, nil
		}
		last := a.Jobs[len(a.Jobs)-1].Serial
		if last <= r.After {
			return nil, errors.New("launch: the launcher's list of jobs does not go on")
		}
		r.After = last
	}
}

// Ended waits until jobs have ended with an EndSeq above after and returns them, or the first of them, in that order.
func (l *Launcher) Ended(ctx context.Context, after uint64) ([]Job, error) {
	for {
		a, err := l.ask(ctx, Request{Call: CallEnded, After: after, Wait: MaxWait})
		if err != nil || len(a.Jobs) > 0 {
			return a.Jobs, err
		}
	}
}

// Output opens what the job wrote to a stream, for reading only. Where the middle was dropped the file has a hole.
func (l *Launcher) Output(ctx context.Context, owner, id, stream string) (*os.File, error) {
	_, files, err := l.call(ctx, Request{Call: CallOutput, Owner: owner, ID: id, Stream: stream})
	if err != nil {
		return nil, err
	}
	if len(files) != 1 {
		closeFiles(files)
		return nil, errors.New("launch: the launcher sent no descriptor for the output")
	}
	return files[0], nil
}

// Signal sends a signal ("TERM") to every process of the job, and with a grace, of at most MaxGrace, KILL to those that
// are left after it. A job that has ended is returned as it is.
func (l *Launcher) Signal(ctx context.Context, owner, id, signal string, grace time.Duration) (Job, error) {
	a, err := l.job(ctx, Request{Call: CallSignal, Owner: owner, ID: id, Signal: signal, Wait: grace})
	if err != nil {
		return Job{}, err
	}
	return *a.Job, nil
}

// Sync runs one sync worker, which reads stdin and writes stdout, both pipes, to its end. The error of a worker that
// ran is a *SyncFailed. When ctx ends the worker is killed. The files stay the caller's.
func (l *Launcher) Sync(ctx context.Context, stdin, stdout *os.File) error {
	a, err := l.ask(ctx, Request{Call: CallSync}, stdin, stdout)
	switch {
	case err != nil:
		return err
	case a.Exit == nil:
		return errors.New("launch: the launcher did not say how the sync worker ended")
	case a.Exit.ExitCode != 0:
		return &SyncFailed{ExitCode: a.Exit.ExitCode, Reason: a.Exit.Reason}
	}
	return nil
}

// Witness tells the launcher a number of the daemon's that only grows, and returns the highest that the launcher was
// ever told, this one included: it is kept where the daemon cannot write. With settle the launcher goes on from this
// number, even if it was told a higher one.
func (l *Launcher) Witness(ctx context.Context, number uint64, settle bool) (highest uint64, err error) {
	a, err := l.ask(ctx, Request{Call: CallWitness, Witness: number, Settle: settle})
	return a.Witness, err
}

func (l *Launcher) job(ctx context.Context, r Request, files ...syscall.Conn) (Answer, error) {
	a, err := l.ask(ctx, r, files...)
	if err == nil && a.Job == nil {
		err = fmt.Errorf("launch: the launcher answered %q without a job", r.Call)
	}
	return a, err
}

// ask is call for an answer without descriptors; any that come are closed.
func (l *Launcher) ask(ctx context.Context, r Request, files ...syscall.Conn) (Answer, error) {
	a, extra, err := l.call(ctx, r, files...)
	closeFiles(extra)
	return a, err
}

func (l *Launcher) call(ctx context.Context, r Request, files ...syscall.Conn) (Answer, []*os.File, error) {
	l.mu.Lock()
	s, detail := l.session, l.status.Detail
	l.mu.Unlock()
	if s == nil {
		return Answer{}, nil, &Refused{Code: CodeUnavailable, Reason: "the launcher is not connected: " + detail}
	}
	return s.call(ctx, r, files...)
}

// session is one connection. Numbers of requests are never used twice.
type session struct {
	frames  *localsock.Frames
	version string        // of the launcher
	can     []string      // Hello.Can
	done    chan struct{} // closed when read has returned

	mu   sync.Mutex // guards what follows
	last uint64
	open map[uint64]chan reply // nil channel: nobody waits any more
	over bool
}

type reply struct {
	answer Answer
	files  []*os.File
}

// greet reads the launcher's first frame and answers it.
func (s *session) greet(c *net.UnixConn) (Hello, *net.UnixListener, error) {
	var hello Hello
	fail := func(err error, files []*os.File) (Hello, *net.UnixListener, error) {
		closeFiles(files)
		return hello, nil, fmt.Errorf("launch: greeting: %w", err)
	}
	if err := c.SetReadDeadline(time.Now().Add(helloWait)); err != nil {
		return fail(err, nil)
	}
	body, files, err := s.frames.Receive()
	if err != nil {
		return fail(err, nil)
	}
	if err := json.Unmarshal(body, &hello); err != nil {
		return fail(err, files)
	}
	switch {
	case hello.Refused != nil:
		return fail(hello.Refused, files)
	case hello.Protocol != Protocol:
		return fail(fmt.Errorf("the launcher (version %s) speaks protocol %d, this daemon protocol %d: install both of one version and restart the older one; running jobs go on",
			hello.Version, hello.Protocol, Protocol), files)
	case len(files) != 1:
		return fail(fmt.Errorf("%d descriptors came instead of the public socket", len(files)), files)
	}
	listener, err := localsock.FromFile(files[0])
	if err != nil {
		return fail(err, nil)
	}
	err = errors.Join(c.SetReadDeadline(time.Time{}), s.send(Hello{Protocol: Protocol}))
	if err != nil {
		return fail(errors.Join(err, listener.Close()), nil)
	}
	return hello, listener, nil
}

func (s *session) send(v any, files ...syscall.Conn) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return s.frames.Send(body, files...)
}

// call sends a request and waits for its answer.
func (s *session) call(ctx context.Context, r Request, files ...syscall.Conn) (Answer, []*os.File, error) {
	if need := r.needs(); need != "" && !slices.Contains(s.can, need) {
		return Answer{}, nil, &Refused{Code: CodeUnsupported, Reason: fmt.Sprintf(
			"batchwarden-launcher is of another version (%s), which does not know %q: install both services of one version and restart the launcher; running jobs go on", s.version, need)}
	}
	lost := &Refused{Code: CodeUnavailable, Reason: "the connection to the launcher ended before it answered"}
	got := make(chan reply, 1)
	s.mu.Lock()
	switch {
	case s.over:
		s.mu.Unlock()
		return Answer{}, nil, lost
	case len(s.open) >= MaxOpen-1: // the launcher allows MaxOpen
		s.mu.Unlock()
		return Answer{}, nil, &Refused{Code: CodeOverloaded, Reason: fmt.Sprintf("%d requests wait for the launcher", MaxOpen-1)}
	}
	s.last++
	r.Number = s.last
	s.open[r.Number] = got
	s.mu.Unlock()

	body, err := json.Marshal(r)
	if err != nil || len(body) > MaxFrame {
		s.forget(r.Number)
		return Answer{}, nil, &Refused{Code: CodeInvalid, Reason: fmt.Sprintf("the request cannot be sent to the launcher: %d octets, at most %d: %v", len(body), MaxFrame, err)}
	}
	if err := s.frames.Send(body, files...); err != nil {
		s.forget(r.Number)
		_ = s.frames.Close() // half a frame may be gone: read ends the session
		return Answer{}, nil, lost
	}
	select {
	case a, ok := <-got:
		return a.result(ok, lost)
	case <-ctx.Done():
	}
	s.mu.Lock()
	_, unanswered := s.open[r.Number]
	if unanswered {
		s.open[r.Number] = nil
	}
	s.mu.Unlock()
	if !unanswered { // it came in this moment, or the session ended
		a, ok := <-got
		return a.result(ok, lost)
	}
	_ = s.send(Request{Number: r.Number, Call: CallCancel}) // a failure ends the session, and with it the request
	return Answer{}, nil, ctx.Err()
}

func (s *session) forget(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, number)
}

func (r reply) result(ok bool, lost error) (Answer, []*os.File, error) {
	switch {
	case !ok:
		return Answer{}, nil, lost
	case r.answer.Refused != nil:
		closeFiles(r.files)
		return Answer{}, nil, r.answer.Refused
	}
	return r.answer, r.files, nil
}

// read hands out answers until the connection ends.
func (s *session) read() (err error) {
	defer func() {
		_ = s.frames.Close()
		close(s.done)
		s.mu.Lock()
		defer s.mu.Unlock()
		s.over = true
		for n, got := range s.open {
			if got != nil {
				close(got)
			}
			delete(s.open, n)
		}
	}()
	for {
		body, files, err := s.frames.Receive()
		if err != nil {
			return fmt.Errorf("launch: the session ended: %w", err)
		}
		var a Answer
		if err := json.Unmarshal(body, &a); err != nil {
			closeFiles(files)
			return fmt.Errorf("launch: an answer that cannot be understood: %w", err)
		}
		s.mu.Lock()
		got, known := s.open[a.Number]
		delete(s.open, a.Number)
		s.mu.Unlock()
		switch {
		case !known:
			closeFiles(files)
			return fmt.Errorf("launch: an answer to request %d, which was not made", a.Number)
		case got == nil:
			closeFiles(files)
		default:
			got <- reply{a, files} // room for one; there is no second
		}
	}
}

func closeFiles(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // nothing was written through them
	}
}
