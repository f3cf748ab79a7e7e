package testbed

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"
)

// A dialer is a process of another user that opens connections and hands them
// over. The kernel notes for the other end who opened a connection, not who
// uses it, so that a test can speak as any account. The process lives on, as
// the caller's does in real life.
type dialer struct {
	mu   sync.Mutex // one request at a time on conn
	conn *net.UnixConn
	cmd  *exec.Cmd
}

func newDialer(as Account) (*dialer, error) {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_SEQPACKET|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("socketpair", err)
	}
	near, far := os.NewFile(uintptr(pair[0]), "dialer"), os.NewFile(uintptr(pair[1]), "dialer")
	defer near.Close() // FileConn makes its own
	defer far.Close()
	conn, err := net.FileConn(near)
	if err != nil {
		return nil, err
	}
	// The link leads to the program also where its user could not reach it by name.
	cmd := exec.Command("/proc/self/exe")
	cmd.Env, cmd.Dir = append(as.environ(), roleEnv+"="+roleConnect), "/"
	cmd.Stderr, cmd.ExtraFiles = os.Stderr, []*os.File{far}
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	cmd.SysProcAttr.Credential = as.credential()
	if err := cmd.Start(); err != nil {
		_ = conn.Close() // nothing went over it
		return nil, fmt.Errorf("start a dialer as %s: %w", as.Name, err)
	}
	return &dialer{conn: conn.(*net.UnixConn), cmd: cmd}, nil
}

func (d *dialer) close() {
	_ = d.conn.Close() // the other end reads the end of input
	_ = d.cmd.Wait()   // it was only there to dial
}

func (d *dialer) dial(ctx context.Context, path string) (*net.UnixConn, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	deadline, _ := ctx.Deadline()
	if err := d.conn.SetDeadline(deadline); err != nil {
		return nil, err
	}
	if _, err := d.conn.Write([]byte(path)); err != nil {
		return nil, err
	}
	text, control := make([]byte, 4096), make([]byte, syscall.CmsgSpace(4))
	n, got, _, _, err := d.conn.ReadMsgUnix(text, control)
	if err != nil {
		return nil, err
	}
	messages, err := syscall.ParseSocketControlMessage(control[:got])
	if err != nil || len(messages) == 0 {
		return nil, errors.New(string(text[:n]))
	}
	fds, err := syscall.ParseUnixRights(&messages[0])
	if err != nil {
		return nil, err
	}
	syscall.CloseOnExec(fds[0])
	f := os.NewFile(uintptr(fds[0]), path)
	defer f.Close() // FileConn makes its own
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}

// connector is the dialer's process: a path comes in, a connection goes out.
func connector() {
	const conn = 3
	for {
		path := make([]byte, 4096)
		n, _, err := syscall.Recvfrom(conn, path, 0)
		if errors.Is(err, syscall.EINTR) {
			continue
		}
		if err != nil || n == 0 {
			return
		}
		if err := handOver(conn, string(path[:n])); err != nil {
			_ = syscall.Sendmsg(conn, []byte(err.Error()), nil, nil, 0) // the other end is gone, then
		}
	}
}

func handOver(to int, path string) error {
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	if err := syscall.Connect(fd, &syscall.SockaddrUnix{Name: path}); err != nil {
		return &net.OpError{Op: "dial", Net: "unix", Addr: &net.UnixAddr{Name: path, Net: "unix"}, Err: err}
	}
	return syscall.Sendmsg(to, []byte("ok"), syscall.UnixRights(fd), nil, 0)
}

// Dial opens a connection to the public socket as the account.
func (b *Bed) Dial(ctx context.Context, as Account) (*net.UnixConn, error) {
	return b.DialTo(ctx, as, b.Socket)
}

// DialTo opens a connection to any socket as the account.
func (b *Bed) DialTo(ctx context.Context, as Account, path string) (*net.UnixConn, error) {
	b.mu.Lock()
	d := b.dialers[as.Name]
	if d == nil {
		var err error
		if d, err = newDialer(as); err != nil {
			b.mu.Unlock()
			return nil, err
		}
		b.dialers[as.Name] = d
	}
	b.mu.Unlock()
	return d.dial(ctx, path)
}

// Client returns an HTTP client whose connections are the account's; the host
// in a URL does not matter. Its idle connections are the caller's to close.
func (b *Bed) Client(as Account) *http.Client {
	return &http.Client{Transport: &http.Transport{
		DialContext:         func(ctx context.Context, _, _ string) (net.Conn, error) { return b.Dial(ctx, as) },
		MaxIdleConnsPerHost: 256,
	}}
}

// An Answer is what the API answered.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Code returns the code of a problem document, or "".
func (a Answer) Code() string {
	var problem struct {
		Code string `json:"code"`
	}
	if json.Unmarshal(a.Body, &problem) != nil {
		return ""
	}
	return problem.Code
}

// Call makes one request as the account on a connection of its own. A body that
// is not []byte, string or nil is sent as JSON.
func (b *Bed) Call(as Account, method, path string, body any) (Answer, error) {
	var text []byte
	switch v := body.(type) {
	case nil:
	case []byte:
		text = v
	case string:
		text = []byte(v)
	default:
		var err error
		if text, err = json.Marshal(v); err != nil {
			return Answer{}, err
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, "http://batchwarden"+path, bytes.NewReader(text))
	if err != nil {
		return Answer{}, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	client := b.Client(as)
	defer client.CloseIdleConnections()
	response, err := client.Do(request)
	if err != nil {
		return Answer{}, err
	}
	defer response.Body.Close()
	a := Answer{Status: response.StatusCode, Header: response.Header}
	a.Body, err = io.ReadAll(io.LimitReader(response.Body, 64<<20))
	return a, err
}
