package remote

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"batchwarden/platform/secret"
	"batchwarden/vault/errand"
)

const (
	requestTime = 10 * time.Second
	parallel    = 8
	maxBody     = 16 << 20
	maxDetail   = 300
)

// trouble is an error with the code that the daemon shows for it.
type trouble struct{ code, detail string }

func (t *trouble) Error() string { return t.code + ": " + t.detail }

// fatal reports that asking further is of no use: nobody is there, or not he,
// or he asked us not to.
func (t *trouble) fatal() bool {
	switch t.code {
	case errand.Unreachable, errand.TLS, errand.Sealed, errand.Limited:
		return true
	}
	return false
}

// answer is what the server said: 2xx, or a 4xx that Vault itself wrote.
type answer struct {
	secret.Mute
	status int
	body   []byte
	errors []string // of a 4xx
	date   time.Time
}

// client sends requests, at most parallel at a time.
type client struct {
	secret.Mute
	server
	room chan struct{}

	mu     sync.Mutex // guards who, secret and health
	who    caller
	secret []string
	health *trouble // what the first 5xx turned out to be
}

func newClient(c Config, t *tls.Config, secret []string) (*client, error) {
	address, err := parseAddress(c.Address)
	if err != nil {
		return nil, err
	}
	cl := &client{room: make(chan struct{}, parallel), who: caller{namespace: c.Namespace}, secret: slices.Clone(secret)}
	cl.address = address
	cl.web = &http.Client{
		Transport: &http.Transport{ // no proxy from the environment; HTTP/1.1, as one connection for all is slower at either end
			TLSClientConfig:     t.Clone(),
			TLSHandshakeTimeout: requestTime,
			DialContext:         (&net.Dialer{Timeout: requestTime}).DialContext,
			MaxConnsPerHost:     parallel,
			MaxIdleConnsPerHost: parallel,
			IdleConnTimeout:     time.Minute,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return cl, nil
}

// setToken puts the token on every request from now on, and in no message.
func (c *client) setToken(token string) {
	c.conceal(token)
	c.setCaller(token)
}

// clearToken sends the token no more.
func (c *client) clearToken() { c.setCaller("") }

func (c *client) setCaller(token string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.who.token = token
}

func (c *client) caller() caller {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.who
}

// conceal keeps secret out of every message from now on.
func (c *client) conceal(secret string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.secret = append(c.secret, secret)
}

// do reads path, or writes body to it if there is one.
func (c *client) do(ctx context.Context, path string, query url.Values, body any) (answer, *trouble) {
	select {
	case c.room <- struct{}{}:
		defer func() { <-c.room }()
	case <-ctx.Done():
		return answer{}, c.cause(ctx, ctx.Err())
	}
	a, t := c.ask(ctx, c.caller(), path, query, body)
	if t != nil || a.status < 500 {
		return a, t
	}
	return a, c.serverTrouble(ctx, a)
}

func (c *client) ask(ctx context.Context, who caller, path string, query url.Values, body any) (answer, *trouble) {
	ctx, cancel := context.WithTimeout(ctx, requestTime)
	defer cancel()
	resp, err := c.request(ctx, who, path, query, body)
	if err != nil {
		return answer{}, c.cause(ctx, err)
	}
	defer resp.Body.Close()
	b, err := readBody(resp.Body)
	if err != nil {
		return answer{}, c.broken(ctx, err)
	}
	a := answer{status: resp.StatusCode, body: b}
	a.date, _ = http.ParseTime(resp.Header.Get("Date")) // zero: the machine's own clock has to do
	switch {
	case a.status == http.StatusTooManyRequests:
		return a, &trouble{errand.Limited, "the server asks for fewer requests"}
	case a.status >= 500:
		return a, nil
	case a.status < 300:
		return a, nil // whoever takes something from it sees whether it is JSON
	case !json.Valid(b):
		return a, &trouble{errand.Answer, fmt.Sprintf("%s: %d without an answer of Vault's", path, a.status)}
	}
	if a.status >= 400 {
		var e struct {
			Errors []string `json:"errors"`
		}
		if err := json.Unmarshal(b, &e); err != nil {
			return a, &trouble{errand.Answer, fmt.Sprintf("%s: %d without an answer of Vault's", path, a.status)}
		}
		a.errors = e.Errors
	}
	return a, nil
}

// bodies are buffers that answers are read into; memory that is new costs more
// than copying out of one. What is longer than most answers keeps its buffer.
var bodies = sync.Pool{New: func() any { return bytes.NewBuffer(make([]byte, 0, 512<<10)) }}

const usualBody = 32 << 10

func readBody(r io.Reader) ([]byte, error) {
	b := bodies.Get().(*bytes.Buffer)
	b.Reset()
	if _, err := b.ReadFrom(r); err != nil {
		return nil, err
	}
	if b.Len() > usualBody {
		return b.Bytes(), nil
	}
	text := bytes.Clone(b.Bytes())
	bodies.Put(b)
	return text, nil
}

// serverTrouble finds out once what is behind a 5xx: a sealed server says so to anybody.
func (c *client) serverTrouble(ctx context.Context, a answer) *trouble {
	c.mu.Lock()
	known := c.health
	c.mu.Unlock()
	if known != nil {
		return known
	}
	t := &trouble{errand.Error, fmt.Sprintf("the server answers %d", a.status)}
	var st struct {
		Sealed *bool `json:"sealed"`
	}
	h, ht := c.ask(ctx, caller{}, "sys/seal-status", nil, nil)
	if ht == nil && h.status == http.StatusOK && json.Unmarshal(h.body, &st) == nil && st.Sealed != nil && *st.Sealed {
		t = &trouble{errand.Sealed, "the server is sealed"}
	}
	c.mu.Lock()
	c.health = t
	c.mu.Unlock()
	return t
}

// cause is the trouble behind a request that got no answer.
func (c *client) cause(ctx context.Context, err error) *trouble {
	var t *trouble
	if errors.As(context.Cause(ctx), &t) {
		return t // another request met it first
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err // the address is configured, the path may be long
	}
	code := errand.Unreachable
	switch {
	case isTLS(err):
		code = errand.TLS
	case errors.Is(err, errLong), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, errDowngrade):
		code = errand.Answer
	case errors.Is(err, context.DeadlineExceeded):
		err = fmt.Errorf("no answer within %v", requestTime)
	}
	return &trouble{code, c.scrub(err.Error())}
}

// broken is the trouble of an answer that stopped.
func (c *client) broken(ctx context.Context, err error) *trouble {
	if ctx.Err() != nil {
		return c.cause(ctx, err)
	}
	return &trouble{errand.Answer, "half an answer: " + c.scrub(err.Error())}
}

func isTLS(err error) bool {
	var (
		authority   x509.UnknownAuthorityError
		host        x509.HostnameError
		invalid     x509.CertificateInvalidError
		verify      *tls.CertificateVerificationError
		notTLS      tls.RecordHeaderError
		alert       tls.AlertError
		systemRoots x509.SystemRootsError
	)
	return errors.As(err, &authority) || errors.As(err, &host) || errors.As(err, &invalid) || errors.As(err, &verify) ||
		errors.As(err, &notTLS) || errors.As(err, &alert) || errors.As(err, &systemRoots) ||
		strings.Contains(err.Error(), "server gave HTTP response to HTTPS client") ||
		strings.Contains(err.Error(), "remote error: tls:")
}

// said is what Vault wrote in a refusal.
func (c *client) said(a answer) string {
	if len(a.errors) == 0 {
		return http.StatusText(a.status)
	}
	return c.scrub(strings.Join(a.errors, "; "))
}

// scrub makes a text fit to be shown: short, one line, without what we sent in confidence.
func (c *client) scrub(s string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, secret := range c.secret {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, "[withheld]")
		}
	}
	return clean(s)
}

func clean(s string) string {
	s = strings.Map(func(r rune) rune {
		switch {
		case unicode.IsSpace(r):
			return ' '
		case !unicode.IsPrint(r):
			return -1
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxDetail {
		s = strings.ToValidUTF8(s[:maxDetail], "") + "…"
	}
	return s
}

// unmarshal takes what is needed of an answer. What is not there stays zero, and
// is checked by the caller.
func unmarshal(a answer, v any) *trouble {
	if err := json.Unmarshal(a.body, v); err != nil {
		return &trouble{errand.Answer, "an answer that is not one of Vault's"} // err may quote it
	}
	return nil
}
