package client

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"

	"batchwarden/ipc/wire"
	"batchwarden/platform/localsock"
)

// TestRekey: the pipe arrives with the request, and nothing of what is in it in the request itself.
func TestRekey(t *testing.T) {
	socket, l := listen(t)
	type key struct{}
	srv := &http.Server{
		ConnContext: func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, key{}, c) },
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn := r.Context().Value(key{}).(*localsock.Requests)
			files := conn.Begin()
			defer conn.End()
			body, err := io.ReadAll(r.Body)
			if err != nil || len(files) != 1 || r.Method+r.URL.Path != "POST/v1/rekey" || string(body) != `{"kind":"tpm2","id":"7"}` {
				t.Errorf("%s %s %q with %d descriptors, %v", r.Method, r.URL, body, len(files), err)
				reply(w, 400, wire.ContentType, wire.Invalid("", "no"))
				return
			}
			text, err := io.ReadAll(files[0].File())
			if err != nil {
				t.Error(err)
			}
			if err := files[0].Close(); err != nil {
				t.Error(err)
			}
			if string(text) == "bad" {
				reply(w, 403, wire.ContentType, wire.NewProblem(wire.CallerForbidden, "no"))
				return
			}
			reply(w, 200, "application/json", wire.HostKey{Kind: "tpm2", ID: string(text)})
		}),
	}
	ended := make(chan error)
	go func() { ended <- srv.Serve(receiving{l}) }() // ends with srv.Close
	defer func() {
		if err := srv.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	c := New(socket)
	defer c.Close()
	for _, text := range []string{"one", "two", "bad"} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		defer r.Close()
		if _, err := w.WriteString(text); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		got, err := c.Rekey(t.Context(), wire.HostKey{Kind: "tpm2", ID: "7"}, r)
		if text == "bad" {
			if p, is := errors.AsType[*wire.Problem](err); !is || p.Code != wire.CallerForbidden {
				t.Errorf("got %v, %v", got, err)
			}
			continue
		}
		if err != nil || got.ID != text {
			t.Errorf("got %+v, %v, want %s", got, err, text)
		}
	}
	if _, err := New(socket+"0").Rekey(t.Context(), wire.HostKey{}, os.Stdin); !errors.Is(err, ErrUnreachable) {
		t.Errorf("where nobody listens: %v", err)
	}
}

type receiving struct{ net.Listener }

func (r receiving) Accept() (net.Conn, error) {
	c, err := r.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return localsock.NewRequests(c.(*net.UnixConn), 3), nil
}
