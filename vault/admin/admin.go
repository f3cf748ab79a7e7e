// Package admin sets up and keeps the Vault side of batchwarden: the mount, what
// machines log in with and may read, batch users and policies. It is what stands
// behind "batchwarden admin", and acts with the operator's own token.
//
// Everything may be done again: what is already as it should be is left alone
// and gives no Step. A dry run reads, writes nothing, and returns the steps that
// it would have taken.
//
// An Admin may be used by several goroutines. It is made for one command: what it
// found out about mounts and policies is not asked for again.
package admin

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/vault/api"

	"batchwarden/platform/secret"
)

// The mounts that are used where the configuration names none.
const (
	DefaultMount     = "batch"
	DefaultAuthMount = "approle"
)

// Errors that callers tell apart. The text around them says which path and why.
var (
	// ErrUnavailable reports a server that answers and cannot act: it is sealed, or in trouble.
	ErrUnavailable = errors.New("the server cannot act")
	// ErrForbidden reports that the operator's token lacks a permission; the text names path and capability.
	ErrForbidden = errors.New("the token may not do this")
	// ErrConflict reports that somebody else changed the document meanwhile. Nothing was written.
	ErrConflict = errors.New("changed by somebody else meanwhile")
	// ErrNotFound reports that what was to be changed is not there.
	ErrNotFound = errors.New("not found")
	// ErrShared reports a password that every machine of a platform would read, without leave for it.
	ErrShared = errors.New("every machine of the platform would read this password")
	// ErrTaken reports something of that name in Vault that is not batchwarden's, or another one's.
	ErrTaken = errors.New("the name is taken")
	// ErrInvalid reports a name or a document that no machine would take.
	ErrInvalid = errors.New("not valid")
	// ErrInUse reports that something cannot be removed because something else needs it.
	ErrInUse = errors.New("still in use")
)

// Config says where Vault is and who asks. Nothing else is read from the environment
// than the proxy.
type Config struct {
	secret.Mute
	Address   string // VAULT_ADDR
	Token     string // VAULT_TOKEN
	Namespace string // VAULT_NAMESPACE

	CAFile     string // VAULT_CACERT; empty: the system's
	ServerName string // VAULT_TLS_SERVER_NAME
	ClientCert string // VAULT_CLIENT_CERT and VAULT_CLIENT_KEY: both or none
	ClientKey  string

	Mount     string // of the documents, KV version 2; empty: DefaultMount
	AuthMount string // of AppRole; empty: DefaultAuthMount

	DryRun bool // read, and say what would be done
}

// Verbs of steps.
const (
	Create  = "create"
	Update  = "update"
	Delete  = "delete"
	Issue   = "issue"   // of a secret_id
	Warning = "warning" // something did not work, and the rest does not depend on it
	Note    = "note"    // what follows from the other steps, in words
)

// Step is one thing that was done, or in a dry run would be.
type Step struct {
	Verb   string `json:"verb"`
	Path   string `json:"path,omitempty"` // in Vault
	Detail string `json:"detail,omitempty"`
}

// String is the step as one line.
func (s Step) String() string {
	line := s.Verb
	if s.Path != "" {
		line += " " + s.Path
	}
	if s.Detail != "" {
		line += ": " + s.Detail
	}
	return line
}

// Admin sets Vault up on behalf of one operator.
type Admin struct {
	secret.Mute
	conf  Config
	api   *api.Client
	conns *http.Transport

	mu       sync.Mutex                 // guards what follows
	accessor string                     // of AppRole's mount, once known
	policies map[string]bool            // that are as they should be
	groups   map[string]string          // how a group is written, by its policy
	names    map[string]map[string]bool // of batch users, by scope, as listed once
}

const requestTime = time.Minute // with all its repetitions

// New returns an Admin that has asked nobody yet.
func New(c Config) (*Admin, error) {
	c.Mount, c.AuthMount = strings.Trim(c.Mount, "/"), strings.Trim(c.AuthMount, "/")
	if c.Mount == "" {
		c.Mount = DefaultMount
	}
	if c.AuthMount == "" {
		c.AuthMount = DefaultAuthMount
	}
	for _, m := range []string{c.Mount, c.AuthMount} {
		if err := checkMount(m); err != nil {
			return nil, err
		}
	}
	if c.Address == "" {
		return nil, errors.New("admin: no address of Vault: set VAULT_ADDR")
	}
	client, conns, err := newClient(c)
	if err != nil {
		return nil, fmt.Errorf("admin: %w", err)
	}
	return &Admin{conf: c, api: client, conns: conns,
		policies: map[string]bool{}, groups: map[string]string{}, names: map[string]map[string]bool{}}, nil
}

// Mount is where the documents lie.
func (a *Admin) Mount() string { return a.conf.Mount }

// Close ends the connections. The Admin is still good: it makes new ones.
func (a *Admin) Close() { a.conns.CloseIdleConnections() }

// DryRun reports that nothing is written.
func (a *Admin) DryRun() bool { return a.conf.DryRun }

func newClient(c Config) (*api.Client, *http.Transport, error) {
	t := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: c.ServerName}
	if c.CAFile != "" {
		pem, err := os.ReadFile(c.CAFile)
		if err != nil {
			return nil, nil, err
		}
		t.RootCAs = x509.NewCertPool()
		if !t.RootCAs.AppendCertsFromPEM(pem) {
			return nil, nil, fmt.Errorf("%q holds no certificate", c.CAFile)
		}
	}
	if c.ClientCert != "" || c.ClientKey != "" {
		cert, err := tls.LoadX509KeyPair(c.ClientCert, c.ClientKey)
		if err != nil {
			return nil, nil, err
		}
		t.Certificates = []tls.Certificate{cert}
	}
	conns := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		TLSClientConfig:     t,
		TLSHandshakeTimeout: requestTime,
		DialContext:         (&net.Dialer{Timeout: requestTime}).DialContext,
		MaxIdleConnsPerHost: parallel,
		IdleConnTimeout:     time.Minute,
		ForceAttemptHTTP2:   true,
	}
	client, err := api.NewClient(&api.Config{
		Address:      c.Address,
		MaxRetries:   4,
		MinRetryWait: 200 * time.Millisecond,
		MaxRetryWait: 5 * time.Second,
		CheckRetry:   retry,
		HttpClient: &http.Client{
			Transport:     conns,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the api follows one
		},
	})
	if err != nil {
		return nil, nil, err
	}
	client.ClearNamespace() // the environment may have set one
	if c.Namespace != "" {
		client.SetNamespace(c.Namespace)
	}
	client.SetToken(c.Token)
	return client, conns, nil
}
