package main

import (
	"bufio"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// roleEnv makes this program one of the references' servers: in a process of
// its own, as the daemon is.
const roleEnv = "BATCHWARDEN_BENCH_ROLE"

func role() {
	name, path, _ := strings.Cut(os.Getenv(roleEnv), ":")
	var serve func(net.Listener) error
	switch name {
	case "echo":
		serve = echo
	case "http":
		serve = func(l net.Listener) error { return http.Serve(l, http.HandlerFunc(bare)) }
	default:
		return
	}
	l, err := net.Listen("unix", path)
	if err == nil {
		fmt.Println("ready")
		err = serve(l)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "reference:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// echo answers one octet with one octet.
func echo(l net.Listener) error {
	c, err := l.Accept()
	if err != nil {
		return err
	}
	_, err = io.Copy(c, c)
	return err
}

// bare is as little as a handler can do that reads a request and answers in JSON.
func bare(w http.ResponseWriter, r *http.Request) {
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		return // the client is gone
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = io.WriteString(w, `{"allowed":true,"code":"ok","decision_id":"00000000-0000-0000-0000-000000000000"}`) // nobody to tell
}

// server starts this program as one of the references' servers.
func server(name, dir string) (socket string, pid int, stop func() error, err error) {
	socket = filepath.Join(dir, name+".sock")
	pid, stop, err = ready("/proc/self/exe", []string{roleEnv + "=" + name + ":" + socket})
	return socket, pid, stop, err
}

// ready starts a program and waits until it says that it is ready. Its standard
// input ends with this program.
func ready(program string, environ []string, args ...string) (pid int, stop func() error, err error) {
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), environ...)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if _, err := cmd.StdinPipe(); err != nil {
		return 0, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, nil, err
	}
	if err := cmd.Start(); err != nil {
		return 0, nil, err
	}
	stop = func() error {
		err := cmd.Process.Kill()
		_ = cmd.Wait() // it says that it was killed
		return err
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); !strings.HasPrefix(line, "ready") {
		return 0, nil, errors.Join(fmt.Errorf("reference %s did not start: %w", program, err), stop())
	}
	return cmd.Process.Pid, stop, nil
}

// rawRoundTrip is one octet there and back.
func rawRoundTrip(dir string) (*figure, func() error, error) {
	socket, _, stop, err := server("echo", dir)
	if err != nil {
		return nil, nil, err
	}
	c, err := net.Dial("unix", socket)
	if err != nil {
		return nil, nil, errors.Join(err, stop())
	}
	octet := make([]byte, 1)
	once := func() error {
		if _, err := c.Write(octet); err != nil {
			return err
		}
		_, err := io.ReadFull(c, octet)
		return err
	}
	return &figure{name: "raw Unix socket round trip", per: 400, once: once}, func() error { return errors.Join(c.Close(), stop()) }, nil
}

// bareHTTP is a request to a handler that does nothing, over one kept connection.
func bareHTTP(dir string, body string) (*figure, func() error, error) {
	socket, _, stop, err := server("http", dir)
	if err != nil {
		return nil, nil, err
	}
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	once := func() error { return post(client, "/v1/authorize", body, 200, nil) }
	return &figure{name: "bare net/http handler, kept connection", per: 200, once: once}, func() error {
		client.CloseIdleConnections()
		return stop()
	}, nil
}

//go:embed testdata/spawn.c
var spawnC []byte

// errNoCompiler reports that the reference in C cannot be had.
var errNoCompiler = errors.New("no C compiler; as root: apt-get install gcc libc6-dev")

// posixSpawn is /bin/true from C, to its known exit. The C program runs all the
// while and spawns once for each line it reads.
func posixSpawn(dir string) (*figure, func() error, error) {
	cc, err := exec.LookPath("cc")
	if err != nil {
		return nil, nil, errNoCompiler
	}
	source, program := filepath.Join(dir, "spawn.c"), filepath.Join(dir, "spawn")
	if err := os.WriteFile(source, spawnC, 0o600); err != nil {
		return nil, nil, err
	}
	if text, err := exec.Command(cc, "-O2", "-Wall", "-o", program, source).CombinedOutput(); err != nil {
		return nil, nil, fmt.Errorf("cc: %w: %s", err, text)
	}
	cmd := exec.Command(program)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	octet := make([]byte, 1)
	once := func() error {
		if _, err := in.Write(octet); err != nil {
			return err
		}
		if _, err := io.ReadFull(out, octet); err != nil {
			return err
		}
		if octet[0] != 'k' {
			return errors.New("/bin/true failed")
		}
		return nil
	}
	f := &figure{name: "posix_spawn of /bin/true from C", per: 30, once: once}
	return f, func() error { return errors.Join(in.Close(), cmd.Wait()) }, nil
}

// post makes a request, wants the status, and gives the body to read.
func post(client *http.Client, path, body string, want int, read func([]byte) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://batchwarden"+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	switch {
	case err != nil:
		return err
	case response.StatusCode != want:
		return fmt.Errorf("%s: status %d, want %d: %.4096s", path, response.StatusCode, want, text)
	case read == nil:
		return nil
	}
	return read(text)
}
