package daemon_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"batchwarden/installer/testbed"
	"batchwarden/ipc/wire"
	"batchwarden/platform/localsock"
)

// passing makes a request whose first octet brings descriptors.
func passing(t *testing.T, b *testbed.Bed, method, path string, body any, files ...localsock.File) testbed.Answer {
	t.Helper()
	conn := lsamConn(t, b)
	return exchange(t, conn, bufio.NewReader(conn), method, path, body, files...)
}

func lsamConn(t *testing.T, b *testbed.Bed) *net.UnixConn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, err := b.Dial(ctx, b.Accounts.LSAM)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // all that mattered was read
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// exchange is one request and its answer on a connection that goes on.
func exchange(t *testing.T, conn *net.UnixConn, from *bufio.Reader, method, path string, body any, files ...localsock.File) testbed.Answer {
	t.Helper()
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
	}
	req, err := http.NewRequest(method, "http://batchwarden"+path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	if err := req.Write(localsock.WithFiles(conn, files...)); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(from, req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	a := testbed.Answer{Status: resp.StatusCode, Header: resp.Header}
	if a.Body, err = io.ReadAll(resp.Body); err != nil {
		t.Fatal(err)
	}
	return a
}

// piped is a pipe whose ends block, as those of a shell do.
func piped(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = r.Close() // perhaps a second time
		_ = w.Close()
	})
	return r, w
}

func opened(t *testing.T, path string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, flags, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// letGo fails unless nobody but us has the other end of the pipe.
func letGo(t *testing.T, r *os.File) {
	t.Helper()
	if err := r.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(r); err != nil {
		t.Errorf("a descriptor is still held: %v", err)
	}
}

func TestPassedStdio(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	null := opened(t, os.DevNull, os.O_RDWR)
	launch := func(change map[string]any, files ...localsock.File) testbed.Answer {
		t.Helper()
		all := body(change)
		all["stdio"] = "passed"
		return passing(t, b, "POST", "/v1/jobs", all, files...)
	}
	t.Run("a pipe, a file and a socket are the job's", func(t *testing.T) {
		in, give := piped(t)
		in.Fd() // which makes it block
		log := opened(t, filepath.Join(t.TempDir(), "log"), os.O_RDWR|os.O_CREATE|os.O_APPEND)
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		far, near := os.NewFile(uintptr(pair[0]), "far"), os.NewFile(uintptr(pair[1]), "near")
		defer near.Close()
		job := read[wire.Job](t, launch(map[string]any{"id": "mixed", "command": []string{"/bin/sh", "-c", "cat; id -u >&2"}}, in, log, far))
		if err := errors.Join(in.Close(), far.Close()); err != nil {
			t.Fatal(err)
		}
		if _, err := give.WriteString("through the pipe\n"); err != nil {
			t.Fatal(err)
		}
		if err := give.Close(); err != nil {
			t.Fatal(err)
		}
		if job = ended(t, b, job.ID); job.ExitCode == nil || *job.ExitCode != 0 {
			t.Errorf("%+v", job)
		}
		if text, err := os.ReadFile(log.Name()); err != nil || string(text) != "through the pipe\n" {
			t.Errorf("the file has %q, %v", text, err)
		}
		if text, err := io.ReadAll(near); err != nil || strings.TrimSpace(string(text)) == "" {
			t.Errorf("the socket has %q, %v", text, err)
		}
		a := call(t, b, b.Accounts.LSAM, "GET", "/v1/jobs/mixed/output/stdout", nil)
		want(t, a, 404, wire.JobUnknown)
	})
	t.Run("a repeat finds the job and lets go of its descriptors", func(t *testing.T) {
		once := map[string]any{"id": "once", "command": []string{"/bin/sleep", "60"}}
		first := launch(once, null, null, null)
		r, w := piped(t)
		second := launch(once, null, w, w)
		if first.Status != 201 || second.Status != 200 {
			t.Errorf("got %d then %d %s", first.Status, second.Status, second.Body)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		letGo(t, r)
		read[wire.Job](t, call(t, b, b.Accounts.LSAM, "POST", "/v1/jobs/once/signal", map[string]any{"signal": "KILL"}))
		ended(t, b, "once")
	})
	t.Run("a full device and a pipe without a reader are the job's own matter", func(t *testing.T) {
		r, w := piped(t)
		w.Fd()
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		full := opened(t, "/dev/full", os.O_WRONLY)
		job := read[wire.Job](t, launch(map[string]any{"command": []string{"/bin/sh", "-c", "echo x || exit 7"}}, null, full, null))
		if job = ended(t, b, job.ID); job.ExitCode == nil || *job.ExitCode != 7 {
			t.Errorf("/dev/full: %+v", job)
		}
		job = read[wire.Job](t, launch(map[string]any{"command": []string{"/bin/cat", "/etc/passwd"}}, null, w, null))
		if job = ended(t, b, job.ID); job.Signal != "PIPE" {
			t.Errorf("closed pipe: %+v", job)
		}
	})
	t.Run("what is no program's stdio is refused", func(t *testing.T) {
		dir := opened(t, "/", os.O_RDONLY)
		const oPath = 0x200000
		path := opened(t, "/etc/passwd", oPath)
		own := lsamConn(t, b)
		r, w := piped(t)
		for name, files := range map[string][]localsock.File{
			"none":                           {},
			"two":                            {null, w},
			"a directory":                    {dir, w, null},
			"no access":                      {null, w, path},
			"a connection to the service":    {null, w, own},
			"the connection of the launch":   nil,
			"the service's listening socket": {null, w, listening(t, b)},
		} {
			all := body(map[string]any{"id": "refused", "stdio": "passed"})
			conn := lsamConn(t, b)
			if files == nil {
				files = []localsock.File{null, w, conn}
			}
			a := exchange(t, conn, bufio.NewReader(conn), "POST", "/v1/jobs", all, files...)
			if a.Status != 400 || a.Code() != wire.RequestInvalid {
				t.Errorf("%s: got %d %s", name, a.Status, a.Body)
			}
		}
		want(t, passing(t, b, "POST", "/v1/jobs", body(nil), null, w, null), 400, wire.RequestInvalid) // captured
		want(t, call(t, b, b.Accounts.LSAM, "GET", "/v1/jobs/refused", nil), 404, wire.JobUnknown)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		letGo(t, r)
	})
	t.Run("descriptors that belong to nothing are closed", func(t *testing.T) {
		r, w := piped(t)
		if a := passing(t, b, "GET", "/v1/whoami", nil, w, w); a.Status != 200 {
			t.Errorf("with a GET: %d %s", a.Status, a.Body)
		}
		for name, send := range map[string]func(*net.UnixConn) error{
			"four": func(c *net.UnixConn) error {
				_, err := localsock.WithFiles(c, null, w, w, w).Write([]byte("GET /v1/whoami HTTP/1.1\r\nHost: x\r\n\r\n"))
				return err
			},
			"in the middle": func(c *net.UnixConn) error {
				_, err := c.Write([]byte("GET /v1/whoami HTTP"))
				if err == nil {
					_, err = localsock.WithFiles(c, w).Write([]byte("/1.1\r\nHost: x\r\n\r\n"))
				}
				return err
			},
		} {
			c := lsamConn(t, b)
			if err := send(c); err != nil {
				t.Fatal(err)
			}
			if answer, err := io.ReadAll(c); err == nil && strings.HasPrefix(string(answer), "HTTP/1.1 200") {
				t.Errorf("%s: answered %q", name, answer)
			}
		}
		// Half a request, and gone.
		c := lsamConn(t, b)
		if _, err := localsock.WithFiles(c, w, w, w).Write([]byte("POST /v1/jo")); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(c.Close(), w.Close()); err != nil {
			t.Fatal(err)
		}
		letGo(t, r)
	})
	t.Run("a pipelined request with descriptors ends the connection", func(t *testing.T) {
		r, w := piped(t)
		c := lsamConn(t, b)
		text := []byte("GET /v1/jobs/nobody?wait=5s HTTP/1.1\r\nHost: x\r\n\r\n")
		for range 3 {
			if _, err := localsock.WithFiles(c, w).Write(text); err != nil && !errors.Is(err, syscall.EPIPE) && !errors.Is(err, syscall.ECONNRESET) {
				t.Fatal(err)
			}
		}
		answers, _ := io.ReadAll(c) // the end may be a reset
		if n := strings.Count(string(answers), "HTTP/1.1 "); n > 3 {
			t.Errorf("%d answers: %q", n, answers)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		letGo(t, r)
	})
}

// listening is a listening socket with the name of the public one.
func listening(t *testing.T, b *testbed.Bed) *os.File {
	t.Helper()
	addr, err := net.ResolveUnixAddr("unix", b.Socket)
	if err != nil {
		t.Fatal(err)
	}
	// One of the same name, which is all that the service can compare.
	if err := os.Rename(b.Socket, b.Socket+".away"); err != nil {
		t.Fatal(err)
	}
	l, err := net.ListenUnix("unix", addr)
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	if err := errors.Join(os.Remove(b.Socket), os.Rename(b.Socket+".away", b.Socket)); err != nil {
		t.Fatal(err)
	}
	f, err := l.File()
	if err := errors.Join(err, l.Close()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestPassedRetrieve(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	ask := map[string]any{"realm": "opcon", "subject": map[string]any{"user": testbed.User}}
	const path = "/v1/batch-users/payroll/retrieve"
	password := string(call(t, b, b.Accounts.LSAM, "POST", path, ask).Body)
	if len(password) < 4 {
		t.Fatalf("the password is %q", password)
	}
	t.Run("the password is in the pipe and the connection goes on", func(t *testing.T) {
		conn := lsamConn(t, b)
		from := bufio.NewReader(conn)
		for range 3 {
			r, w := piped(t)
			a := exchange(t, conn, from, "POST", path, ask, w)
			if a.Status != 204 || len(a.Body) > 0 || a.Header.Get("Batchwarden-Username") != b.Accounts.Payroll.Name || a.Header.Get("Batchwarden-Version") == "" {
				t.Fatalf("%d %s %v", a.Status, a.Body, a.Header)
			}
			if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			if text, err := io.ReadAll(r); err != nil || string(text) != password {
				t.Errorf("got %q, %v", text, err)
			}
		}
		pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		far, near := os.NewFile(uintptr(pair[0]), "far"), os.NewFile(uintptr(pair[1]), "near")
		defer near.Close()
		if a := exchange(t, conn, from, "POST", path, ask, far); a.Status != 204 {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		if err := far.Close(); err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(near); err != nil || string(text) != password {
			t.Errorf("got %q, %v", text, err)
		}
		audited(t, b, map[string]string{"kind": "retrieve.ended", "code": "delivered"})
	})
	t.Run("a full pipe and one without a reader fail within a second", func(t *testing.T) {
		_, full := piped(t)
		if err := full.SetWriteDeadline(time.Now().Add(200 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		if _, err := full.Write(make([]byte, 1<<20)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("the pipe does not fill: %v", err)
		}
		full.Fd() // which makes it block: the service must not
		r, closed := piped(t)
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
		for name, f := range map[string]*os.File{"full": full, "closed": closed} {
			begun := time.Now()
			a := passing(t, b, "POST", path, ask, f)
			if took := time.Since(begun); took > 3*time.Second {
				t.Errorf("%s: it took %v", name, took)
			}
			want(t, a, 400, wire.RequestInvalid)
			if strings.Contains(string(a.Body), password) {
				t.Error("the answer has the password in it")
			}
		}
		audited(t, b, map[string]string{"kind": "retrieve.ended", "code": "failed"})
	})
	t.Run("other descriptors are refused, before anything is decided", func(t *testing.T) {
		r, w := piped(t)
		own := lsamConn(t, b)
		for name, files := range map[string][]localsock.File{
			"two":                         {w, w},
			"the reading end":             {r},
			"a file":                      {opened(t, filepath.Join(t.TempDir(), "f"), os.O_RDWR|os.O_CREATE)},
			"a device":                    {opened(t, os.DevNull, os.O_RDWR)},
			"a directory":                 {opened(t, "/", os.O_RDONLY)},
			"a connection to the service": {own},
		} {
			if a := passing(t, b, "POST", path, ask, files...); a.Status != 400 || a.Code() != wire.RequestInvalid {
				t.Errorf("%s: got %d %s", name, a.Status, a.Body)
			}
		}
	})
	t.Run("who may not retrieve gets nothing into the pipe", func(t *testing.T) {
		r, w := piped(t)
		a := passing(t, b, "POST", "/v1/batch-users/nobody/retrieve", ask, w)
		if a.Status == 204 {
			t.Errorf("got %d", a.Status)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if text, err := io.ReadAll(r); err != nil || len(text) > 0 {
			t.Errorf("the pipe has %d octets, %v", len(text), err)
		}
	})
}

// TestPassedCommandLine: a job may have the command's own files.
func TestPassedCommandLine(t *testing.T) {
	b := testbed.New(t, testbed.Options{})
	argv := []string{"batchwarden", "run", "--realm", "opcon", "--subject", testbed.User, "--as", "payroll", "--stdio", "passed", "--", "/bin/sh", "-c", "tr a-z A-Z; echo oops >&2; exit 7"}
	r := b.CommandIn(b.Accounts.LSAM, []byte("hello\n"), argv...)
	if r.Code != 7 || r.Out != "HELLO\n" || !strings.Contains(r.Err, "oops\n") {
		t.Errorf("exit %d, %q, %q", r.Code, r.Out, r.Err)
	}
	password := b.Passwords()[0]
	for name, redirect := range map[string]string{"a file": ">", "a file that is appended to": ">>"} {
		at := filepath.Join("/tmp", filepath.Base(b.Root)+"-out")
		t.Cleanup(func() { _ = os.Remove(at) })
		r := b.Command(b.Accounts.LSAM, "/bin/sh", "-c", "umask 077; rm -f "+at+"; batchwarden retrieve --realm opcon --subject "+testbed.User+" payroll "+redirect+" "+at+"; cat "+at)
		if r.Code != 0 || r.Out != password {
			t.Errorf("%s: exit %d, %q, %q", name, r.Code, r.Out, r.Err)
		}
	}
}
