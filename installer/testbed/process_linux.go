package testbed

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"
)

// A Process is one of the programs, with all it says going to its log.
type Process struct {
	Name string
	Log  string // file; a restarted process appends

	cmd   *exec.Cmd
	ended chan struct{} // closed when the process has ended
}

// spawn says how to start a process.
type spawn struct {
	name   string
	log    string
	as     Account
	argv   []string
	env    []string
	cgroup string // "" for ours
	alone  bool   // in a network namespace with nothing in it
}

func (s spawn) start() (*Process, error) {
	log, err := os.OpenFile(s.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own
	cmd := exec.Command(s.argv[0], s.argv[1:]...)
	cmd.Env, cmd.Dir = append(s.as.environ(), s.env...), "/"
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: s.as.credential(),
		Pdeathsig:  syscall.SIGKILL,
		Setpgid:    true, // Ctrl-C is for us; we end the rest in order
	}
	if s.alone {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWNET
	}
	if s.cgroup != "" {
		dir, err := os.Open(s.cgroup)
		if err != nil {
			return nil, err
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", s.name, err)
	}
	p := &Process{Name: s.name, Log: s.log, cmd: cmd, ended: make(chan struct{})}
	go func() { // ends with the process
		_ = cmd.Wait() // the outcome is in ProcessState
		close(p.ended)
	}()
	return p, nil
}

// PID is the process's id, also after its end.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Ended is closed when the process has ended.
func (p *Process) Ended() <-chan struct{} { return p.ended }

// Outcome says how the process ended, or that it still runs.
func (p *Process) Outcome() string {
	select {
	case <-p.ended:
		return p.cmd.ProcessState.String()
	default:
		return "still running"
	}
}

// Running reports whether the process has not ended.
func (p *Process) Running() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// Signal sends a signal.
func (p *Process) Signal(s syscall.Signal) error {
	if err := p.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	return nil
}

// Stop asks the process to end and waits for it. An end with another code than
// 0 is an error; so is one that does not come within ten seconds and is forced.
func (p *Process) Stop() error {
	if p == nil || !p.Running() {
		return nil
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.ended:
		if !p.cmd.ProcessState.Success() {
			return fmt.Errorf("%s was asked to end: %s\n%s", p.Name, p.Outcome(), p.LogTail(20))
		}
		return nil
	case <-time.After(10 * time.Second):
		p.Kill()
		return fmt.Errorf("%s did not end within 10s of SIGTERM", p.Name)
	}
}

// Kill ends the process at once and waits until it has ended.
func (p *Process) Kill() {
	if p != nil {
		_ = p.cmd.Process.Kill() // fails only when it has ended
		<-p.ended
	}
}

// LogText returns all that the process has said.
func (p *Process) LogText() string {
	if p == nil {
		return ""
	}
	text, err := os.ReadFile(p.Log)
	if err != nil {
		return err.Error()
	}
	return string(text)
}

// LogTail returns the last lines of what the process has said.
func (p *Process) LogTail(lines int) string {
	all := strings.Split(strings.TrimRight(p.LogText(), "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

// A Result is how a command ended and what it said.
type Result struct {
	Out, Err string
	Code     int // as a shell would say it
	Took     time.Duration
}

// Command runs a program as the account, with the bed's environment, to its
// end, at most a minute.
func (b *Bed) Command(as Account, argv ...string) Result {
	return b.CommandIn(as, nil, argv...)
}

// CommandIn is Command with something on standard input.
func (b *Bed) CommandIn(as Account, stdin []byte, argv ...string) Result {
	return b.command(as, stdin, nil, argv)
}

// command is CommandIn with more in the environment.
func (b *Bed) command(as Account, stdin []byte, environ, argv []string) Result {
	var out, errs bytes.Buffer
	cmd := exec.Command(b.program(argv[0]), argv[1:]...)
	cmd.Env = append(as.environ(), "BATCHWARDEN_SOCKET="+b.Socket)
	cmd.Env = append(cmd.Env, "PATH="+b.Bin+":/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin")
	cmd.Env = append(cmd.Env, environ...)
	cmd.Dir = "/"
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &out, &errs
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.SysProcAttr.Credential = as.credential()
	cmd.WaitDelay = time.Second
	begun := time.Now()
	err := cmd.Start()
	if err != nil {
		return Result{Err: err.Error(), Code: 127}
	}
	late := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() }) // fails only when it has ended
	err = cmd.Wait()
	r := Result{Out: out.String(), Err: errs.String(), Took: time.Since(begun)}
	if !late.Stop() {
		r.Err += "\nkilled after a minute"
	}
	if _, exited := errors.AsType[*exec.ExitError](err); err != nil && !exited {
		r.Err += "\n" + err.Error()
	}
	r.Code = exitCode(cmd.ProcessState.Sys().(syscall.WaitStatus))
	return r
}

// program finds one of ours in the bed, and anything else where the system has it.
func (b *Bed) program(name string) string {
	if strings.Contains(name, "/") {
		return name
	}
	own := b.Bin + "/" + name
	if _, err := os.Stat(own); err == nil {
		return own
	}
	if path, err := exec.LookPath(name); err == nil {
		return path
	}
	return name
}

// CLI runs "batchwarden ARGS…" as the account.
func (b *Bed) CLI(as Account, args ...string) Result {
	return b.Command(as, append([]string{"batchwarden"}, args...)...)
}
