// Package probe looks at a Vault server as anybody can who reaches it: no token, no login, nothing secret is sent.
package probe

import (
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
	"os"
	"strings"
	"time"
)

// Bounds of one look.
const (
	stepTime   = 1500 * time.Millisecond // for the connection, for TLS and for the answer, each
	maxAnswer  = 64 << 10
	maxCAFile  = 4 << 20
	healthPath = "/v1/sys/health?standbyok=true&perfstandbyok=true"
)

// Config says where the server is and whom to trust, as batchwarden.yaml has it.
type Config struct {
	Address    string // https, or http of a loopback address
	CAFile     string // "": the system's certificates
	ServerName string // "": the host of Address
}

// Found is what a look found, step by step: each step needs the one before.
type Found struct {
	CA        error // the CA file is not one
	Dial      error // nobody answers
	TLS       error // who answers is not proved
	Answer    error // who answers is no Vault
	Plain     bool  // no TLS is configured
	Chain     []*x509.Certificate
	Presented []*x509.Certificate // where TLS failed: what was shown

	Health Health
	Ahead  time.Duration // how far our clock is ahead of the server's
	Dated  bool          // Ahead is known; where TLS failed it is the word of a stranger
}

// Health is what the server says of itself to anybody.
type Health struct {
	Initialized bool   `json:"initialized"`
	Sealed      bool   `json:"sealed"`
	Standby     bool   `json:"standby"`
	Version     string `json:"version"`
}

// Look looks once. It takes as long as ctx lets it, and never more than a few seconds.
func Look(ctx context.Context, c Config) *Found {
	f := &Found{}
	u, err := url.Parse(c.Address)
	if err != nil {
		f.Dial = err
		return f
	}
	conf := &tls.Config{ServerName: c.ServerName, MinVersion: tls.VersionTLS12}
	if conf.ServerName == "" {
		conf.ServerName = u.Hostname()
	}
	if c.CAFile != "" && u.Scheme == "https" {
		if conf.RootCAs, f.CA = readCAs(c.CAFile); f.CA != nil {
			return f
		}
	}
	if f.Dial = f.reach(ctx, u); f.Dial != nil {
		return f
	}
	if f.Plain = u.Scheme != "https"; !f.Plain {
		if f.TLS = f.shake(ctx, u, conf); f.TLS != nil {
			if bad, is := errors.AsType[x509.CertificateInvalidError](f.TLS); is && bad.Reason == x509.Expired {
				// Only for the date: it may be our clock that is wrong. What a stranger says else is not wanted.
				loose := conf.Clone()
				loose.InsecureSkipVerify = true
				_, _ = f.ask(ctx, u, loose)
			}
			return f
		}
	}
	f.Health, f.Answer = f.ask(ctx, u, conf)
	return f
}

func readCAs(file string) (*x509.CertPool, error) {
	r, err := os.Open(file)
	if err != nil {
		return nil, err
	}
	defer r.Close() // only read
	text, err := io.ReadAll(io.LimitReader(r, maxCAFile))
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("%q has no certificate in PEM form", file)
	}
	return pool, nil
}

// hostPort is where the server listens.
func hostPort(u *url.URL) string {
	port := u.Port()
	if port == "" {
		port = map[string]string{"http": "80", "https": "443"}[u.Scheme]
	}
	return net.JoinHostPort(u.Hostname(), port)
}

// Late reports that the step took too long: somebody is there, and does not answer.
func Late(err error) bool { return errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err) }

func (f *Found) reach(ctx context.Context, u *url.URL) error {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", hostPort(u))
	if err != nil {
		return err
	}
	return conn.Close()
}

func (f *Found) shake(ctx context.Context, u *url.URL, conf *tls.Config) error {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	conn, err := (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", hostPort(u))
	if err != nil {
		if bad, is := errors.AsType[*tls.CertificateVerificationError](err); is {
			f.Presented = bad.UnverifiedCertificates
			return bad.Err
		}
		return err
	}
	if state := conn.(*tls.Conn).ConnectionState(); len(state.VerifiedChains) > 0 {
		f.Chain = state.VerifiedChains[0]
	}
	return conn.Close()
}

// ask asks for health, and holds the server's date against our clock.
func (f *Found) ask(ctx context.Context, u *url.URL, conf *tls.Config) (h Health, err error) {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimRight(u.String(), "/")+healthPath, nil)
	if err != nil {
		return h, err
	}
	web := http.Client{
		Transport:     &http.Transport{TLSClientConfig: conf, DisableKeepAlives: true}, // and no proxy from the environment
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	before := time.Now()
	resp, err := web.Do(req)
	if err != nil {
		if u, is := errors.AsType[*url.Error](err); is {
			err = u.Err // it would repeat the address
		}
		return h, err
	}
	defer resp.Body.Close() // only read
	if date, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
		// The server's date was cut down to the second at some moment between before and now.
		f.Dated = true
		switch after := time.Now(); {
		case before.After(date.Add(time.Second)):
			f.Ahead = before.Sub(date.Add(time.Second))
		case after.Before(date):
			f.Ahead = after.Sub(date)
		}
	}
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return h, err
	}
	var seen struct {
		Initialized *bool `json:"initialized"`
		Health
	}
	if json.Unmarshal(text, &seen) != nil || seen.Initialized == nil {
		return h, fmt.Errorf("it answers %q to the question how Vault is, and not as a Vault server does", resp.Status)
	}
	seen.Health.Initialized = *seen.Initialized
	return seen.Health, nil
}
