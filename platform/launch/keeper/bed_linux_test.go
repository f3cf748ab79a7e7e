package keeper

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"batchwarden/platform/account"
	"batchwarden/platform/launch"
)

// bed is a real launcher, with the test as its daemon.
type bed struct {
	t        *testing.T
	config   Config
	launcher *launch.Launcher
	conns    chan *net.UnixConn // what the public socket accepted

	mu       sync.Mutex // guards listener
	listener *net.UnixListener

	stopKeeper func()
	stopDaemon func()
}

// configure returns what the launcher of a test is told; edit it before start.
func configure(t *testing.T) Config {
	t.Helper()
	dir, err := os.MkdirTemp(world, "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	sync, err := account.Lookup("syncer")
	if err != nil {
		t.Fatal(err)
	}
	return Config{
		Version: "test", PublicSocket: filepath.Join(dir, "public/p.sock"), Socket: filepath.Join(dir, "private/l.sock"),
		StateDir: filepath.Join(dir, "state"), CgroupRoot: os.Getenv(cgroupEnv),
		BecomePath: beginning, DaemonUID: daemonUID, DaemonGID: 4400, Sync: sync, SyncPath: program, SyncArgs: []string{"report"},
		Allow: func(a Ask) error {
			if a.Requester != agentUID {
				return errors.New("not a requester")
			}
			return nil
		},
		Bounds: func() Bounds {
			return Bounds{Keep: time.Hour, Grace: 200 * time.Millisecond, CaptureMax: 1 << 20, MaxRunning: 100}
		},
		JournalSync: 20 * time.Millisecond,
		Log:         slog.New(slog.NewTextHandler(testLog{t}, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
}

// testLog shows the launcher's log with a failed test.
type testLog struct{ t *testing.T }

func (l testLog) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}

func newBed(t *testing.T) *bed {
	t.Helper()
	needRoot(t)
	return start(t, configure(t))
}

// start runs a launcher and connects to it; both end with the test.
func start(t *testing.T, c Config) *bed {
	t.Helper()
	needRoot(t)
	b := &bed{t: t, config: c, conns: make(chan *net.UnixConn, 100)}
	b.runKeeper()
	b.runDaemon()
	t.Cleanup(func() { b.stopDaemon(); b.stopKeeper() })
	return b
}

func (b *bed) runKeeper() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- Run(ctx, b.config) }()
	b.stopKeeper = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				b.t.Errorf("launcher: %v", err)
			}
		case <-time.After(20 * time.Second):
			b.t.Error("the launcher did not end")
		}
	})
}

func (b *bed) runDaemon() {
	b.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	b.launcher = launch.New(b.config.Socket, b.config.Log)
	connected := make(chan struct{}, 10)
	var wg sync.WaitGroup
	wg.Go(func() {
		err := b.launcher.Run(ctx, func(l *net.UnixListener) {
			b.mu.Lock()
			if b.listener != nil {
				_ = b.listener.Close()
			}
			b.listener = l
			b.mu.Unlock()
			wg.Go(func() { b.accept(l) })
			connected <- struct{}{}
		})
		if err != nil {
			b.t.Errorf("daemon: %v", err)
		}
	})
	b.stopDaemon = sync.OnceFunc(func() {
		cancel()
		b.mu.Lock()
		if b.listener != nil {
			_ = b.listener.Close()
		}
		b.mu.Unlock()
		wg.Wait()
	})
	select {
	case <-connected:
	case <-time.After(10 * time.Second):
		b.t.Fatalf("no session: %+v", b.launcher.Status())
	}
}

func (b *bed) accept(l *net.UnixListener) {
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			return
		}
		b.conns <- c
	}
}

// actor is a process of another user.
type actor struct {
	cmd   *exec.Cmd
	stdin io.Closer
	lines *bufio.Scanner
}

// act starts this binary in a role, as uid; it ends with the test.
func act(t *testing.T, uid uint32, role string, args ...string) *actor {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = []string{roleEnv + "=" + role, "GORACE=" + os.Getenv("GORACE")}
	cmd.Stderr = testLog{t}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	a := &actor{cmd: cmd, stdin: stdin, lines: bufio.NewScanner(stdout)}
	t.Cleanup(a.end)
	if !a.lines.Scan() {
		t.Fatalf("%s said nothing", role)
	}
	return a
}

func (a *actor) end() {
	_ = a.stdin.Close()
	_ = a.cmd.Wait() // how it ended does not matter, or is a second time
}

// requester is a connection of uid's to the public socket, as the daemon has it, and the process at its other end.
func (b *bed) requester(uid uint32) (*net.UnixConn, *actor) {
	b.t.Helper()
	a := act(b.t, uid, "requester", b.config.PublicSocket)
	return b.accepted(), a
}

func (b *bed) accepted() *net.UnixConn {
	b.t.Helper()
	select {
	case c := <-b.conns:
		b.t.Cleanup(func() { _ = c.Close() })
		return c
	case <-time.After(10 * time.Second):
		b.t.Fatal("nobody connected")
		return nil
	}
}

// spec is a job of payroll's that captures its output.
func spec(id string, argv ...string) launch.Spec {
	return launch.Spec{Owner: "lsam", ID: id, Hash: "hash-" + id, Account: "payroll", Argv: argv, Stdio: launch.StdioCapture}
}

func (b *bed) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	b.t.Cleanup(cancel)
	return ctx
}

// run starts a job of the agent's and waits for its end.
func (b *bed) run(s launch.Spec) launch.Job {
	b.t.Helper()
	conn, _ := b.requester(agentUID)
	job, _, err := b.launcher.Start(b.ctx(), conn, s)
	if err != nil {
		b.t.Fatalf("start: %v", err)
	}
	return b.wait(job.ID)
}

func (b *bed) wait(id string) launch.Job {
	b.t.Helper()
	job, err := b.launcher.Job(b.ctx(), "lsam", id, 20*time.Second)
	if err != nil {
		b.t.Fatalf("job %q: %v", id, err)
	}
	if !job.Over() {
		b.t.Fatalf("job %q has not ended: %+v", id, job)
	}
	return job
}

// refused wants a launch to be refused with the code, and the reason to have the words.
func (b *bed) refused(conn *net.UnixConn, s launch.Spec, code string, words ...string) {
	b.t.Helper()
	job, _, err := b.launcher.Start(b.ctx(), conn, s)
	refusal(b.t, err, code, words...)
	if err == nil {
		b.t.Errorf("it was started: %+v", job)
	}
	if _, err := b.launcher.Job(b.ctx(), s.Owner, s.ID, 0); code != launch.CodeConflict {
		refusal(b.t, err, launch.CodeUnknown)
	}
}

func refusal(t *testing.T, err error, code string, words ...string) {
	t.Helper()
	r, ok := errors.AsType[*launch.Refused](err)
	if !ok || r.Code != code {
		t.Errorf("got %v, want a refusal with %s", err, code)
		return
	}
	for _, w := range words {
		if !strings.Contains(r.Reason, w) {
			t.Errorf("reason %q does not say %q", r.Reason, w)
		}
	}
}

func (b *bed) output(id, stream string) string {
	b.t.Helper()
	f, err := b.launcher.Output(b.ctx(), "lsam", id, stream)
	if err != nil {
		b.t.Fatalf("output: %v", err)
	}
	defer f.Close()
	text, err := io.ReadAll(f)
	if err != nil {
		b.t.Fatal(err)
	}
	return string(text)
}

// succeeded wants exit code 0.
func (b *bed) succeeded(job launch.Job) {
	b.t.Helper()
	if job.State != launch.StateExited || job.ExitCode == nil || *job.ExitCode != 0 {
		b.t.Fatalf("job did not succeed: %+v\nstderr: %s", job, b.output(job.ID, launch.Stderr))
	}
}

// says runs a command as payroll's job and returns what it wrote.
func (b *bed) says(id string, argv ...string) string {
	b.t.Helper()
	job := b.run(spec(id, argv...))
	b.succeeded(job)
	return b.output(id, launch.Stdout)
}

// boxed lists the jobs that have a cgroup now.
func (b *bed) boxed() []string {
	b.t.Helper()
	waiting, _ := b.waiting()
	var names []string
	for _, d := range b.boxes() {
		if name := filepath.Base(d); name != waiting {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (b *bed) boxes() []string {
	b.t.Helper()
	procs, err := filepath.Glob(filepath.Join(b.config.CgroupRoot, rootName(b.config.StateDir), "*", "cgroup.procs"))
	if err != nil {
		b.t.Fatal(err)
	}
	for i, f := range procs {
		procs[i] = filepath.Dir(f)
	}
	return procs
}

// waiting waits until nothing is being begun and returns the box and the process that wait for the next job; 0: none do.
func (b *bed) waiting() (box string, pid int) {
	b.t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		beginning := false
		for _, d := range b.boxes() {
			pids := cgroupProcesses(d, nil)
			beginning = beginning || len(pids) == 0
			if len(pids) != 1 {
				continue
			}
			exe, err := os.Readlink("/proc/" + strconv.Itoa(pids[0]) + "/exe")
			switch {
			case err != nil:
				beginning = true
			case filepath.Base(exe) == filepath.Base(b.config.BecomePath):
				return filepath.Base(d), pids[0]
			case exe == self():
				beginning = true // between fork and exec
			}
		}
		if !beginning || time.Now().After(deadline) {
			return "", 0
		}
	}
}

func self() string {
	path, _ := os.Executable() // "" is no process's
	return path
}

func alive(pid int) bool {
	p, ok := processOf(pid)
	return ok && !p.dead()
}

func number(t *testing.T, text string) int {
	t.Helper()
	n, err := strconv.Atoi(strings.TrimSpace(text))
	if err != nil {
		t.Fatal(err)
	}
	return n
}
