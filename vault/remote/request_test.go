package remote

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"batchwarden/vault/errand"
)

// TestRedirects asks servers that send the caller on, as a standby does.
func TestRedirects(t *testing.T) {
	type asked struct{ method, path, token, body string }
	var got []asked
	active := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body) // what is missing shows
		got = append(got, asked{r.Method, r.URL.RequestURI(), r.Header.Get("X-Vault-Token"), string(b)})
		if r.URL.Path == "/v1/again" {
			http.Redirect(w, r, "/v1/again", http.StatusTemporaryRedirect)
			return
		}
		_, _ = io.WriteString(w, `{"data":{}}`) // a client that is gone misses it
	}))
	defer active.Close()
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a request went out without TLS") }))
	defer plain.Close()
	to := active.URL
	standby := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, to+r.URL.RequestURI(), http.StatusTemporaryRedirect)
	}))
	defer standby.Close()
	roots := x509.NewCertPool()
	roots.AddCert(active.Certificate())
	roots.AddCert(standby.Certificate())
	c, err := newClient(Config{Address: standby.URL}, &tls.Config{RootCAs: roots}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.web.CloseIdleConnections()
	c.setToken("a-token")

	a, trouble := c.do(context.Background(), "batch/data/x", nil, map[string]any{"a": 1})
	if want := (asked{"PUT", "/v1/batch/data/x", "a-token", `{"a":1}`}); trouble != nil || a.status != 200 || len(got) != 1 || got[0] != want {
		t.Errorf("a write: status %d, %v, got %+v, want %+v", a.status, trouble, got, want)
	}
	got = nil
	if a, trouble = c.do(context.Background(), "again", nil, nil); trouble == nil || len(got) != 1 {
		t.Errorf("a second redirect: status %d, %v after %d requests, want a trouble after one", a.status, trouble, len(got))
	}
	to = plain.URL
	if _, trouble = c.do(context.Background(), "batch/data/x", nil, nil); trouble == nil || trouble.code != errand.Answer {
		t.Errorf("a redirect to a place without TLS: got %v, want %s", trouble, errand.Answer)
	}
	if n := c.requests.Load(); n != 5 {
		t.Errorf("counted %d requests, want 5", n)
	}
}
