package keeper

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"batchwarden/platform/account"
	"batchwarden/platform/launch"
	"batchwarden/platform/localsock"
	"batchwarden/platform/peer"
)

// FuzzRequests wants that whatever a daemon sends, with whatever descriptors, is answered or ends the session, starts
// nothing and leaves no descriptor open.
func FuzzRequests(f *testing.F) {
	k, files := fuzzedKeeper(f)
	umask := uint32(0o22)
	full := spec("x", "/bin/true", "-x")
	full.Env, full.Umask, full.Timeout, full.Note, full.Started = map[string]string{"A": "b"}, &umask, time.Hour, json.RawMessage(`{}`), 7
	for _, r := range []launch.Request{
		{Call: launch.CallStart, Spec: &full},
		{Call: launch.CallStart},
		{Call: launch.CallJob, Owner: "lsam", ID: "x", Wait: time.Hour},
		{Call: launch.CallJobs, After: math.MaxUint64},
		{Call: launch.CallEnded, Wait: -1},
		{Call: launch.CallOutput, Owner: "lsam", ID: "x", Stream: "../journal"},
		{Call: launch.CallSignal, Owner: "lsam", ID: "x", Signal: "KILL", Wait: 1},
		{Call: launch.CallSync},
		{Call: launch.CallStatus},
		{Call: launch.CallWitness, Witness: 7, Settle: true},
		{Call: launch.CallAttest, Want: &peer.Want{Program: true, SHA256: true, Started: 7}},
		{Call: launch.CallAttest},
		{Call: launch.CallCancel, Number: 1},
		{Number: math.MaxUint64, Call: "x"},
	} {
		body, err := json.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		for count := range uint8(3) {
			f.Add(body, count, uint8(0))
			f.Add(body, count, uint8(2))
		}
	}
	for _, text := range []string{"", "null", "[]", "{", `{"n":-1}`, `{"n":1e99}`, `{"call":"start","spec":{"umask":-1}}`, `{"call":"start","spec":null}`, "\x00"} {
		f.Add([]byte(text), uint8(1), uint8(0))
	}
	f.Fuzz(func(t *testing.T, body []byte, count, first uint8) {
		before := descriptorCount(t)
		var give []syscall.Conn
		for n := range int(count) % (launch.MaxFiles + 1) {
			give = append(give, files[(int(first)+n)%len(files)])
		}
		ours, theirs := net2(t)
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		ended := make(chan error, 1)
		go func() {
			s := &session{frames: localsock.NewFrames(theirs, launch.MaxFrame, launch.MaxFiles, answerWait), cancel: cancel, open: map[uint64]context.CancelFunc{}}
			err := k.converse(ctx, s, theirs)
			ended <- errors.Join(err, theirs.Close())
		}()
		frames := localsock.NewFrames(ours, launch.MaxFrame, launch.MaxFiles, time.Second)
		var hello launch.Hello
		receive(t, frames, &hello)
		send(t, frames, launch.Hello{Protocol: launch.Protocol})
		_ = frames.Send(body, give...) // refused when it is too long, and then nothing is sent
		_ = ours.CloseWrite()          // it may have been cut off already
		for {
			text, got, err := frames.Receive()
			closeAll(got)
			if err != nil {
				break
			}
			var a launch.Answer
			if err := json.Unmarshal(text, &a); err != nil {
				t.Errorf("an answer that is none: %q, %v", text, err)
			}
			if a.Job != nil {
				t.Errorf("it got a job: %+v", a.Job)
			}
		}
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			t.Fatal("the session does not end")
		}
		if err := ours.Close(); err != nil {
			t.Error(err)
		}
		after := descriptorCount(t)
		for until := time.Now().Add(5 * time.Second); after != before && time.Now().Before(until); after = descriptorCount(t) {
			time.Sleep(time.Millisecond) // a file may still be summed up, for whoever asks next
		}
		if after != before {
			t.Errorf("%d descriptors before, %d after", before, after)
		}
		if len(k.jobs) != 0 || len(k.live) != 0 {
			t.Errorf("%d jobs", len(k.jobs))
		}
	})
}

// fuzzedKeeper is a launcher that believes to be root but may start nothing, without its sockets, and what can be
// passed to it: a requester's connection to its public socket, the other end of that, a pipe, a file.
func fuzzedKeeper(f *testing.F) (*keeper, []*os.File) {
	f.Helper()
	dir := f.TempDir()
	c := Config{
		Version: "test", PublicSocket: filepath.Join(dir, "p.sock"), StateDir: dir, DaemonUID: math.MaxUint32 - 1,
		SyncPath: "/nonexistent", Allow: func(Ask) error { return errors.New("no") }, Accounts: account.System(),
		Bounds: func() Bounds { return Bounds{MaxRunning: 10} }, JournalSync: time.Hour, Log: slog.New(slog.DiscardHandler),
	}
	k := &keeper{
		Config: c, root: true, boxes: &boxes{why: "none here"}, witness: &witness{path: filepath.Join(dir, witnessName)},
		jobs: map[key]*job{}, live: map[uint64]*job{}, news: make(chan struct{}), syncing: true,
	}
	var err error
	if k.journal, _, err = openJournal(dir, time.Hour, c.Log); err != nil {
		f.Fatal(err)
	}
	if k.attestor, err = peer.NewAttestor(); err != nil {
		f.Fatal(err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: c.PublicSocket, Net: "unix"})
	if err != nil {
		f.Fatal(err)
	}
	mine, err := net.Dial("unix", c.PublicSocket)
	if err != nil {
		f.Fatal(err)
	}
	accepted, err := l.AcceptUnix()
	if err != nil {
		f.Fatal(err)
	}
	var files []*os.File
	for _, c := range []interface{ File() (*os.File, error) }{accepted, mine.(*net.UnixConn), l} {
		file, err := c.File()
		if err != nil {
			f.Fatal(err)
		}
		files = append(files, file)
	}
	k.public = files[2]
	read, write, err := os.Pipe()
	if err != nil {
		f.Fatal(err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		f.Fatal(err)
	}
	files = append(files, read, write, null)
	f.Cleanup(func() {
		closeAll(files)
		for _, c := range []io.Closer{mine, accepted, l} {
			_ = c.Close() // the test is over
		}
		if err := k.journal.close(); err != nil {
			f.Error(err)
		}
	})
	return k, files
}

// net2 is a connected pair that the caller closes.
func net2(t *testing.T) (a, b *net.UnixConn) {
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
