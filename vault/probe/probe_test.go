package probe

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// served is a server of this answer, and a file with the certificate that it is trusted by.
func served(t *testing.T, status int, text string, date time.Time) Config {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/v1/sys/health" || len(r.Header["X-Vault-Token"]) > 0 {
			t.Errorf("%s with %v", r.URL, r.Header)
		}
		w.Header().Set("Date", date.UTC().Format(http.TimeFormat))
		w.WriteHeader(status)
		_, _ = w.Write([]byte(text)) // who asked may have gone
	}))
	t.Cleanup(s.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw}), 0o644); err != nil {
		t.Fatal(err)
	}
	return Config{Address: s.URL, CAFile: ca}
}

const unsealed = `{"initialized":true,"sealed":false,"standby":true,"version":"1.2.3"}`

func TestLook(t *testing.T) {
	f := Look(t.Context(), served(t, 200, unsealed, time.Now()))
	if want := (Health{true, false, true, "1.2.3"}); f.Health != want || !f.Dated || f.Ahead.Abs() > time.Minute || len(f.Chain) == 0 ||
		errors.Join(f.CA, f.Dial, f.TLS, f.Answer) != nil {
		t.Errorf("a server in order: %+v", f)
	}
	for _, c := range []struct {
		status int
		text   string
		says   string
	}{{404, "no such page", "404"}, {200, "<html>", "200"}, {200, "{}", "200"}, {503, `{"errors":[]}`, "503"}} {
		if f := Look(t.Context(), served(t, c.status, c.text, time.Now())); f.Answer == nil || !strings.Contains(f.Answer.Error(), c.says) {
			t.Errorf("%d %s: %v", c.status, c.text, f.Answer)
		}
	}
	if f := Look(t.Context(), served(t, 503, `{"initialized":true,"sealed":true}`, time.Now())); !f.Health.Sealed || f.Answer != nil {
		t.Errorf("a sealed server: %+v", f)
	}
}

func TestClock(t *testing.T) {
	for _, off := range []time.Duration{-24 * time.Hour, -time.Hour, time.Hour, 24 * time.Hour} {
		f := Look(t.Context(), served(t, 200, unsealed, time.Now().Add(off)))
		if diff := f.Ahead + off; !f.Dated || diff.Abs() > 5*time.Second {
			t.Errorf("a server ahead by %v: we are by %v", off, f.Ahead)
		}
	}
}

func TestTrust(t *testing.T) {
	good := served(t, 200, unsealed, time.Now())
	f := Look(t.Context(), Config{Address: good.Address})
	if _, is := errors.AsType[x509.UnknownAuthorityError](f.TLS); !is || len(f.Presented) == 0 || f.Dated {
		t.Errorf("an unknown CA: %+v", f)
	}
	if f := Look(t.Context(), Config{Address: good.Address, CAFile: good.CAFile, ServerName: "other.test"}); f.TLS == nil || f.Health.Initialized {
		t.Errorf("another name: %+v", f)
	}
	if f := Look(t.Context(), Config{Address: good.Address, CAFile: good.CAFile + ".none"}); !errors.Is(f.CA, os.ErrNotExist) {
		t.Errorf("no CA file: %+v", f)
	}
}

// A server that takes connections and says nothing costs a bounded time.
func TestSilent(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	f := Look(t.Context(), Config{Address: "https://" + l.Addr().String()})
	if took := time.Since(begun); !Late(f.TLS) || took > 2*stepTime {
		t.Errorf("%+v after %v", f, took)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if f := Look(t.Context(), Config{Address: "https://" + l.Addr().String()}); f.Dial == nil {
		t.Errorf("nobody: %+v", f)
	}
}
