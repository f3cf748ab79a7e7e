package launch

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"batchwarden/platform/localsock"
	"batchwarden/platform/peer"
)

func pair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	var conns []*net.UnixConn
	for _, fd := range fds {
		f := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(f)
		if err := errors.Join(err, f.Close()); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c.(*net.UnixConn))
	}
	return conns[0], conns[1]
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// FuzzAnswers wants that whatever a launcher sends, with whatever descriptors, every call of the daemon returns, with
// what it promises or an error, and no descriptor stays open. The answer is sent to each of four calls.
func FuzzAnswers(f *testing.F) {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(f.TempDir(), "s"), Net: "unix"})
	if err != nil {
		f.Fatal(err)
	}
	listener, err := l.File()
	if err != nil {
		f.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = errors.Join(l.Close(), listener.Close(), null.Close()) })
	files := []*os.File{listener, null}

	hello, err := json.Marshal(Hello{Protocol: Protocol, Version: "x"})
	if err != nil {
		f.Fatal(err)
	}
	for _, a := range []Answer{
		{}, {Job: &Job{ID: "x", EndSeq: 1}}, {Jobs: []Job{{}}, More: true}, {Peer: &peer.Attested{Exe: "/x"}}, {Witness: 7},
		{Exit: &SyncExit{}}, {State: &State{Problems: []string{"x"}}}, {Refused: &Refused{Code: CodeInternal}}, {Number: 99},
	} {
		body, err := json.Marshal(a)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(hello, uint8(1), uint8(0), body, uint8(0))
		f.Add(hello, uint8(1), uint8(0), body, uint8(1))
	}
	for _, text := range []string{"", "null", "[]", "{", `{"protocol":2}`, `{"refused":{}}`, `{"protocol":1,"protocol":"x"}`} {
		f.Add([]byte(text), uint8(1), uint8(0), []byte(text), uint8(0))
	}
	f.Add(hello, uint8(0), uint8(0), []byte("{}"), uint8(0))
	f.Add(hello, uint8(1), uint8(1), []byte("{}"), uint8(0)) // no listener
	f.Add(hello, uint8(2), uint8(0), []byte("{}"), uint8(4))

	f.Fuzz(func(t *testing.T, hello []byte, helloFiles, helloFirst uint8, answer []byte, answerFiles uint8) {
		before := descriptors(t)
		ours, theirs := pair(t)
		give := func(count, first uint8) (list []syscall.Conn) {
			for n := range int(count) % (MaxFiles + 1) {
				list = append(list, files[(int(first)+n)%len(files)])
			}
			return list
		}
		var wg sync.WaitGroup
		wg.Go(func() { // the launcher
			defer theirs.Close()
			frames := localsock.NewFrames(theirs, MaxFrame, MaxFiles, time.Second)
			if frames.Send(hello, give(helloFiles, helloFirst)...) != nil {
				return
			}
			for n := uint64(0); ; n++ {
				body, got, err := frames.Receive()
				closeFiles(got)
				var r Request
				if err != nil || json.Unmarshal(body, &r) != nil {
					return
				}
				if n == 0 {
					continue // the daemon's hello
				}
				if frames.Send(numbered(answer, r.Number), give(answerFiles, 0)...) != nil {
					return
				}
			}
		})
		converse(t, ours)
		wg.Wait()
		if after := descriptors(t); after != before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
	})
}

// numbered is the answer with the request's number, when it is one that has none.
func numbered(answer []byte, number uint64) []byte {
	var a map[string]any
	if json.Unmarshal(answer, &a) != nil || a == nil {
		return answer
	}
	if n, given := a["n"]; given && n != 0.0 {
		return answer
	}
	a["n"] = number
	body, err := json.Marshal(a)
	if err != nil {
		return answer
	}
	return body
}

// converse is the daemon: it makes four calls, and its session then ends.
func converse(t *testing.T, c *net.UnixConn) {
	defer c.Close()
	s := &session{frames: localsock.NewFrames(c, MaxFrame, MaxFiles, time.Second), open: map[uint64]chan reply{}, done: make(chan struct{})}
	_, public, err := s.greet(c)
	if err != nil {
		return
	}
	defer public.Close()
	l := New("", slog.New(slog.DiscardHandler))
	l.session = s
	var reading, calls sync.WaitGroup
	reading.Go(func() {
		if err := s.read(); err == nil || errors.Is(err, io.ErrNoProgress) {
			t.Errorf("the session ended with %v", err)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	calls.Go(func() {
		if job, err := l.Job(ctx, "o", "x", 0); err == nil && job.EndSeq != 0 && !job.Over() {
			t.Errorf("got %+v", job)
		}
	})
	calls.Go(func() { _, _ = l.Attest(ctx, c, peer.Want{}) })
	calls.Go(func() { _, _ = l.Jobs(ctx, "o") })
	calls.Go(func() {
		f, err := l.Output(ctx, "o", "x", Stdout)
		if (f == nil) == (err == nil) {
			t.Errorf("output: %v, %v", f, err)
		}
		if f != nil {
			_ = f.Close() // nothing was written to it
		}
	})
	calls.Wait()
	if ctx.Err() != nil {
		t.Error("a call did not return")
	}
	_ = c.Close() // ends the reading
	reading.Wait()
}
