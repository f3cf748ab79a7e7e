package keeper

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"batchwarden/platform/launch"
	"batchwarden/platform/localsock"
)

func dial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func pairs(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	a, b = net2(t)
	t.Cleanup(func() { _, _ = a.Close(), b.Close() }) // the test is over
	return a, b
}

// TestCompromisedDaemon: a daemon that makes up a requester starts nothing, whatever descriptor it passes, and learns
// nothing about processes that did not come to it.
func TestCompromisedDaemon(t *testing.T) {
	b := newBed(t)
	id := 0
	nothing := func(t *testing.T, conn syscall.Conn, words ...string) {
		t.Helper()
		id++
		s := spec("attack-"+string(rune('a'+id)), "/bin/true")
		started, attested := b.pass(conn, s)
		refusal(t, started, launch.CodeCaller, words...)
		refusal(t, attested, launch.CodeCaller, words...)
		if _, err := b.launcher.Job(b.ctx(), s.Owner, s.ID, 0); err == nil {
			t.Error("it left an id")
		}
	}
	t.Run("its own loop through the public socket", func(t *testing.T) {
		b.t = t
		mine := dial(t, b.config.PublicSocket)
		started, attested := b.pass(b.accepted(), spec("loop", "/bin/true"))
		refusal(t, started, launch.CodeCaller, "daemon's own user")
		if attested != nil {
			t.Errorf("who it is itself it may know: %v", attested)
		}
		nothing(t, mine, "bound to")
	})
	t.Run("a socketpair", func(t *testing.T) {
		x, _ := pairs(t)
		nothing(t, x, `bound to ""`)
	})
	t.Run("connected out to a requester's listener", func(t *testing.T) {
		place := dir(t, "/mnt/agent", agentUID, 0o755)
		act(t, agentUID, "listener", place+"/s")
		nothing(t, dial(t, place+"/s"), "not a connection")
	})
	t.Run("the same, bound to our socket's name in another place", func(t *testing.T) {
		place := dir(t, "/mnt/agent2", agentUID, 0o755)
		act(t, agentUID, "listener", place+"/s")
		nothing(t, namedLike(t, b.config.PublicSocket, place+"/s"), "other end is bound")
	})
	t.Run("a requester's connection to another socket", func(t *testing.T) {
		path := filepath.Join(dir(t, "/mnt/other", 0, 0o755), "s")
		l, err := localsock.Listen(path, 0o666)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		act(t, agentUID, "requester", path)
		c, err := l.AcceptUnix()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		nothing(t, c, "bound to")
	})
	t.Run("a requester's connection to another daemon, whose socket has our name elsewhere", func(t *testing.T) {
		nothing(t, b.sameName(t), "belongs to uid 4101")
	})
	t.Run("a dead requester's", func(t *testing.T) {
		b.t = t
		conn, agent := b.requester(agentUID)
		agent.end()
		nothing(t, conn, "has ended")
	})
	t.Run("a dead requester's, whose child has the other end", func(t *testing.T) {
		b.t = t
		heir := act(t, agentUID, "heir", b.config.PublicSocket)
		child := number(t, strings.TrimPrefix(heir.lines.Text(), "child "))
		heir.end()
		if !alive(child) {
			t.Error("the child does not live: this shows nothing")
		}
		nothing(t, b.accepted(), "has ended")
		_ = unix.Kill(child, unix.SIGKILL)
	})
	t.Run("the public listener", func(t *testing.T) {
		b.mu.Lock()
		f, err := localsock.Dup(b.listener, "listener")
		b.mu.Unlock()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		nothing(t, f, "it listens")
	})
	t.Run("not connected", func(t *testing.T) {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(fd), "socket")
		defer f.Close()
		nothing(t, f)
	})
	t.Run("a TCP connection", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		nothing(t, c.(*net.TCPConn), "address family 2")
	})
	t.Run("no socket", func(t *testing.T) {
		f, err := os.Open("/dev/zero")
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		nothing(t, f, "non-socket")
	})
	for name, flags := range map[string]uintptr{"pid": syscall.CLONE_NEWPID, "user": syscall.CLONE_NEWUSER} {
		t.Run("in a "+name+" namespace below ours", func(t *testing.T) {
			b.t = t
			cmd := exec.Command(program, b.config.PublicSocket)
			cmd.Env = []string{roleEnv + "=requester"}
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags, Credential: &syscall.Credential{Uid: agentUID, Gid: agentUID}}
			if flags == syscall.CLONE_NEWUSER { // the same numbers, seen from us
				same := []syscall.SysProcIDMap{{ContainerID: agentUID, HostID: agentUID, Size: 1}}
				cmd.SysProcAttr.UidMappings, cmd.SysProcAttr.GidMappings = same, same
			}
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			nothing(t, b.accepted(), "another pid or user namespace")
			_ = stdin.Close()
			if err := cmd.Wait(); err != nil {
				t.Error(err)
			}
		})
	}
	b.t = t
	if job := b.run(spec("honest", "/bin/true")); job.ExitCode == nil || *job.ExitCode != 0 {
		t.Errorf("after all that: %+v", job)
	}
}

// pass is Start, and Attest, with any descriptor, on a session of its own: the daemon's own is kept by the launcher's
// client.
func (b *bed) pass(conn syscall.Conn, s launch.Spec) (started, attested error) {
	b.t.Helper()
	b.stopDaemon()
	defer b.runDaemon()
	f := b.session()
	defer f.Close()
	ask := func(r launch.Request) error {
		send(b.t, f, r, conn)
		var a launch.Answer
		if receive(b.t, f, &a); a.Refused == nil {
			return nil
		}
		return a.Refused
	}
	return ask(launch.Request{Number: 1, Call: launch.CallStart, Spec: &s}), ask(launch.Request{Number: 2, Call: launch.CallAttest})
}

// sameName is a requester's connection to a socket that somebody else bound to our path, in a file system of his own.
func (b *bed) sameName(t *testing.T) *net.UnixConn {
	t.Helper()
	// The name and whose file it is are all that the kernel keeps: the real socket steps aside for a moment.
	path := b.config.PublicSocket
	if err := errors.Join(os.Rename(path, path+".away"), os.Chmod(filepath.Dir(path), 0o777)); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(os.Remove(path), os.Rename(path+".away", path), os.Chmod(filepath.Dir(path), 0o755)); err != nil {
			t.Fatal(err)
		}
	}()
	act(t, otherUID, "lender", path)
	act(t, agentUID, "requester", path)
	lent := dial(t, path) // lends what it accepted before
	f := localsock.NewFrames(lent, 10, 1, time.Second)
	_, files, err := f.Receive()
	if err != nil || len(files) != 1 {
		t.Fatalf("nothing was lent: %v", err)
	}
	c, err := net.FileConn(files[0])
	if err := errors.Join(err, files[0].Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c.(*net.UnixConn)
}

// session is a session by hand, greeted.
func (b *bed) session() *localsock.Frames {
	b.t.Helper()
	until := time.Now().Add(10 * time.Second)
	for {
		f := localsock.NewFrames(dial(b.t, b.config.Socket), launch.MaxFrame, launch.MaxFiles, time.Second)
		var hello launch.Hello
		receive(b.t, f, &hello)
		if hello.Refused == nil {
			send(b.t, f, launch.Hello{Protocol: launch.Protocol})
			return f
		}
		if time.Now().After(until) {
			b.t.Fatalf("no session: %v", hello.Refused)
		}
		_ = f.Close()
		time.Sleep(5 * time.Millisecond) // the last one is being cleared away
	}
}

func send(t *testing.T, f *localsock.Frames, v any, files ...syscall.Conn) {
	t.Helper()
	body, err := json.Marshal(v)
	if err == nil {
		err = f.Send(body, files...)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func receive(t *testing.T, f *localsock.Frames, v any) {
	t.Helper()
	if err := f.Conn().SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	body, files, err := f.Receive()
	for _, x := range files {
		_ = x.Close()
	}
	if err == nil {
		err = json.Unmarshal(body, v)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// namedLike connects to a listener from a socket that is bound to name in a mount namespace where that is free.
func namedLike(t *testing.T, name, to string) *os.File {
	t.Helper()
	// The name is all that the kernel keeps: renaming the real one for a moment does the same.
	if err := os.Rename(name, name+".away"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(os.Remove(name), os.Rename(name+".away", name)); err != nil {
			t.Fatal(err)
		}
	}()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "named")
	t.Cleanup(func() { _ = f.Close() })
	if err := errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: name}), unix.Connect(fd, &unix.SockaddrUnix{Name: to})); err != nil {
		t.Fatal(err)
	}
	return f
}

// TestHostileFrames: whatever breaks the protocol ends that session, and the next one works.
func TestHostileFrames(t *testing.T) {
	b := newBed(t)
	b.stopDaemon()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	header := func(size uint32, files byte) []byte { return append(binary.BigEndian.AppendUint32(nil, size), files) }
	for name, attack := range map[string]func(f *localsock.Frames){
		"no JSON":                func(f *localsock.Frames) { _ = f.Send([]byte("hello")) },
		"another type":           func(f *localsock.Frames) { _ = f.Send([]byte(`{"n":"x"}`)) },
		"an unexpected file":     func(f *localsock.Frames) { send(t, f, launch.Request{Number: 1, Call: launch.CallStatus}, null) },
		"no connection":          func(f *localsock.Frames) { send(t, f, launch.Request{Number: 1, Call: launch.CallStart}) },
		"too long":               func(f *localsock.Frames) { _, _ = f.Conn().Write(header(launch.MaxFrame+1, 0)) },
		"files that do not come": func(f *localsock.Frames) { _, _ = f.Conn().Write(header(2, 1)) },
		"files not announced": func(f *localsock.Frames) {
			_, _, _ = f.Conn().WriteMsgUnix(header(2, 0), unix.UnixRights(int(null.Fd())), nil)
		},
		"more files than allowed": func(f *localsock.Frames) {
			n := int(null.Fd())
			_, _, _ = f.Conn().WriteMsgUnix(header(2, 60), unix.UnixRights(n, n, n, n, n, n, n, n, n, n, n, n), nil)
		},
		"a number twice": func(f *localsock.Frames) {
			r := launch.Request{Number: 7, Call: launch.CallEnded, Wait: time.Minute}
			send(t, f, r)
			send(t, f, r)
		},
		"too many at once": func(f *localsock.Frames) {
			for n := range uint64(launch.MaxOpen + 1) {
				body, _ := json.Marshal(launch.Request{Number: n, Call: launch.CallEnded, After: 1 << 40, Wait: time.Minute})
				_ = f.Send(body)
			}
		},
		"half a frame and no more": func(f *localsock.Frames) {
			_, _ = f.Conn().Write(header(100, 0))
			_ = f.Conn().CloseWrite()
		},
	} {
		f := b.session()
		attack(f)
		if err := f.Conn().SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		for {
			if _, _, err = f.Receive(); err != nil {
				break
			}
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: the session goes on", name)
		}
		_ = f.Close()
	}
	before := descriptorCount(t)
	b.session().Close()
	f := b.session()
	for n, call := range []string{"", "nonsense", launch.CallStatus} {
		send(t, f, launch.Request{Number: uint64(n + 1), Call: call})
		var a launch.Answer
		if receive(t, f, &a); a.Number != uint64(n+1) || (a.State == nil) == (a.Refused == nil) {
			t.Errorf("call %q: got %+v", call, a)
		}
	}
	_ = f.Close()
	after := descriptorCount(t)
	for until := time.Now().Add(10 * time.Second); after > before+4 && time.Now().Before(until); after = descriptorCount(t) {
		time.Sleep(10 * time.Millisecond) // a session closes what is its own after its end was seen
	}
	if after > before+4 {
		t.Errorf("%d descriptors before, %d after: %q", before, after, openFiles(t))
	}
	b.runDaemon()
	b.says("after", "/bin/true")
}

func descriptorCount(t *testing.T) int {
	t.Helper()
	return len(openFiles(t))
}

// openFiles is what this process has open.
func openFiles(t *testing.T) (open []string) {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		target, _ := os.Readlink(filepath.Join("/proc/self/fd", e.Name())) // none: it was closed since
		open = append(open, target)
	}
	return open
}

// TestOneDaemon: one session at a time, and only the daemon's user.
func TestOneDaemon(t *testing.T) {
	b := newBed(t)
	second := localsock.NewFrames(dial(t, b.config.Socket), launch.MaxFrame, launch.MaxFiles, time.Second)
	var hello launch.Hello
	receive(t, second, &hello)
	if hello.Refused == nil || !strings.Contains(hello.Refused.Reason, "another daemon") {
		t.Errorf("a second daemon got %+v", hello)
	}
	if !b.launcher.Status().Connected {
		t.Error("the first one lost its session")
	}
	var st unix.Stat_t
	if err := unix.Stat(b.config.Socket, &st); err != nil || st.Mode&0o777 != 0o660 || st.Uid != 0 || st.Gid != b.config.DaemonGID {
		t.Errorf("private socket: %o %d:%d, %v", st.Mode, st.Uid, st.Gid, err)
	}
	if err := unix.Stat(filepath.Dir(b.config.Socket), &st); err != nil || st.Mode&0o777 != 0o750 || st.Uid != 0 || st.Gid != b.config.DaemonGID {
		t.Errorf("its directory: %o %d:%d, %v", st.Mode, st.Uid, st.Gid, err)
	}
	if err := unix.Stat(b.config.PublicSocket, &st); err != nil || st.Mode&0o777 != 0o666 || st.Uid != 0 {
		t.Errorf("public socket: %o %d, %v", st.Mode, st.Uid, err)
	}
	// Even where the file system lets somebody connect.
	if err := errors.Join(os.Chmod(b.config.Socket, 0o666), os.Chmod(filepath.Dir(b.config.Socket), 0o755)); err != nil {
		t.Fatal(err)
	}
	b.stopDaemon()
	stranger := act(t, otherUID, "requester", b.config.Socket) // it is cut off
	stranger.end()
	b.runDaemon()
}

// TestProgramOfOthers: what jobs begin as must be root's alone, and be there.
func TestProgramOfOthers(t *testing.T) {
	needRoot(t)
	text, err := os.ReadFile(beginning)
	if err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"missing":            "/mnt/no-program",
		"of another user":    script(t, "/mnt/program-1", string(text), otherUID, 0o755),
		"writable by all":    script(t, "/mnt/program-2", string(text), 0, 0o757),
		"writable by groups": script(t, "/mnt/program-3", string(text), 0, 0o775),
		"not executable":     script(t, "/mnt/program-4", string(text), 0, 0o644),
		"a directory":        "/mnt",
	} {
		if f, err := openProgram(path); err == nil {
			t.Errorf("%s: it would be executed", name)
			_ = f.Close()
		}
	}
}

// TestReplacedProgram: an upgrade changes nothing for the launcher that runs.
func TestReplacedProgram(t *testing.T) {
	needRoot(t)
	c := configure(t)
	text, err := os.ReadFile(beginning)
	if err != nil {
		t.Fatal(err)
	}
	c.BecomePath = script(t, "/mnt/replaced", string(text), 0, 0o755)
	b := start(t, c)
	script(t, "/mnt/replaced+", "#!/bin/false\n", 0, 0o755)
	if err := os.Rename("/mnt/replaced+", "/mnt/replaced"); err != nil {
		t.Fatal(err)
	}
	b.says("upgraded", "/bin/true")
}
