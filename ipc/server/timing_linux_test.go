package server

import (
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"batchwarden/ipc/wire"
	"batchwarden/platform/peer"
)

// slow answers in more time than a request may take to be read.
type slow struct {
	Broker
	takes time.Duration
}

func (slow) Stranger(*peer.Connection) bool                          { return false }
func (slow) Admit(context.Context, *peer.Connection) (func(), error) { return func() {}, nil }
func (b slow) Sync(ctx context.Context, _ *peer.Connection) (wire.Sync, error) {
	return wire.Sync{Outcome: b.wait(ctx)}, nil
}
func (b slow) Events(ctx context.Context, _ *peer.Connection, _ uint64, _ time.Duration) (wire.Events, error) {
	return wire.Events{Events: []wire.Event{{Detail: b.wait(ctx)}}}, nil
}
func (b slow) Report(ctx context.Context, _ *peer.Connection, _ string, _ *wire.Report) (wire.Reported, error) {
	if b.wait(ctx) != "ok" {
		return wire.Reported{}, ctx.Err()
	}
	return wire.Reported{Version: 1}, nil
}

func (b slow) wait(ctx context.Context) string {
	select {
	case <-ctx.Done():
		return "gone"
	case <-time.After(b.takes):
		return "ok"
	}
}

// TestTimeToReadEndsWithTheRequest: a request has to be there in time, and its answer may take longer.
func TestTimeToReadEndsWithTheRequest(t *testing.T) {
	const limit = 100 * time.Millisecond
	s := New(slow{takes: 4 * limit}, slog.New(slog.DiscardHandler))
	s.http.ReadTimeout = limit
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- s.Serve(ctx, ln) }() // ends with ctx
	defer func() {
		stop()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	client := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}}
	defer client.CloseIdleConnections()
	for _, c := range []struct{ method, path, body string }{
		{"GET", "/v1/events", ""}, {"POST", "/v1/sync", ""}, {"POST", "/v1/batch-users/a/report", `{"version":1,"outcome":"rejected"}`},
	} {
		r, err := http.NewRequestWithContext(t.Context(), c.method, "http://batchwarden"+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(r)
		if err != nil {
			t.Errorf("%s %s: %v", c.method, c.path, err)
			continue
		}
		text, err := io.ReadAll(res.Body)
		_ = res.Body.Close() // all of it was read
		if err != nil || res.StatusCode != 200 || strings.Contains(string(text), "gone") {
			t.Errorf("%s %s: status %d, %s, %v", c.method, c.path, res.StatusCode, text, err)
		}
	}

	late, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close()
	if err := late.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(late, "POST /v1/batch-users/a/report HTTP/1.1\r\nHost: b\r\nContent-Length: 40\r\n\r\n{"); err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(late); err != nil || !strings.HasPrefix(string(text), "HTTP/1.1 400") {
		t.Errorf("half a request: %q, %v; want a refusal and the end", text, err)
	}
}
