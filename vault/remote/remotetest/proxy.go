package remotetest

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"batchwarden/vault/vaulttest"
)

// proxy stands before a real server and damages what that answers.
type proxy struct {
	*httptest.Server
	caFile string
	begun  atomic.Int32 // connections

	mu   sync.Mutex // guards what follows
	rule func(*reply)
	seen map[string]int
}

// reply is an answer of the server's, to be damaged.
type reply struct {
	request *http.Request
	nth     int // of its path since damage was called, from 1
	status  int
	body    []byte
	cut     bool // half the body, then the end of the connection
	drop    bool // the end of the connection
}

func (r *reply) lists(folder string) bool {
	return strings.HasSuffix(r.request.URL.Path, "/"+folder) && r.request.URL.RawQuery == "list=true"
}

// below reports that the request is about documents, data or metadata.
func (r *reply) below() bool { return strings.HasPrefix(r.request.URL.Path, "/v1/batch/") }

func newProxy(t *testing.T, s *vaulttest.Server) *proxy {
	t.Helper()
	dir := t.TempDir()
	p := &proxy{caFile: filepath.Join(dir, "ca.pem")}
	ca, key, err := vaulttest.NewCA(p.caFile)
	must(t, err)
	certFile, keyFile := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	must(t, vaulttest.NewCertificate(ca, key, certFile, keyFile))
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	must(t, err)
	pem, err := os.ReadFile(s.CAFile)
	must(t, err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(pem)
	upstream := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}}
	p.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, in *http.Request) {
		p.serve(w, in, upstream, s.Address)
	}))
	p.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	p.Config.ConnState = func(_ net.Conn, is http.ConnState) {
		if is == http.StateNew {
			p.begun.Add(1)
		}
	}
	p.StartTLS()
	t.Cleanup(p.Close)
	t.Cleanup(upstream.CloseIdleConnections)
	return p
}

// configure sends the machine through the proxy.
func (p *proxy) configure(m *machine) { m.conf.Address, m.conf.CAFile = p.URL, p.caFile }

// damage applies rule to every answer until the test ends.
func (p *proxy) damage(t *testing.T, rule func(*reply)) {
	p.set(rule)
	t.Cleanup(func() { p.set(nil) })
}

func (p *proxy) set(rule func(*reply)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.rule, p.seen = rule, map[string]int{}
}

func (p *proxy) serve(w http.ResponseWriter, in *http.Request, upstream *http.Client, address string) {
	out, err := http.NewRequestWithContext(in.Context(), in.Method, address+in.URL.RequestURI(), in.Body)
	if err != nil {
		panic(err) // its parts come from a request
	}
	out.Header = in.Header.Clone()
	resp, err := upstream.Do(out)
	if err != nil {
		panic(http.ErrAbortHandler) // as if there were no proxy
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	r := &reply{request: in, status: resp.StatusCode, body: body}
	p.mu.Lock()
	if p.rule != nil {
		p.seen[in.URL.RequestURI()]++
		r.nth = p.seen[in.URL.RequestURI()]
		p.rule(r)
	}
	p.mu.Unlock()
	switch {
	case r.drop:
		panic(http.ErrAbortHandler)
	case r.cut:
		w.Header().Set("Content-Length", resp.Header.Get("Content-Length"))
		w.WriteHeader(r.status)
		_, _ = w.Write(r.body[:len(r.body)/2])    // whether it arrives or not
		_ = http.NewResponseController(w).Flush() // likewise
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Type", resp.Header.Get("Content-Type"))
	w.WriteHeader(r.status)
	_, _ = w.Write(r.body) // the client may be gone
}
