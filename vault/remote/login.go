package remote

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"batchwarden/platform/secret"
)

// The methods of Auth.
const (
	AppRole   = "approle"
	Cert      = "cert"
	JWT       = "jwt"
	TokenFile = "token_file"
)

// Auth is how to log in. Every file is read anew by New: what was rotated on
// disk is taken up by the next worker.
type Auth struct {
	Method string
	Mount  string // empty: named like the method
	Role   string // cert, jwt: empty leaves it to the server; wrapped secret_id: whose it must be, empty for any role's

	RoleIDFile, SecretIDFile string // approle
	SecretIDWrapped          bool   // approle: the secret_id file holds a wrapping token
	CertFile, KeyFile        string // cert
	JWTFile                  string // jwt
	TokenFile                string // token_file
}

// login is what the machine proves itself with.
type login struct {
	secret.Mute
	path    string         // empty: token is all there is
	body    map[string]any // sent to path
	token   string         // ready-made
	pair    *tls.Certificate
	wrapped *wrapped // what body still lacks
	secret  []string // must never be in a message
	print   string   // changes when a token of before must not be used any more
}

// readLogin reads what the method needs.
func readLogin(c Config) (login, error) {
	if c.Auth.Mount == "" {
		c.Auth.Mount = c.Auth.Method
	}
	c.Auth.Mount = strings.Trim(c.Auth.Mount, "/")
	switch c.Auth.Method {
	case AppRole:
		return readAppRole(c)
	case Cert:
		return readCert(c)
	case JWT:
		return readJWT(c)
	case TokenFile:
		token, err := readFile(c.Auth.TokenFile)
		return login{token: token, secret: []string{token}}, err
	}
	return login{}, fmt.Errorf("remote: the auth method %q is not supported: %w", c.Auth.Method, errors.ErrUnsupported)
}

func readAppRole(c Config) (login, error) {
	role, err := readFile(c.Auth.RoleIDFile)
	if err != nil {
		return login{}, err
	}
	l := login{path: c.loginPath(), body: map[string]any{"role_id": role}}
	secret, err := readFile(c.Auth.SecretIDFile)
	switch {
	case c.Auth.SecretIDWrapped && errors.Is(err, fs.ErrNotExist):
		l.wrapped = newWrapped(c, "") // removed once it was used: good enough with what it yielded
		return l, nil
	case err != nil:
		return login{}, err
	case c.Auth.SecretIDWrapped:
		l.wrapped = newWrapped(c, secret)
		l.secret = []string{secret}
		return l, nil
	}
	return l.with(c, secret), nil
}

// with completes the login of a role with its secret_id.
func (l login) with(c Config, secretID string) login {
	role := l.body["role_id"]
	l.body = map[string]any{"role_id": role, "secret_id": secretID}
	l.secret = append(l.secret[:len(l.secret):len(l.secret)], secretID)
	l.print = c.print(fmt.Sprint(role), secretID)
	return l
}

// readCert reads the certificate that the connection itself shows. Another
// certificate is another login: the server renews a token only for the one it
// was given to.
func readCert(c Config) (login, error) {
	cert, err := readFile(c.Auth.CertFile)
	if err != nil {
		return login{}, err
	}
	key, err := readFile(c.Auth.KeyFile)
	if err != nil {
		return login{}, err
	}
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		return login{}, fmt.Errorf("remote: %q with its key: %w", c.Auth.CertFile, err)
	}
	body := map[string]any{}
	if c.Auth.Role != "" {
		body["name"] = c.Auth.Role
	}
	return login{path: c.loginPath(), body: body, pair: &pair, print: c.print(c.Auth.Role, string(pair.Certificate[0]))}, nil
}

// readJWT reads the JWT of now. It is in no print: a token stays in use while it
// can be renewed, whatever became of the JWT that it was got with.
func readJWT(c Config) (login, error) {
	jwt, err := readFile(c.Auth.JWTFile)
	if err != nil {
		return login{}, err
	}
	body := map[string]any{"jwt": jwt}
	if c.Auth.Role != "" {
		body["role"] = c.Auth.Role
	}
	return login{path: c.loginPath(), body: body, secret: []string{jwt}, print: c.print(c.Auth.Role)}, nil
}

func (c Config) loginPath() string { return "auth/" + c.Auth.Mount + "/login" }

// print names where a login goes, for whom, and with what.
func (c Config) print(with ...string) string {
	return digest(append([]string{c.Machine, c.Address, c.Namespace, c.Auth.Method, c.Auth.Mount}, with...)...)
}

func digest(parts ...string) string {
	sum := sha256.New()
	for _, part := range parts {
		fmt.Fprintf(sum, "%d:%s", len(part), part)
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// expired reports whether the certificate has, which servers answer with a 500.
func (l *login) expired(now time.Time) bool {
	return l.pair != nil && l.pair.Leaf != nil && now.After(l.pair.Leaf.NotAfter)
}

// hint is what may be behind a refused login, as far as this side can tell.
func (l *login) hint(now time.Time) string {
	switch {
	case l.expired(now):
		return "; the certificate expired on " + l.pair.Leaf.NotAfter.UTC().Format(time.DateTime) + " UTC"
	case l.wrapped != nil:
		return "; the secret_id that was unwrapped before is not taken: write a new wrapping token into secret_id_file"
	}
	return ""
}

const maxFile = 64 << 10

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
