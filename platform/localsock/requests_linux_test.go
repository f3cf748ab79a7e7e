package localsock

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// told is a pipe that says one word to whoever gets its reading end, and notices when nobody has that any more.
type told struct {
	r, w *os.File
}

func tell(t *testing.T, word string) *told {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = r.Close(), w.Close() }) // a test may have closed them
	if _, err := w.WriteString(word); err != nil {
		t.Fatal(err)
	}
	return &told{r, w}
}

// unheld fails the test unless every copy of the reading end is closed, ours being closed here.
func (p *told) unheld(t *testing.T) {
	t.Helper()
	if err := p.r.Close(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		_, err := p.w.WriteString("x")
		if errors.Is(err, syscall.EPIPE) {
			return
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("a descriptor is left open (%v)", err)
		}
	}
}

// word reads what a pipe that came says.
func word(t *testing.T, f *os.File) string {
	t.Helper()
	b := make([]byte, 100)
	n, err := f.Read(b)
	if err != nil {
		t.Error(err)
	}
	return string(b[:n])
}

func send(t *testing.T, c *net.UnixConn, text string, files ...syscall.Conn) {
	t.Helper()
	if n, err := WithFiles(c, files...).Write([]byte(text)); err != nil || n != len(text) {
		t.Fatalf("sent %d octets of %d: %v", n, len(text), err)
	}
}

// next reads a request of that length and begins it.
func next(t *testing.T, c *Requests, text string) []*os.File {
	t.Helper()
	b := make([]byte, len(text))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != text {
		t.Fatalf("got %q, %v, want %q", b, err, text)
	}
	return begun(c)
}

// begun are the files that came with a request.
func begun(c *Requests) (files []*os.File) {
	for _, d := range c.Begin() {
		files = append(files, d.File())
	}
	return files
}

func TestRequests(t *testing.T) {
	from, to := pair(t)
	c := NewRequests(to, 3)
	var all []*told
	for i, text := range []string{"first", "second", "third", "fourth"} {
		var files []syscall.Conn
		for j := range i { // 0, 1, 2, 3
			p := tell(t, fmt.Sprint(i, j))
			files, all = append(files, p.r), append(all, p)
		}
		send(t, from, text, files...)
		got := next(t, c, text)
		if len(got) != i {
			t.Fatalf("%s: %d descriptors came, want %d", text, len(got), i)
		}
		for j, f := range got {
			if w := word(t, f); w != fmt.Sprint(i, j) {
				t.Errorf("%s: descriptor %d says %q", text, j, w)
			}
		}
		closeAll(got)
		c.End()
	}
	for _, p := range all {
		p.unheld(t)
	}
	if err := from.Close(); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Errorf("at the end: %d, %v", n, err)
	}
}

// TestRequestsBroken: descriptors at any other place than the begin of a request break the connection, and are closed.
func TestRequestsBroken(t *testing.T) {
	for name, story := range map[string]func(t *testing.T, from *net.UnixConn, c *Requests, files ...syscall.Conn){
		"in the middle of a request": func(t *testing.T, from *net.UnixConn, c *Requests, files ...syscall.Conn) {
			send(t, from, "he")
			send(t, from, "ad", files...)
		},
		"twice with one request": func(t *testing.T, from *net.UnixConn, c *Requests, files ...syscall.Conn) {
			send(t, from, "he", files...)
			send(t, from, "ad", files...)
		},
		"before the last one was answered": func(t *testing.T, from *net.UnixConn, c *Requests, files ...syscall.Conn) {
			send(t, from, "head")
			next(t, c, "head")
			send(t, from, "head", files...)
		},
		"with one that was sent before the last was read": func(t *testing.T, from *net.UnixConn, c *Requests, files ...syscall.Conn) {
			send(t, from, "head")
			send(t, from, "head", files...)
		},
		"too many": func(t *testing.T, from *net.UnixConn, c *Requests, files ...syscall.Conn) {
			send(t, from, "head", files[0], files[0], files[0], files[0])
		},
		"far too many": func(t *testing.T, from *net.UnixConn, c *Requests, files ...syscall.Conn) {
			many := make([]syscall.Conn, 200)
			for i := range many {
				many[i] = files[0]
			}
			send(t, from, "head", many...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			from, to := pair(t)
			c, p := NewRequests(to, 3), tell(t, "x")
			story(t, from, c, p.r)
			if err := to.SetReadDeadline(time.Now().Add(5 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.Copy(io.Discard, c); !errors.Is(err, ErrFrame) {
				t.Errorf("got %v, want ErrFrame", err)
			}
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrFrame) {
				t.Errorf("and then %v", err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
			p.unheld(t)
		})
	}
}

func TestRequestsClose(t *testing.T) {
	from, to := pair(t)
	c, p := NewRequests(to, 3), tell(t, "x")
	send(t, from, "head", p.r)
	if _, err := c.Read(make([]byte, 10)); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	p.unheld(t)
}

// TestRequestsHTTP: under net/http each request gets its own descriptors, on a connection that is kept for many.
func TestRequestsHTTP(t *testing.T) {
	path := safeDir(t) + "/s"
	l, err := Listen(path, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	type key struct{}
	srv := &http.Server{
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, key{}, c) },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c := r.Context().Value(key{}).(*Requests)
			files := begun(c)
			defer c.End()
			defer closeAll(files)
			if r.URL.Path == "/unread" {
				_, _ = io.WriteString(w, "nothing")
				return
			}
			body, err := io.ReadAll(r.Body)
			if err != nil {
				t.Error(err)
			}
			for _, f := range files {
				fmt.Fprint(w, word(t, f), " ")
			}
			fmt.Fprint(w, len(body))
		}),
	}
	ended := make(chan error)
	go func() { ended <- srv.Serve(wrapping{l}) }() // ends with srv.Close
	defer func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	conn, err := DialOwn(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(conn)
	var all []*told
	for i := range 300 {
		var files []syscall.Conn
		want, path := "", "/"
		for j := range i % 4 {
			p := tell(t, fmt.Sprintf("%d-%d", i, j))
			files, all = append(files, p.r), append(all, p)
			want += fmt.Sprintf("%d-%d ", i, j)
		}
		body := bytes.Repeat([]byte("x"), i*37%9000)
		want += fmt.Sprint(len(body))
		if i%10 == 9 {
			path, want, body = "/unread", "nothing", nil
		}
		req, err := http.NewRequest("POST", "http://x"+path, bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if err := req.Write(WithFiles(conn, files...)); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(answers, req)
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
		text, err := io.ReadAll(resp.Body)
		if err != nil || string(text) != want {
			t.Fatalf("request %d: %q, %v, want %q", i, text, err, want)
		}
	}
	for _, p := range all {
		p.unheld(t)
	}
}

type wrapping struct {
	*net.UnixListener
}

func (w wrapping) Accept() (net.Conn, error) {
	c, err := w.AcceptUnix()
	if err != nil {
		return nil, err
	}
	return NewRequests(c, 3), nil
}

// TestWithFiles: the descriptors go once, and everything else arrives, however long it is.
func TestWithFiles(t *testing.T) {
	from, to := pair(t)
	c, p := NewRequests(to, 3), tell(t, "x")
	w := WithFiles(from, p.r)
	text := strings.Repeat("0123456789", 1<<17)
	sent := make(chan error, 1)
	go func() {
		n, err := w.Write([]byte(text))
		if err == nil && n != len(text) {
			err = io.ErrShortWrite
		}
		_, err2 := w.Write([]byte("!"))
		sent <- errors.Join(err, err2, from.Close())
	}()
	got, err := io.ReadAll(c)
	if err := errors.Join(err, <-sent); err != nil || string(got) != text+"!" {
		t.Errorf("%d octets arrived, %v", len(got), err)
	}
	files := begun(c)
	if len(files) != 1 || word(t, files[0]) != "x" {
		t.Errorf("%d descriptors arrived", len(files))
	}
	closeAll(files)
	p.unheld(t)
}
