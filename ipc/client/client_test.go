package client

import (
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
	"testing"
	"time"

	"batchwarden/ipc/wire"
)

// listen binds a socket that Dial trusts.
func listen(t *testing.T) (string, net.Listener) {
	t.Helper()
	if os.Geteuid() != 0 {
		const why = "needs root; run: sudo make test"
		if os.Getenv("BATCHWARDEN_NO_SKIP") == "1" {
			t.Fatal(why)
		}
		t.Skip(why)
	}
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() }) // the server of the test may have closed it
	return socket, l
}

// serve answers every request at a socket by the handler.
func serve(t *testing.T, handler http.HandlerFunc) *Client {
	t.Helper()
	socket, l := listen(t)
	srv := &http.Server{Handler: handler}
	ended := make(chan error)
	go func() { ended <- srv.Serve(l) }()
	c := New(socket)
	t.Cleanup(func() {
		c.Close()
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return c
}

// raw answers every connection with the same octets, after the request's header was read.
func raw(t *testing.T, answer string) *Client {
	t.Helper()
	socket, l := listen(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = conn.Read(make([]byte, 64<<10)) // whatever came, the answer is the same
			_, _ = io.WriteString(conn, answer)    // a client that stops reading early is part of the tests
			conn.Close()
		}
	}()
	c := New(socket)
	t.Cleanup(func() {
		c.Close()
		l.Close()
		<-ended
	})
	return c
}

func reply(w http.ResponseWriter, status int, kind string, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	w.Header().Set("Content-Type", kind)
	w.WriteHeader(status)
	_, _ = w.Write(text) // a client that has gone is the test's business
}

const isJSON = "application/json"

func TestCalls(t *testing.T) {
	ctx := t.Context()
	for _, c := range []struct {
		name         string
		request      string // as it has to arrive
		answer       any
		call         func(*Client) (any, error)
		wantReturned any
	}{
		{"whoami", "GET /v1/whoami ", wire.Whoami{Client: "c"},
			func(c *Client) (any, error) { return c.Whoami(ctx) }, &wire.Whoami{Client: "c"}},
		{"status", "GET /v1/status ", wire.Status{Machine: "m"},
			func(c *Client) (any, error) { return c.Status(ctx) }, &wire.Status{Machine: "m"}},
		{"authorize", `POST /v1/authorize {"realm":"r","subject":{"user":"u"}}`, wire.Decision{Allowed: true, Code: "ok"},
			func(c *Client) (any, error) {
				return c.Authorize(ctx, wire.Authorize{Realm: "r", Subject: wire.Subject{User: "u"}}, false)
			}, &wire.Decision{Allowed: true, Code: "ok"}},
		{"explain", `POST /v1/authorize?explain=1 {"realm":"r","subject":{}}`, wire.Decision{Reason: "because"},
			func(c *Client) (any, error) { return c.Authorize(ctx, wire.Authorize{Realm: "r"}, true) }, &wire.Decision{Reason: "because"}},
		{"batch users", "GET /v1/batch-users ", wire.BatchUsers{BatchUsers: []wire.BatchUser{{Name: "a"}, {Name: "b"}}},
			func(c *Client) (any, error) { return c.BatchUsers(ctx) }, []wire.BatchUser{{Name: "a"}, {Name: "b"}}},
		{"batch user", "GET /v1/batch-users/a%2Fb%3F ", wire.BatchUser{Name: "a"},
			func(c *Client) (any, error) { return c.BatchUser(ctx, "a/b?") }, &wire.BatchUser{Name: "a"}},
		{"jobs", "GET /v1/jobs ", wire.Jobs{Jobs: []wire.Job{{ID: "1"}}},
			func(c *Client) (any, error) { return c.Jobs(ctx) }, []wire.Job{{ID: "1"}}},
		{"job", "GET /v1/jobs/x:1@h ", wire.Job{ID: "x:1@h"},
			func(c *Client) (any, error) { return c.Job(ctx, "x:1@h", 0) }, &wire.Job{ID: "x:1@h"}},
		{"job, waiting", "GET /v1/jobs/1?wait=1.5s ", wire.Job{ID: "1"},
			func(c *Client) (any, error) { return c.Job(ctx, "1", 1500*time.Millisecond) }, &wire.Job{ID: "1"}},
		{"job, waiting for long", "GET /v1/jobs/1?wait=1m0s ", wire.Job{ID: "1"},
			func(c *Client) (any, error) { return c.Job(ctx, "1", time.Hour) }, &wire.Job{ID: "1"}},
		{"sync", "POST /v1/sync ", wire.Sync{Outcome: "ok", Changed: 3},
			func(c *Client) (any, error) { return c.Sync(ctx) }, &wire.Sync{Outcome: "ok", Changed: 3}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var request string
			cl := serve(t, func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil {
					t.Error(err)
				}
				request = r.Method + " " + r.RequestURI + " " + string(body)
				reply(w, 200, isJSON, c.answer)
			})
			got, err := c.call(cl)
			if err != nil {
				t.Fatal(err)
			}
			if request != c.request {
				t.Errorf("got request %s, want %s", request, c.request)
			}
			g, _ := json.Marshal(got) // these types always marshal
			w, _ := json.Marshal(c.wantReturned)
			if !bytes.Equal(g, w) {
				t.Errorf("got %s, want %s", g, w)
			}
		})
	}
}

func TestLaunch(t *testing.T) {
	for status, again := range map[int]bool{201: false, 200: true} {
		c := serve(t, func(w http.ResponseWriter, r *http.Request) {
			reply(w, status, isJSON, wire.Job{ID: "1", State: wire.Running})
		})
		job, got, err := c.Launch(t.Context(), wire.Launch{ID: "1"})
		if err != nil || job.ID != "1" || got != again {
			t.Errorf("%d: got %v, again %v, %v; want job 1, again %v", status, job, got, err, again)
		}
	}
}

func TestWait(t *testing.T) {
	calls := 0
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		calls++
		job := wire.Job{ID: "1", State: wire.Running}
		if calls == 3 {
			job.State = wire.Exited
		}
		reply(w, 200, isJSON, job)
	})
	job, err := c.Wait(t.Context(), "1")
	if err != nil || !job.Done() || calls != 3 {
		t.Errorf("got %v, %v after %d calls, want it done after 3", job, err, calls)
	}
}

func TestProblem(t *testing.T) {
	want := wire.NewProblem(wire.CallerUnknown, "no entry matches uid 7")
	want.Field = "subject.user"
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		reply(w, want.Status, wire.ContentType+"; charset=utf-8", want)
	})
	for name, call := range map[string]func() error{
		"status":   func() error { _, err := c.Status(t.Context()); return err },
		"launch":   func() error { _, _, err := c.Launch(t.Context(), wire.Launch{}); return err },
		"output":   func() error { _, err := c.Output(t.Context(), "1", Stdout, Reading{}, io.Discard); return err },
		"health":   func() error { _, err := c.Health(t.Context()); return err },
		"retrieve": func() error { _, err := c.Retrieve(t.Context(), "n", wire.Retrieve{}, io.Discard); return err },
	} {
		got, ok := errors.AsType[*wire.Problem](call())
		if !ok || got.Code != want.Code || got.Detail != want.Detail || got.Field != want.Field || got.Status != want.Status {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
}

// TestHealth: the service says in full what is wrong with it, in a 503 that is no problem document.
func TestHealth(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		reply(w, 503, isJSON, wire.Health{State: "starting", Reasons: []wire.Finding{{Code: "launcher.unavailable"}}})
	})
	h, err := c.Health(t.Context())
	if err != nil || h.Healthy || len(h.Reasons) != 1 {
		t.Errorf("got %+v, %v; want one reason", h, err)
	}
}

func TestOutput(t *testing.T) {
	content := strings.Repeat("0123456789", 20000)
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/jobs/1/output/stderr" || r.URL.Query().Get("offset") != "5" {
			t.Errorf("got %s, want stderr from 5", r.RequestURI)
		}
		_, _ = io.WriteString(w, content[5:])
	})
	var got strings.Builder
	n, err := c.Output(t.Context(), "1", Stderr, Reading{Offset: 5}, &got)
	if err != nil || n != int64(len(content)-5) || got.String() != content[5:] {
		t.Errorf("got %d octets, %v; want %d", n, err, len(content)-5)
	}
}

// TestOutputCut: what came counts, so that the next call goes on there; whose fault it was can be told.
func TestOutputCut(t *testing.T) {
	c := raw(t, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabcd")
	var got strings.Builder
	n, err := c.Output(t.Context(), "1", Stdout, Reading{}, &got)
	if n != 4 || got.String() != "abcd" || !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %d, %q, %v; want four octets and ErrUnreachable", n, &got, err)
	}
	c = raw(t, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabcd")
	if _, err := c.Output(t.Context(), "1", Stdout, Reading{}, full{}); !errors.Is(err, errFull) || errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v, want the writer's error", err)
	}
}

var errFull = errors.New("no space left")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestUnreachable(t *testing.T) {
	socket, l := listen(t)
	silent := New(socket)
	l.Close()
	foreign, other := listen(t)
	if err := os.Chown(foreign, 1, -1); err != nil {
		t.Fatal(err)
	}
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		if conn, err := other.Accept(); err == nil {
			t.Error("something was sent to a socket of another user")
			conn.Close()
		}
	}()
	for name, c := range map[string]struct {
		client *Client
		also   error
	}{
		"nothing there":   {New(filepath.Join(t.TempDir(), "none")), os.ErrNotExist},
		"nobody listens":  {silent, nil},
		"not root's":      {New(foreign), ErrOwner},
		"hangs up":        {raw(t, ""), nil},
		"half a header":   {raw(t, "HTTP/1.1 200 OK\r\nContent-"), nil},
		"half an answer":  {raw(t, "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{\"machine\":"), nil},
		"no answer in it": {raw(t, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), nil},
	} {
		_, err := c.client.Status(t.Context())
		if !errors.Is(err, ErrUnreachable) || c.also != nil && !errors.Is(err, c.also) {
			t.Errorf("%s: got %v, want ErrUnreachable and %v", name, err, c.also)
		}
		if name == "no answer in it" {
			continue // a password may be empty
		}
		if _, err := c.client.Retrieve(t.Context(), "n", wire.Retrieve{}, io.Discard); !errors.Is(err, ErrUnreachable) && name != "half an answer" {
			t.Errorf("%s: Retrieve: got %v, want ErrUnreachable", name, err)
		}
	}
	other.Close()
	<-accepted
}

func TestStrangeAnswers(t *testing.T) {
	for name, c := range map[string]struct{ answer, want string }{
		"not HTTP":            {"SSH-2.0-OpenSSH\r\n\r\n", "malformed HTTP"},
		"no JSON":             {"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "cannot be read"},
		"no problem document": {"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", `"403 Forbidden" without saying why`},
		"redirect":            {"HTTP/1.1 307 X\r\nLocation: http://example.com/\r\nContent-Length: 0\r\n\r\n", `"307 X" without saying why`},
		"problem, no code":    {"HTTP/1.1 403 Forbidden\r\nContent-Type: application/problem+json\r\nContent-Length: 2\r\n\r\n{}", "without saying why"},
		"endless header":      {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", maxHeader+8192) + "\r\n\r\n", "header"},
	} {
		cl := raw(t, c.answer)
		if _, err := cl.Status(t.Context()); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want …%s…", name, err, c.want)
		}
		if _, err := cl.Retrieve(t.Context(), "n", wire.Retrieve{}, io.Discard); err == nil {
			t.Errorf("%s: Retrieve: got no error", name)
		}
	}
}

// TestTooLong: an answer without end costs a bounded amount of memory.
func TestTooLong(t *testing.T) {
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, `{"machine":"`)
		for block := strings.Repeat("x", 1<<20); ; {
			if _, err := io.WriteString(w, block); err != nil {
				return
			}
		}
	})
	if _, err := c.Status(t.Context()); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("got %v, want that the answer is too long", err)
	}
}

func TestContext(t *testing.T) {
	hold := make(chan struct{})
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-hold:
		case <-r.Context().Done():
		}
	})
	defer close(hold)
	enough := errors.New("enough")
	for name, call := range map[string]func(context.Context) error{
		"Wait": func(ctx context.Context) error { _, err := c.Wait(ctx, "1"); return err },
		"Retrieve": func(ctx context.Context) error {
			_, err := c.Retrieve(ctx, "n", wire.Retrieve{}, io.Discard)
			return err
		},
	} {
		ctx, cancel := context.WithTimeoutCause(t.Context(), 50*time.Millisecond, enough)
		if err := call(ctx); !errors.Is(err, enough) || !errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrUnreachable) {
			t.Errorf("%s: got %v, want the context's cause", name, err)
		}
		cancel()
	}
}

// TestReconnects: a service that was restarted is found again.
func TestReconnects(t *testing.T) {
	socket, l := listen(t)
	c := New(socket)
	defer c.Close()
	for i := range 3 {
		if i > 0 {
			var err error
			if l, err = net.Listen("unix", socket); err != nil {
				t.Fatal(err)
			}
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { reply(w, 200, isJSON, wire.Whoami{}) })}
		ended := make(chan error)
		go func() { ended <- srv.Serve(l) }()
		for range 2 {
			if _, err := c.Whoami(t.Context()); err != nil {
				t.Errorf("start %d: %v", i, err)
			}
		}
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		<-ended
		if _, err := c.Whoami(t.Context()); !errors.Is(err, ErrUnreachable) {
			t.Errorf("stop %d: got %v, want ErrUnreachable", i, err)
		}
	}
}
