package server

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"batchwarden/ipc/wire"
	"batchwarden/platform/localsock"
	"batchwarden/platform/lockmem"
	"batchwarden/platform/peer"
)

// A listener of bodies: what the handlers make of requests arrives here, and is allowed or, where an answer would need
// the rest of the service, refused.
type heard struct {
	mu   sync.Mutex // guards body
	body any        // the last one that was let through
}

func (h *heard) hear(body any) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.body = body
}

// taken is what was heard since the last time.
func (h *heard) taken() any {
	h.mu.Lock()
	defer h.mu.Unlock()
	body := h.body
	h.body = nil
	return body
}

func (h *heard) Admit(context.Context, *peer.Connection) (func(), error) { return func() {}, nil }
func (h *heard) Stranger(*peer.Connection) bool                          { return false }
func (h *heard) Health() wire.Health                                     { return wire.Health{Healthy: true} }
func (h *heard) Whoami(context.Context, *peer.Connection) wire.Whoami {
	return wire.Whoami{API: wire.API}
}
func (h *heard) Status(context.Context, *peer.Connection) (w wire.Status, err error) {
	return w, nil
}
func (h *heard) Authorize(_ context.Context, _ *peer.Connection, body *wire.Authorize, _ bool) (d wire.Decision, err error) {
	h.hear(body)
	return d, nil
}
func (h *heard) BatchUsers(context.Context, *peer.Connection) (u wire.BatchUsers, err error) {
	return u, nil
}
func (h *heard) BatchUser(context.Context, *peer.Connection, string) (u wire.BatchUser, err error) {
	return u, nil
}
func (h *heard) Retrieve(_ context.Context, _ *peer.Connection, _ string, body *wire.Retrieve, _ func(wire.Secret, *lockmem.Buffer) error) error {
	h.hear(body)
	return wire.NewProblem(wire.BatchUserUnknown, "")
}
func (h *heard) Verify(context.Context, *peer.Connection, string) (v wire.Verified, err error) {
	return v, nil
}
func (h *heard) Report(_ context.Context, _ *peer.Connection, _ string, body *wire.Report) (r wire.Reported, err error) {
	h.hear(body)
	return r, nil
}
func (h *heard) Launch(_ context.Context, _ *peer.Connection, _ *net.UnixConn, body *wire.Launch, _ []*os.File) (wire.Job, bool, error) {
	h.hear(body)
	return wire.Job{ID: "x"}, false, nil
}
func (h *heard) Job(context.Context, *peer.Connection, string, time.Duration) (wire.Job, error) {
	return wire.Job{ID: "x", State: wire.Exited}, nil
}
func (h *heard) Jobs(context.Context, *peer.Connection, wire.JobFilter) (j wire.Jobs, err error) {
	return j, nil
}
func (h *heard) Output(context.Context, *peer.Connection, string, string, wire.Subject, json.RawMessage) (*os.File, error) {
	return os.Open(os.DevNull)
}
func (h *heard) Signal(_ context.Context, _ *peer.Connection, _ string, body *wire.Signal) (j wire.Job, err error) {
	h.hear(body)
	return j, nil
}
func (h *heard) Forget(context.Context, *peer.Connection, string) error { return nil }
func (h *heard) DryRun(_ context.Context, _ *peer.Connection, _ *net.UnixConn, body *wire.Launch, _ bool, _ string) (d wire.DryRun, err error) {
	h.hear(body)
	return d, nil
}
func (h *heard) Events(context.Context, *peer.Connection, uint64, time.Duration) (e wire.Events, err error) {
	return e, nil
}
func (h *heard) Sync(context.Context, *peer.Connection) (s wire.Sync, err error) { return s, nil }
func (h *heard) Metrics(context.Context, *peer.Connection) ([]byte, error)       { return nil, nil }
func (h *heard) Suspend(_ context.Context, _ *peer.Connection, body *wire.Suspend) (s wire.Suspension, err error) {
	h.hear(body)
	return s, nil
}
func (h *heard) Reload(context.Context, *peer.Connection) (r wire.Reload, err error) {
	return r, nil
}
func (h *heard) Resume(context.Context, *peer.Connection) (s wire.Suspension, err error) {
	return s, nil
}
func (h *heard) LogLevel(_ context.Context, _ *peer.Connection, body *wire.SetLogLevel) (l wire.LogLevel, err error) {
	if body != nil {
		h.hear(body)
	}
	return l, nil
}
func (h *heard) Rekey(_ context.Context, _ *peer.Connection, body *wire.HostKey, _ *os.File) (k wire.HostKey, err error) {
	h.hear(body)
	return k, nil
}

// serving is a real server whose broker only listens.
func serving(f *testing.F) (h *heard, path string, said *bytes.Buffer) {
	f.Helper()
	h, said = &heard{}, new(bytes.Buffer)
	path = filepath.Join(f.TempDir(), "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		f.Fatal(err)
	}
	s := New(h, slog.New(slog.NewTextHandler(said, nil)))
	s.http.ErrorLog = slog.NewLogLogger(slog.NewTextHandler(said, nil), slog.LevelError)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.Serve(ctx, l) }() // ends with stop
	f.Cleanup(func() {
		stop()
		if err := errors.Join(<-ended, s.Shutdown(context.Background())); err != nil {
			f.Error(err)
		}
	})
	return h, path, said
}

func descriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// released waits until as many descriptors are open as before: the server sees the end of a connection in its own time.
func released(t *testing.T, before int) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(100 * time.Microsecond) {
		after := descriptors(t)
		if after <= before { // what another left may have gone since
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d descriptors before, %d after", before, after)
		}
	}
}

// target is a route's path with this for every name in it.
func target(pattern, name, query string) (method, path string) {
	method, path, _ = strings.Cut(pattern, " ")
	if name == "" || name == "." || name == ".." {
		name = "x" // the router cleans the path before we see it
	}
	for _, variable := range []string{"{name}", "{id}", "{stream}"} {
		path = strings.ReplaceAll(path, variable, url.PathEscape(name))
	}
	if query != "" {
		path += "?" + strings.Map(func(r rune) rune {
			if r <= ' ' || r >= 0x7f || r == '#' {
				return '+'
			}
			return r
		}, query)
	}
	return method, path
}

// FuzzBodies sends arbitrary bodies, with arbitrary descriptors, to every call through the real handlers. Every answer
// is one that the API describes; what is let through says the same when it is written down again; the connection goes on
// or ends; no descriptor is left.
func FuzzBodies(f *testing.F) {
	bodies := []string{
		"", "{}", "null", "[]", `"x"`, "{", "{}{}", `{} x`, `{"unknown":1}`, `{"realm":7}`, `{"realm":"a","realm":"b"}`, `{"id":"` + strings.Repeat("x", 70000) + `"}`,
		`{"realm":"opcon","subject":{"user":"u","roles":["r"],"by":"b"},"action":"launch","object":{"a":[1,2]},"batch_user":"payroll"}`,
		`{"version":7,"outcome":"rejected"}`, `{"signal":"TERM","grace":"30s","subject":{"user":"u"},"object":{}}`, `{"signal":"TERM","grace":"soon"}`, `{"signal":"TERM","grace":-1}`,
		`{"id":"i","realm":"opcon","subject":{},"batch_user":"p","command":["/bin/true"],"dir":"/","env":{"A":"b"},"labels":{"k":"v"},"timeout":"8h","stdio":"null","unix":{"umask":"0027","nice":-5,"limits":{"nofile":1}}}`,
		`{"realm":"o","batch_user":"p","script":{"text":"x","interpreter":["/bin/sh"]},"login":true,"stdin":"\u0000\ud800"}`, `{"realm":"o","command_line":"x","stdio":"passed"}`,
		`{"kind":"keyfile","id":"x"}`, `{"object":` + strings.Repeat("[", 20000) + `}`, `{"unix":{"limits":{"nofile":18446744073709551616}}}`, `{"version":1e400}`,
	}
	for n, r := range table {
		for _, body := range bodies {
			if r.body == 0 && len(body) > 2 {
				continue
			}
			f.Add(uint8(n), "stdout", "", []byte(body), uint8(0), uint8(0))
		}
		f.Add(uint8(n), "a/b", "wait=1s&after=7&explain=1&dry_run=1&follow=1&offset=1&limit=2&tail=3", []byte("{}"), uint8(1), uint8(1))
		f.Add(uint8(n), "%00", "subject={&object=}", []byte(bodies[12]), uint8(2), uint8(3))
		f.Add(uint8(n), "stderr", "%zz", []byte(bodies[15]), uint8(3), uint8(4))
	}
	h, path, said := serving(f)
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = null.Close() })
	f.Fuzz(func(t *testing.T, route uint8, name, query string, body []byte, how, files uint8) {
		before := descriptors(t)
		defer func() { released(t, before) }()
		conn, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close() // it may have been closed by the other end
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		h.taken()

		pattern := table[int(route)%len(table)].pattern
		if table[int(route)%len(table)].body == 0 && how&4 == 0 {
			body = nil // else net/http lingers half a second for each
		}
		method, target := target(pattern, name, query)
		var text bytes.Buffer
		if how&1 == 0 {
			fmt.Fprintf(&text, "%s %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", method, target, len(body), body)
		} else {
			fmt.Fprintf(&text, "%s %s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n", method, target)
			if len(body) > 0 {
				fmt.Fprintf(&text, "%x\r\n%s\r\n", len(body), body)
			}
			text.WriteString("0\r\n\r\n")
		}
		var give []localsock.File
		for range files % 6 {
			give = append(give, null)
		}
		sent := make(chan struct{})
		go func() { // ends with the connection
			defer close(sent)
			_, _ = localsock.WithFiles(conn, give...).Write(text.Bytes()) // the answer may be there first
		}()
		defer func() { _, _ = conn.Close(), <-sent }()

		from := bufio.NewReader(conn)
		resp, err := http.ReadResponse(from, &http.Request{Method: method})
		if len(give) > maxFiles { // which ends the connection, whatever it was told
			if err == nil && resp.StatusCode < 400 {
				t.Errorf("%s %s with %d descriptors: %d", method, target, len(give), resp.StatusCode)
			}
			return
		}
		if err != nil {
			t.Errorf("%s %s with %d descriptors: %v", method, target, len(give), err)
			return
		}
		answer, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Errorf("%s %s: %d, then %v", method, target, resp.StatusCode, err)
			return
		}
		sound(t, pattern, resp, answer)
		if b := h.taken(); b != nil {
			same(t, b)
		}
		if said.Len() > 0 {
			t.Errorf("the server said %s", said)
		}
		if resp.Close {
			return
		}
		<-sent
		if _, err := io.WriteString(conn, "GET /v1/whoami HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return // which is an end of the connection, too
		}
		resp, err = http.ReadResponse(from, nil)
		if err == nil && resp.StatusCode != http.StatusOK {
			t.Errorf("and then: %d", resp.StatusCode)
		}
	})
}

// sound wants an answer that the API describes.
func sound(t *testing.T, pattern string, resp *http.Response, answer []byte) {
	t.Helper()
	kind := resp.Header.Get("Content-Type")
	switch {
	case resp.StatusCode >= 400:
		var p wire.Problem
		if err := json.Unmarshal(answer, &p); err != nil || kind != wire.ContentType || p.Status != resp.StatusCode || wire.NewProblem(p.Code, "").Status != p.Status {
			t.Errorf("%s: %d %q: %q, %v", pattern, resp.StatusCode, kind, answer, err)
		}
		if p.Code == wire.Internal {
			t.Errorf("%s: %s", pattern, answer)
		}
	case resp.StatusCode == http.StatusNoContent, kind == "application/octet-stream", pattern == "GET /metrics" && strings.HasPrefix(kind, "text/plain; version="):
	case resp.StatusCode == http.StatusOK, resp.StatusCode == http.StatusCreated:
		if kind != "application/json" || !json.Valid(answer) {
			t.Errorf("%s: %q: %q", pattern, kind, answer)
		}
	default:
		t.Errorf("%s: %d %q", pattern, resp.StatusCode, answer)
	}
}

// same wants that what was understood of a body says the same when it is written down and read again.
func same(t *testing.T, body any) {
	t.Helper()
	text, err := json.Marshal(body)
	if err != nil {
		t.Errorf("%+v was let through and cannot be written down: %v", body, err)
		return
	}
	again := reflect.New(reflect.TypeOf(body).Elem()).Interface()
	if problem := parse(bytes.NewReader(text), again); problem != nil {
		t.Errorf("%s was let through, and then %v", text, problem)
		return
	}
	if second, err := json.Marshal(again); err != nil || !bytes.Equal(text, second) {
		t.Errorf("%s was let through, and then is %s, %v", text, second, err)
	}
}
