package nss

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const maxAnswer = 1 << 20

// program is one running batchwarden-nss: asked by one at a time.
type program struct {
	conn  *os.File
	cmd   *exec.Cmd
	ended chan struct{} // closed when it has been waited for
	conf  stamp         // nsswitch.conf when it began: older C libraries read it once
	used  bool
}

// start starts one; the goroutine that waits for it ends with it.
func start(path string, conf stamp) (*program, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	theirs := os.NewFile(uintptr(fds[1]), "nss")
	defer theirs.Close()
	err = unix.SetNonblock(fds[0], true) // for deadlines
	p := &program{conn: os.NewFile(uintptr(fds[0]), "nss"), cmd: exec.Command(path), ended: make(chan struct{}), conf: conf}
	p.cmd.Args[0] = filepath.Base(path)
	p.cmd.Dir, p.cmd.Env = "/", []string{} // not nil: that would be our own
	p.cmd.Stdin, p.cmd.Stdout = theirs, theirs
	if err == nil {
		err = p.cmd.Start()
	}
	if err != nil {
		return nil, errors.Join(err, p.conn.Close())
	}
	go func() {
		defer close(p.ended)
		_ = p.cmd.Wait() // how it ended tells nobody anything: what it did not answer is what counts
	}()
	return p, nil
}

// stop ends it; one that hangs in the kernel is not waited for.
func (p *program) stop() {
	_ = p.conn.Close()       // nothing is buffered
	_ = p.cmd.Process.Kill() // it may have ended
	select {
	case <-p.ended:
	case <-time.After(time.Second):
	}
}

// ask sends one question and returns the fields of the answer.
func (p *program) ask(question []byte, until time.Time) ([]string, error) {
	if err := p.conn.SetDeadline(until); err != nil {
		return nil, err
	}
	frame := binary.BigEndian.AppendUint32(nil, uint32(len(question)))
	if _, err := p.conn.Write(append(frame, question...)); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(p.conn, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxAnswer {
		return nil, fmt.Errorf("an answer of %d octets", n)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(p.conn, text); err != nil {
		return nil, err
	}
	return fields(text)
}
