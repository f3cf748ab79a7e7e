package pam

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxField  = 256
	maxAnswer = 128 << 10
	// slack is what the program's own time is shorter than ours.
	slack = 2 * time.Second
)

// services are where PAM looks for a service. For one that is nowhere it would take the service "other" in silence.
var services = []string{"/etc/pam.d", "/usr/lib/pam.d", "/usr/share/pam.d", "/usr/etc/pam.d"}

// session is one running program.
type session struct {
	conn *net.UnixConn
	cmd  *exec.Cmd
}

func check(q Question) error {
	for _, f := range []string{q.Service, q.User, q.By} {
		if len(f) > maxField || strings.IndexByte(f, 0) >= 0 {
			return fmt.Errorf("pam: service %q, user %q or %q is too long or has a NUL", q.Service, q.User, q.By)
		}
	}
	if q.User == "" || q.Service == "" || q.Service[0] == '.' || strings.ContainsRune(q.Service, '/') {
		return fmt.Errorf("pam: user %q and service %q must be names", q.User, q.Service)
	}
	for _, dir := range services {
		if _, err := os.Stat(filepath.Join(dir, q.Service)); err == nil {
			return nil
		}
	}
	return fmt.Errorf("pam: there is no service %q in %s", q.Service, services[0])
}

// begin starts the program and puts the question.
func begin(ctx context.Context, path, what string, q Question, extra ...*os.File) (*session, error) {
	if err := check(q); err != nil {
		return nil, err
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("pam: %w", os.NewSyscallError("socketpair", err))
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "pam"), os.NewFile(uintptr(fds[1]), "pam")
	defer theirs.Close()
	conn, err := net.FileConn(ours)
	if err := errors.Join(err, ours.Close()); err != nil {
		return nil, fmt.Errorf("pam: %w", err)
	}
	s := &session{conn: conn.(*net.UnixConn), cmd: exec.Command(path, what)}
	s.cmd.Args[0] = filepath.Base(path)
	s.cmd.Dir, s.cmd.Env = "/", []string{} // not nil: that would be our own
	s.cmd.Stdin, s.cmd.ExtraFiles = theirs, extra
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a group of its own, with what modules start
	if err := s.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("pam: %w", err), s.conn.Close())
	}
	text := strings.Join([]string{q.Service, q.User, q.By, strconv.Itoa(int(Timeout / time.Second))}, "\x00") + "\x00"
	frame := append(binary.BigEndian.AppendUint32(nil, uint32(len(text))), text...)
	err = s.conn.SetDeadline(deadline(ctx))
	if err == nil {
		_, err = s.conn.Write(frame)
	}
	if err != nil {
		s.kill()
		return nil, fmt.Errorf("pam: %w", err)
	}
	return s, nil
}

func deadline(ctx context.Context) time.Time {
	until := time.Now().Add(Timeout + slack)
	if d, ok := ctx.Deadline(); ok && d.Before(until) {
		return d
	}
	return until
}

// kill ends the program and what its modules started.
func (s *session) kill() {
	_ = s.conn.Close() // nothing is buffered
	_ = unix.Kill(-s.cmd.Process.Pid, unix.SIGKILL)
	_ = s.cmd.Wait() // it was killed
}

// answer reads what PAM said, a no included; the error is that of a program that did not answer.
func (s *session) answer() ([]string, error) {
	var size [4]byte
	if _, err := io.ReadFull(s.conn, size[:]); err != nil {
		return nil, s.silent(err)
	}
	n := binary.BigEndian.Uint32(size[:])
	if n == 0 || n > maxAnswer {
		return nil, fmt.Errorf("pam: an answer of %d octets", n)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(s.conn, text); err != nil {
		return nil, s.silent(err)
	}
	if text[n-1] != 0 {
		return nil, errAnswer
	}
	return strings.Split(string(text[:n-1]), "\x00"), nil
}

var errAnswer = errors.New("pam: the answer cannot be understood")

func (s *session) silent(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("pam: a module does not come to an end: %w", err)
	}
	return fmt.Errorf("pam: %s ended before it answered: %w", s.cmd.Path, err)
}

// verdict returns the error that an answer is, if it is one.
func verdict(f []string) error {
	switch {
	case f[0] == "refused" && len(f) == 3:
		switch why := Why(f[1]); why {
		case Missing, Expired, Locked, Denied:
			return &Refused{Why: why, Text: strings.ToValidUTF8(f[2], "?")}
		}
		return errAnswer
	case f[0] == "failed" && len(f) == 2:
		return said(f[1])
	}
	return nil
}

// ask starts the program, and returns its answer, unless that is a no; then it has ended.
func ask(ctx context.Context, path, what string, q Question) (s *session, f []string, err error) {
	if s, err = begin(ctx, path, what, q); err != nil {
		return nil, nil, err
	}
	if f, err = s.hear(ctx); err == nil {
		err = verdict(f)
	}
	if err != nil {
		s.kill()
		return nil, nil, err
	}
	return s, f, nil
}

// hear is answer until ctx ends.
func (s *session) hear(ctx context.Context) ([]string, error) {
	stop := context.AfterFunc(ctx, func() { _ = s.conn.SetDeadline(time.Now()) }) // it is closed by our caller at the earliest
	f, err := s.answer()
	if !stop() && err == nil {
		err = fmt.Errorf("pam: %w", context.Cause(ctx))
	}
	return f, err
}

func open(ctx context.Context, path string, q Question) (*Session, error) {
	s, f, err := ask(ctx, path, "session", q)
	if err != nil {
		return nil, err
	}
	opened := &Session{s: s}
	if err = opened.read(f); err == nil {
		err = s.conn.SetDeadline(time.Time{})
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return opened, nil
}

// read takes over what the session's modules have set.
func (s *Session) read(f []string) error {
	if f[0] != "open" || len(f)%2 != 1 {
		return errAnswer
	}
	for i := 1; i < len(f); i += 2 {
		value := f[i+1]
		var err error
		switch f[i] {
		case "env":
			name, _, ok := strings.Cut(value, "=")
			if !ok || name == "" {
				err = errAnswer
			}
			s.Env = append(s.Env, value)
		case "umask":
			var n uint64
			n, err = strconv.ParseUint(value, 8, 9)
			mask := uint32(n)
			s.Umask = &mask
		case "nice":
			var n int
			n, err = strconv.Atoi(value)
			s.Nice = &n
		case "limit":
			var l Limit
			_, err = fmt.Sscanf(value, "%d:%d:%d", &l.Resource, &l.Soft, &l.Hard)
			s.Limits = append(s.Limits, l)
		default:
			err = errAnswer
		}
		if err != nil {
			return fmt.Errorf("pam: %s %q: %w", f[i], value, err)
		}
	}
	return nil
}

func (s *session) hold(pidfd *os.File) error {
	rc, err := pidfd.SyscallConn()
	if err != nil {
		return fmt.Errorf("pam: %w", err)
	}
	var sendErr error
	err = rc.Control(func(fd uintptr) {
		_, _, sendErr = s.conn.WriteMsgUnix([]byte("j"), unix.UnixRights(int(fd)), nil)
	})
	if err := errors.Join(err, sendErr); err != nil {
		return fmt.Errorf("pam: %w", err)
	}
	return nil
}

func (s *session) close() error {
	if err := s.end(); err != nil {
		s.kill()
		return err
	}
	return s.leave()
}

// end asks for the end of the session and waits for it.
func (s *session) end() error {
	if err := s.conn.SetDeadline(time.Now().Add(Timeout + slack)); err != nil {
		return fmt.Errorf("pam: %w", err)
	}
	if _, err := s.conn.Write([]byte("c")); err != nil {
		return s.silent(err)
	}
	f, err := s.answer()
	if err == nil {
		err = verdict(f)
	}
	if err == nil && f[0] != "closed" {
		err = errAnswer
	}
	return err
}

// leave waits for a program that has said its last word; its alarm is set.
func (s *session) leave() error {
	err := errors.Join(s.conn.Close(), s.cmd.Wait())
	if err != nil {
		return fmt.Errorf("pam: %w", err)
	}
	return nil
}

func verify(ctx context.Context, path string, q Question, password *os.File) (Outcome, error) {
	s, err := begin(ctx, path, "verify", q, password)
	if err != nil {
		return Untried, err
	}
	f, err := s.hear(ctx)
	if err == nil {
		err = verdict(f)
		if err != nil && err != errAnswer {
			s.kill()
			return Untried, err
		}
	}
	outcome := Unsure
	switch {
	case err != nil:
	case f[0] == "right" && len(f) == 1:
		return Right, s.leave()
	case f[0] == "wrong" && len(f) == 2:
		outcome, err = Wrong, said(f[1])
	case f[0] == "unsure" && len(f) == 2:
		err = said(f[1])
	default:
		err = errAnswer
	}
	s.kill()
	return outcome, err
}

// said is the error that PAM's words are.
func said(text string) error { return fmt.Errorf("pam: %s", strings.ToValidUTF8(text, "?")) }
