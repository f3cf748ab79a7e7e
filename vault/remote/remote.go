// Package remote reads from a Vault server what one machine is entitled to.
//
// It is the sync worker's: tokens, TLS and plaintext JSON pass through ordinary
// memory here, and the process that imports it ends when its errand is done. It
// brings what is newer than what the daemon knows, sealed, and says what is
// gone; when in doubt it says that it does not know, and nothing is removed.
//
// A policy document over what Vault takes in one entry lies there in parts: a
// head {"format":1,"model":M,"encoding":"gzip+base64","parts":[{"version":V,
// "sha256":S},…]}, and for each part N, from 1, the document REALM.parts/N
// {"data":D}. D is base64 of a piece of the gzip stream, S the sum of that piece
// in hex, V the part's version in Vault.
package remote

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	"batchwarden/vault/errand"
)

// Config says where the server is and who asks.
type Config struct {
	Machine   string
	Platforms []string // the first is the default of documents that name none
	Groups    []string

	Address    string // https://host:port
	CAFile     string // empty: the system's
	ServerName string // empty: the address's
	Namespace  string
	Mount      string // of the KV v2 engine
	Auth       Auth
}

// The methods of Auth that exist here.
const (
	AppRole   = "approle"
	TokenFile = "token_file"
)

// Auth is how to log in.
type Auth struct {
	Method string
	Mount  string // empty: named like the method

	RoleIDFile, SecretIDFile string // approle
	SecretIDWrapped          bool   // approle: the secret_id file holds a wrapping token
	TokenFile                string // token_file
}

// Source reads one server for one machine.
type Source struct {
	conf   Config
	tls    *tls.Config
	login  login
	scopes []string // nearest first
}

// login is what the machine proves itself with.
type login struct {
	path   string         // empty: token is all there is
	body   map[string]any // sent to path
	token  string         // ready-made
	secret []string       // must never be in a message
	print  string         // changes when a token of before must not be used any more
}

// The bounds of names; Vault limits paths, and documents say the same.
var name = regexp.MustCompile(`^[A-Za-z0-9._-]{1,61}$`)

func goodName(s string) bool { return name.MatchString(s) && s != "." && s != ".." }

const maxFile = 64 << 10

// New reads every file that c names; afterwards none is needed. An error is the
// machine's own set-up at fault, and wraps errors.ErrUnsupported where c asks
// for what does not exist yet.
func New(c Config) (*Source, error) {
	for _, n := range append(append([]string{c.Machine}, c.Groups...), c.Platforms...) {
		if !goodName(n) {
			return nil, fmt.Errorf("remote: %q is not a name of a machine, group or platform", n)
		}
	}
	if len(c.Platforms) == 0 || c.Mount == "" || c.Address == "" {
		return nil, errors.New("remote: address, mount and platform are required")
	}
	s := &Source{conf: c, tls: &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}}
	s.scopes = append(s.scopes, "machines/"+c.Machine)
	for _, g := range c.Groups {
		s.scopes = append(s.scopes, "groups/"+g)
	}
	for _, p := range c.Platforms {
		s.scopes = append(s.scopes, "platforms/"+p)
	}
	if c.CAFile != "" {
		text, err := readFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		s.tls.RootCAs = x509.NewCertPool()
		if !s.tls.RootCAs.AppendCertsFromPEM([]byte(text)) {
			return nil, fmt.Errorf("remote: %q holds no certificate", c.CAFile)
		}
	}
	var err error
	s.login, err = readLogin(c)
	return s, err
}

// Unable is the report of a worker whose New returned err.
func Unable(err error) *errand.Report {
	return &errand.Report{Code: errand.Setup, Detail: clean(err.Error())}
}

func readLogin(c Config) (login, error) {
	a := c.Auth
	if a.Mount == "" {
		a.Mount = a.Method
	}
	switch {
	case a.Method == TokenFile:
		token, err := readFile(a.TokenFile)
		return login{token: token, secret: []string{token}}, err
	case a.Method == AppRole && a.SecretIDWrapped:
		return login{}, fmt.Errorf("remote: a response-wrapped secret_id is not supported yet: %w", errors.ErrUnsupported)
	case a.Method != AppRole:
		return login{}, fmt.Errorf("remote: the auth method %q is not supported yet: %w", a.Method, errors.ErrUnsupported)
	}
	role, err := readFile(a.RoleIDFile)
	if err != nil {
		return login{}, err
	}
	secret, err := readFile(a.SecretIDFile)
	if err != nil {
		return login{}, err
	}
	sum := sha256.New()
	for _, part := range []string{c.Machine, c.Address, c.Namespace, a.Method, a.Mount, role, secret} {
		fmt.Fprintf(sum, "%d:%s", len(part), part)
	}
	return login{
		path:   "auth/" + strings.Trim(a.Mount, "/") + "/login",
		body:   map[string]any{"role_id": role, "secret_id": secret},
		secret: []string{secret},
		print:  hex.EncodeToString(sum.Sum(nil)),
	}, nil
}

// readFile returns a small file's text without the line's end.
func readFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("remote: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return "", fmt.Errorf("remote: %w", err)
	}
	text := strings.TrimSpace(string(b))
	if text == "" || len(b) > maxFile {
		return "", fmt.Errorf("remote: %q is empty or longer than %d octets", path, maxFile)
	}
	return text, nil
}
