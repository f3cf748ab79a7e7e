package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"sync/atomic"

	"batchwarden/platform/secret"
)

// server is where requests go. Vault's own client library would do as much, but
// loading it takes a third of the time in which this program starts, and every
// poll starts it.
type server struct {
	address  *url.URL
	web      *http.Client
	requests atomic.Int64
}

// caller is who asks; the zero caller is anybody.
type caller struct {
	secret.Mute
	token, namespace string
}

var errDowngrade = errors.New("a redirect to a place without TLS")

// request reads at, or writes body to it if there is one. It follows one
// redirect, as a standby answers it, and takes every status for an answer.
func (s *server) request(ctx context.Context, who caller, at string, query url.Values, body any) (*http.Response, error) {
	method, text := http.MethodGet, []byte(nil)
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return nil, err
		}
		method = http.MethodPut
	}
	to := *s.address
	to.Path, to.RawQuery = path.Join("/", to.Path, "v1", at), query.Encode()
	resp, err := s.send(ctx, who, method, &to, text)
	if err != nil || !redirects(resp.StatusCode) {
		return resp, err
	}
	next, err := resp.Location()
	resp.Body.Close() // nothing in it is wanted
	switch {
	case err != nil:
		return nil, err
	case to.Scheme == "https" && next.Scheme != "https":
		return nil, errDowngrade
	}
	return s.send(ctx, who, method, next, text)
}

func redirects(status int) bool {
	return status == http.StatusMovedPermanently || status == http.StatusFound || status == http.StatusTemporaryRedirect
}

func (s *server) send(ctx context.Context, who caller, method string, to *url.URL, text []byte) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, to.String(), bytes.NewReader(text))
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Vault-Request", "true") // agents ask for it, against requests that others had made by a browser
	if who.token != "" {
		req.Header.Set("X-Vault-Token", who.token)
	}
	if who.namespace != "" {
		req.Header.Set("X-Vault-Namespace", who.namespace)
	}
	s.requests.Add(1)
	resp, err := s.web.Do(req)
	if err != nil {
		return nil, err
	}
	resp.Body = &bounded{resp.Body, maxBody}
	return resp, nil
}

func parseAddress(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("remote: %q is not the address of a server", text)
	}
	return u, nil
}

var errLong = errors.New("an answer that is too long")

// bounded bounds what an answer may cost.
type bounded struct {
	io.ReadCloser
	left int
}

func (b *bounded) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if b.left -= n; b.left < 0 {
		return 0, errLong
	}
	return n, err
}
