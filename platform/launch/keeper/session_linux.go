package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"batchwarden/platform/launch"
	"batchwarden/platform/localsock"
	"batchwarden/platform/peer"
)

const (
	// answerWait is how long the daemon may leave an answer unread before its session is ended.
	answerWait = 30 * time.Second
	helloWait  = 10 * time.Second
	acceptWait = 100 * time.Millisecond
)

// session is one connection of the daemon.
type session struct {
	frames *localsock.Frames
	cancel context.CancelFunc // ends the session and everything that waits in it

	mu   sync.Mutex // guards open
	open map[uint64]context.CancelFunc
}

// accept serves connections until the listener is closed.
func (k *keeper) accept(ctx context.Context, l *net.UnixListener) {
	var sessions sync.WaitGroup
	defer sessions.Wait()
	for {
		c, err := l.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				_ = c.Close() // it has been told nothing
			}
			return
		case err != nil:
			k.Log.Error("accepting the daemon", "err", err)
			select {
			case <-ctx.Done():
			case <-time.After(acceptWait): // out of descriptors, most likely
			}
			continue
		}
		sessions.Go(func() { k.serve(ctx, c) })
	}
}

// serve is one connection from its beginning to its end.
func (k *keeper) serve(ctx context.Context, c *net.UnixConn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &session{frames: localsock.NewFrames(c, launch.MaxFrame, launch.MaxFiles, answerWait), cancel: cancel, open: map[uint64]context.CancelFunc{}}
	stop := context.AfterFunc(ctx, func() { _ = c.Close() }) // ends reads and writes
	defer stop()
	defer func() { _ = c.Close() }()

	p, err := peer.Of(c)
	if err != nil || p.UID != k.DaemonUID {
		k.Log.Warn("a stranger at the private socket", "uid", p.UID, "pid", p.PID, "err", err)
		return
	}
	if !k.take(s) {
		k.Log.Warn("a second daemon was refused", "pid", p.PID)
		_ = s.send(launch.Hello{Protocol: launch.Protocol, Refused: &launch.Refused{Code: launch.CodeUnavailable, Reason: "the launcher serves another daemon"}})
		return
	}
	defer k.free(s)
	k.Log.Info("daemon connected", "pid", p.PID)
	err = k.converse(ctx, s, c)
	cancel()
	k.Log.Info("daemon disconnected", "pid", p.PID, "err", err)
}

// take makes s the session if there is none.
func (k *keeper) take(s *session) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.session != nil {
		return false
	}
	k.session = s
	return true
}

func (k *keeper) free(s *session) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.session == s {
		k.session = nil
	}
}

// converse exchanges hellos and serves requests, each in a goroutine of its own, until the connection ends or says
// something that cannot be understood. It returns when all of them have.
func (k *keeper) converse(ctx context.Context, s *session, c *net.UnixConn) error {
	if err := s.send(launch.Hello{Protocol: launch.Protocol, Version: k.Version, Can: launch.Abilities()}, k.public); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(helloWait)); err != nil {
		return err
	}
	var hello launch.Hello
	files, err := s.receive(&hello)
	closeAll(files)
	switch {
	case err != nil || len(files) > 0:
		return errors.Join(fmt.Errorf("keeper: the daemon's hello, with %d descriptors", len(files)), err)
	case hello.Protocol != launch.Protocol:
		return fmt.Errorf("keeper: the daemon speaks protocol %d, this launcher protocol %d: install both of one version and restart the older one; running jobs go on",
			hello.Protocol, launch.Protocol)
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	var calls sync.WaitGroup
	defer calls.Wait()
	defer s.cancel() // before waiting for those that wait
	for {
		var r launch.Request
		files, err := s.receive(&r)
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		case r.Call == launch.CallCancel:
			closeAll(files)
			s.stop(r.Number)
			continue
		}
		call, cancel, err := s.begin(ctx, r.Number)
		if err != nil {
			closeAll(files)
			return err
		}
		if want, known := descriptors(&r); known && len(files) != want {
			cancel()
			closeAll(files)
			return fmt.Errorf("keeper: %q came with %d descriptors, not %d", r.Call, len(files), want)
		}
		calls.Go(func() {
			defer cancel()
			defer closeAll(files)
			k.answer(call, s, &r, files)
		})
	}
}

// descriptors is how many a request comes with; of a call of a newer daemon nobody here knows.
func descriptors(r *launch.Request) (n int, known bool) {
	switch r.Call {
	case launch.CallStart:
		if r.Spec != nil && r.Spec.Stdio == launch.StdioPassed {
			return 2, true
		}
		return 1, true
	case launch.CallAttest, launch.CallCheck, launch.CallVerify:
		return 1, true
	case launch.CallSync:
		return 2, true
	case launch.CallJob, launch.CallJobs, launch.CallEnded, launch.CallOutput, launch.CallSignal, launch.CallStatus,
		launch.CallWitness, launch.CallForget, launch.CallSystemd, launch.CallResolve, launch.CallLogLevel:
		return 0, true
	}
	return 0, false
}

func (s *session) begin(ctx context.Context, number uint64) (context.Context, context.CancelFunc, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open[number] != nil {
		return nil, nil, fmt.Errorf("keeper: number %d is in use", number)
	}
	if len(s.open) >= launch.MaxOpen {
		return nil, nil, fmt.Errorf("keeper: more than %d open requests", launch.MaxOpen)
	}
	ctx, cancel := context.WithCancel(ctx)
	s.open[number] = cancel
	return ctx, cancel, nil
}

// stop ends a request's waiting; the number stays in use until it was answered.
func (s *session) stop(number uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if cancel := s.open[number]; cancel != nil {
		cancel()
	}
}

func (s *session) send(v any, files ...*os.File) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	list := make([]syscall.Conn, len(files))
	for i, f := range files {
		list[i] = f
	}
	return s.frames.Send(body, list...)
}

func (s *session) receive(v any) ([]*os.File, error) {
	body, files, err := s.frames.Receive()
	if err != nil {
		return nil, err
	}
	if err := json.Unmarshal(body, v); err != nil {
		closeAll(files)
		return nil, fmt.Errorf("keeper: a frame that cannot be understood: %w", err)
	}
	return files, nil
}

// answer carries out one request and answers it.
func (k *keeper) answer(ctx context.Context, s *session, r *launch.Request, files []*os.File) {
	a, give, err := k.call(ctx, r, files)
	if err != nil {
		refused, ok := errors.AsType[*launch.Refused](err)
		if !ok {
			k.Log.Error("a request of the daemon failed", "call", r.Call, "err", err)
			refused = &launch.Refused{Code: launch.CodeInternal, Reason: err.Error()}
		}
		a = launch.Answer{Refused: refused}
	}
	a.Number = r.Number
	s.mu.Lock()
	delete(s.open, r.Number) // before the answer: the daemon may not use it again, but may count
	s.mu.Unlock()
	if give != nil {
		err = s.send(a, give)
		_ = give.Close() // the daemon has its own
	} else {
		err = s.send(a)
	}
	if err != nil {
		s.cancel() // half an answer may be gone
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close() // nothing of ours was written to them
	}
}
